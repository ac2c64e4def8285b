"""Build sources, a plan and a pipeline from checked dataclasses (`load`) or from Python objects (`mix`).

`opening` opens a dataset as an `open_source`, and `selecting` chooses its records. `assembly` combines the sources into
a mix, with the decisions of `labels`, `placement` and `adapt_settings`; `mix` calls it with Python objects and `built`
with a configuration; `load` and the jobs call `built`. `views` are mixes of the same sources for evaluation.
`value_checks`, `statistics_cache` and `texts` read records.
"""
