"""From text to checked dataclasses; imports no JAX."""
