"""Sources of records: files, TFDS, code that draws them, Python objects. `base` defines the contract of a source."""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("source", "array_record")
def _array_record() -> ModuleType:
    from datamix.sources import array_record

    return array_record


@registry.builtin("source", "arrays")
def _arrays() -> ModuleType:
    from datamix.sources import arrays

    return arrays


@registry.builtin("source", "image_folder")
def _image_folder() -> ModuleType:
    from datamix.sources import image_folder

    return image_folder


@registry.builtin("source", "parquet", huggingface="parquet")
def _parquet() -> ModuleType:
    from datamix.sources import parquet

    return parquet


@registry.builtin("source", "digits")
def _digits() -> ModuleType:
    from datamix.sources.synthetic import digits

    return digits


@registry.builtin("source", "garments")
def _garments() -> ModuleType:
    from datamix.sources.synthetic import garments

    return garments


@registry.builtin("source", "table")
def _table() -> ModuleType:
    from datamix.sources import table

    return table


@registry.builtin("source", "sample_text")
def _sample_text() -> ModuleType:
    from datamix.sources.text import sample

    return sample


@registry.builtin("source", text="Text", tokens="Tokens")
def _text() -> ModuleType:
    from datamix.sources.text import source

    return source


@registry.builtin("source", tfds="Tfds")
def _tfds() -> ModuleType:
    from datamix.sources.tfds import source

    return source


@registry.builtin("source", "webdataset")
def _webdataset() -> ModuleType:
    from datamix.sources import webdataset

    return webdataset
