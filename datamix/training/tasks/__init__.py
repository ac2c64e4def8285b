"""The tasks that a model can learn, one module each; `choosing` selects one by the leaves of a mix."""
