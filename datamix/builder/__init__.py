"""From checked dataclasses (`load`), or from Python objects (`mix`), to sources, a plan and a pipeline.

`opening` opens a dataset as an `open_source`, of which `selecting` chooses records. `assembly` puts these together, by
what `labels`, `placement` and `adapt_settings` say; `mix` calls it with Python objects, `built` with a configuration,
and `load` and the jobs call `built`. `views` are mixes of the same sources to evaluate on. `value_checks`,
`statistics_cache` and `texts` look at records.
"""
