"""Sweeps (Hydra's multiruns): run, compare and report on their jobs.

`watching` runs a sweep from start to end: `preparing` checks it, `simplex` may draw its ratios with `sobol`,
`launching` and `processes` run its jobs, `rounds` may add some, `gathering` writes `table`, `figure` and `page`.
`results` reads the results of jobs. From these, `analysis` finds the best ratio with the models of `surfaces`, and
`suggesting` reports it; `mixmin` finds it from one run per source.
"""
