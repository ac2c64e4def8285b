"""From text to checked dataclasses; imports no JAX.

`compose` has Hydra compose a command line, with `plus` for `source=a+b`; `parse` reads the result into the dataclasses
of `schema`, which `check` compares with their types. `explain` and `own_data` word mistakes, `help` says what each key
means, from the shipped `files`. `paths`, `renamed` and `hydra_node` look after some keys, `directories` after those of
runs.
"""
