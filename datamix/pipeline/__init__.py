"""The compiled pipeline, and how it hands out batches."""
