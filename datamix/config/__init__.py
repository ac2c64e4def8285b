"""Turn text into checked dataclasses, without importing JAX.

`compose` has Hydra compose a command line, with `plus` for `source=a+b`; `parse` reads the result into the dataclasses
of `schema`, whose types `check` checks. `explain` and `own_data` turn mistakes into errors of one line, and `help` says
what each key means, from the shipped `files`. `paths` makes paths absolute, `renamed` accepts keys of earlier releases,
`hydra_node` checks Hydra's own part, `quoting` puts text into the quotes of its grammar, and `directories` locks the
directories of runs.
"""
