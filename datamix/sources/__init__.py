"""Sources of records: files, TFDS, code that draws them, Python objects; `base` has the contract of a source."""

from __future__ import annotations

from datamix import registry

registry.builtin("source", f"{__name__}.array_record", "array_record")
registry.builtin("source", f"{__name__}.arrays", "arrays")
registry.builtin("source", f"{__name__}.image_folder", "image_folder")
registry.builtin("source", f"{__name__}.parquet", "parquet", huggingface="parquet")
registry.builtin("source", f"{__name__}.synthetic.digits", "digits")
registry.builtin("source", f"{__name__}.synthetic.garments", "garments")
registry.builtin("source", f"{__name__}.table", "table")
registry.builtin("source", f"{__name__}.text.sample", "sample_text")
registry.builtin("source", f"{__name__}.text.source", text="Text", tokens="Tokens")
registry.builtin("source", f"{__name__}.tfds.source", tfds="Tfds")
registry.builtin("source", f"{__name__}.webdataset", "webdataset")
