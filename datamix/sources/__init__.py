"""Sources of records: files, TFDS, code that draws them, Python objects; `base` has the contract of a source."""
