"""Operators: pure functions on one record, which the pipeline composes, maps over a batch and compiles."""
