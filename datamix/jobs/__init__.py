"""The jobs: what can be done with a mix, one module each."""
