"""Sources of records: files, TFDS, code that draws them, Python objects; `base` has the contract of a source."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("source", "arrays")
def _arrays(_name: str) -> Any:
    from datamix.sources.arrays import arrays

    return arrays


@registry.builtin("source", "digits")
def _digits(_name: str) -> Any:
    from datamix.sources.synthetic.digits import digits

    return digits


@registry.builtin("source", "garments")
def _garments(_name: str) -> Any:
    from datamix.sources.synthetic.garments import garments

    return garments


@registry.builtin("source", "tfds")
def _tfds(_name: str) -> Any:
    from datamix.sources.tfds.source import Tfds

    return Tfds


@registry.builtin("source", "text", "tokens")
def _text(name: str) -> Any:
    from datamix.sources.text import source

    return source.Text if name == "text" else source.Tokens


@registry.builtin("source", "image_folder")
def _image_folder(_name: str) -> Any:
    from datamix.sources.image_folder import image_folder

    return image_folder


@registry.builtin("source", "array_record")
def _array_record(_name: str) -> Any:
    from datamix.sources.array_record import array_record

    return array_record


@registry.builtin("source", "webdataset")
def _webdataset(_name: str) -> Any:
    from datamix.sources.webdataset import webdataset

    return webdataset


@registry.builtin("source", "parquet", "huggingface")
def _parquet(_name: str) -> Any:
    from datamix.sources.parquet import parquet

    return parquet


@registry.builtin("source", "table")
def _table(_name: str) -> Any:
    from datamix.sources.table import table

    return table
