"""Datasets drawn by code."""
