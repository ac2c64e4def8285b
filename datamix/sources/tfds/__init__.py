"""Datasets in TFDS's format."""
