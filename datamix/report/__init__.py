"""Reports of jobs: files, tables, figures.

`contents` puts `report.json` together, and `files` writes files atomically. `console` and `progress` print to the
terminal. `figures` draws, also for the `curves` of training, the `record_figure` and the `plan_figure`. `records` and
`tokens` show single records.
"""
