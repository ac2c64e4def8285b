"""Sources of records: files, TFDS, code that draws them, Python objects; `base` has the contract of a source."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("source", "array_record", "arrays", "digits", "garments", "huggingface", "image_folder", "parquet")
@registry.builtin("source", "sample_text", "table", "text", "tfds", "tokens", "webdataset")
def _source(name: str) -> Any:
    source: Any
    match name:
        case "array_record":
            from datamix.sources.array_record import array_record as source
        case "arrays":
            from datamix.sources.arrays import arrays as source
        case "digits":
            from datamix.sources.synthetic.digits import digits as source
        case "garments":
            from datamix.sources.synthetic.garments import garments as source
        case "huggingface" | "parquet":
            from datamix.sources.parquet import parquet as source
        case "image_folder":
            from datamix.sources.image_folder import image_folder as source
        case "sample_text":
            from datamix.sources.text.sample import sample_text as source
        case "table":
            from datamix.sources.table import table as source
        case "text":
            from datamix.sources.text.source import Text

            return Text
        case "tfds":
            from datamix.sources.tfds.source import Tfds

            return Tfds
        case "tokens":
            from datamix.sources.text.source import Tokens

            return Tokens
        case "webdataset":
            from datamix.sources.webdataset import webdataset as source
    return source
