"""Sources of records: files, TFDS, code that draws them, Python objects; `base` has the contract of a source."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from datamix import registry

_PLACES = {
    "array_record": "array_record.array_record",
    "arrays": "arrays.arrays",
    "digits": "synthetic.digits.digits",
    "garments": "synthetic.garments.garments",
    "huggingface": "parquet.parquet",
    "image_folder": "image_folder.image_folder",
    "parquet": "parquet.parquet",
    "sample_text": "text.sample.sample_text",
    "table": "table.table",
    "text": "text.source.Text",
    "tfds": "tfds.source.Tfds",
    "tokens": "text.source.Tokens",
    "webdataset": "webdataset.webdataset",
}


@registry.builtin("source", *_PLACES)
def _source(name: str) -> Any:
    module, _, attribute = _PLACES[name].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)
