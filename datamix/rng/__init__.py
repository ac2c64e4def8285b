"""Stateless randomness: hashes and permutations, for NumPy and JAX."""
