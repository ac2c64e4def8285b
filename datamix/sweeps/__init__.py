"""Multiruns: how their jobs are run, compared and reported on.

`watching` runs a sweep from its start to its end: `preparing` checks it, `simplex` may draw its ratios by `sobol`,
`launching` and `processes` run its jobs, `rounds` may add some, `gathering` writes `table`, `figure` and `page`.
`results` are what jobs have left behind. From these, `analysis` finds the best ratio by the models of `surfaces`, and
`suggesting` says it; `mixmin` finds it from one run a source.
"""
