"""Reports of jobs: files, tables, figures.

`contents` puts `report.json` together, and `files` writes whole files. `console` and `progress` print. `figures`
draws, for `curves` of training, the `record_figure` and the `plan_figure`, too; `records` and `tokens` show single
records.
"""
