"""Datasets in TFDS's format: read from disk, decoded once and cached, prepared first where need be.

TensorFlow is imported only to read data stored as tfrecord, and TFDS itself (about a second) only where the decoded
split is not in the cache: what a source must know of itself is then in plain JSON files.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError, SpecError, hint, install_hint
from datamix.sources.base import TakeFromRead
from datamix.sources.cache import Place, cache_directory
from datamix.sources.splits import resolve_split
from datamix.sources.tfds.decode import (
    CHUNK_RECORDS,
    Guard,
    Part,
    Reader,
    assign,
    decode,
    instruction,
    progress,
    without_opencv_advice,
)
from datamix.sources.tfds.prepare import Name, find_prepared, prepare, unavailable
from datamix.spec import Arrays, LeafSpec, Spec

_RANDOM_ACCESS = ("array_record", "parquet")  # formats that TFDS reads without TensorFlow


@dataclass(frozen=True, kw_only=True)
class Tfds(TakeFromRead):
    """A dataset in TFDS's format.

    Attributes:
      name: The name of the dataset in TFDS, with config and version where wanted: mnist, emnist/letters, mnist:3.0.1.
      split: The records to read, in TFDS's syntax.
      data_dir: The directory of all datasets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache_dir: The directory of the cache; by default $XDG_CACHE_HOME/datamix, else ~/.cache/datamix.
      leaves: The features to keep; by default all that are numbers of one fixed shape, such as image and label. Texts,
        sequences and images of varying size are left out.
      download: Whether to download and prepare a dataset that is not there.
      wait_s: How long to wait for the first answer from the network.
      url: One of the dataset's own files, asked for before a download; by default, whether there is a network is asked.

    Everything is looked up at first use, and raises

    - ConfigError: TFDS knows no such dataset; there is no such split or leaf.
    - SpecError: no feature of it is numbers of one fixed shape.
    - DataError: the data is damaged, or stored as tfrecord and TensorFlow is not installed.
    - Unavailable: the dataset is neither on disk nor to be had.
    """

    name: str
    split: str = "train"
    data_dir: str | None = None
    cache_dir: str | None = None
    leaves: tuple[str, ...] | None = None
    download: bool = True
    wait_s: float = 5.0
    url: str | None = None

    @property
    def provenance(self) -> str:
        """The kind of place where the records come from."""
        return "tfds"

    @property
    def num_records(self) -> int:
        """The number of records in the split."""
        return sum(part.stop - part.start for part in self._parts)

    @property
    def spec(self) -> Spec:
        """Shape and dtype of each leaf."""
        return self._described[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label, by label; TFDS names classes without a name by their number."""
        return self._described[1]

    def read(self) -> Arrays:
        """All records, memory-mapped; decoded first where the cache does not hold them."""
        return self._slot.load(self._decode).arrays

    def whole_labels(self) -> np.ndarray:
        """The labels of all splits, kept in the cache; see `datamix.sources.base.LabelledSource`."""
        return replace(self, split="all", leaves=("label",)).read()["label"]

    @cached_property
    def _directory(self) -> Path:
        """The prepared dataset's own directory."""
        name = Name.parse(self.name)
        default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        data_dir = Path(self.data_dir or default).expanduser().resolve()
        if directory := find_prepared(name, data_dir):
            return directory
        module = _registered_in(name)
        if not self.download:
            raise unavailable(self.name, data_dir, "download is switched off")
        return prepare(self.name, data_dir, url=self.url, wait_s=self.wait_s, module=module)

    @cached_property
    def _info(self) -> dict[str, Any]:
        """dataset_info.json."""
        path = self._directory / "dataset_info.json"
        with self._damage(path):
            info: dict[str, Any] = json.loads(path.read_bytes())
            return info

    @cached_property
    def _parts(self) -> list[Part]:
        with self._damage(self._directory / "dataset_info.json"):
            shards = {split["name"]: [int(size) for size in split["shardLengths"]] for split in self._info["splits"]}
        parts = []
        for split, start, stop in resolve_split(self.split, {k: sum(v) for k, v in shards.items()}, where="split"):
            first = 0
            for shard, size in enumerate(shards[split]):
                if max(start, first) < min(stop, first + size):
                    parts.append(Part(split, shard, max(start, first), min(stop, first + size)))
                first += size
        return parts

    @cached_property
    def _slot(self) -> Place:
        """The place in the cache of the records that this source reads."""
        directory = self._directory
        files = {
            path.name: [path.stat().st_size, path.stat().st_mtime_ns]
            for path in sorted(directory.iterdir())
            if path.is_file()
        }
        info = hashlib.sha256((directory / "dataset_info.json").read_bytes()).hexdigest()
        return Place(
            cache_dir=cache_directory(self.cache_dir),
            name=f"{self.name}-{self.split}",
            key={
                "directory": str(directory),
                "records": [[part.split, part.start, part.stop] for part in self._parts],
                "leaves": list(self.leaves) if self.leaves is not None else None,
            },
            fingerprint={"files": files, "info": info},
        )

    @cached_property
    def _described(self) -> tuple[Spec, tuple[str, ...]]:
        if entry := self._slot.peek():
            return entry[0], tuple(entry[1]["class_names"])
        self._require_reader()
        features = self._reader.builder.info.features
        spec = {}
        for leaf, feature in sorted(features.items()):
            tensor = feature.get_tensor_info()  # a dict where the feature is nested
            fixed = not isinstance(tensor, dict) and not tensor.dataset_lvl and None not in (tensor.shape or [])
            if fixed and np.dtype(tensor.np_dtype).kind in "biufc":
                spec[leaf] = LeafSpec(tuple(tensor.shape), str(np.dtype(tensor.np_dtype)))
        if not spec:
            raise SpecError(f"source {self.name!r}: no feature is numbers of one fixed shape, which a batch needs.")
        for leaf in self.leaves or ():
            if leaf not in spec:
                raise ConfigError(
                    f"leaves: {self.name} has no numbers of one fixed shape in {leaf!r}. {hint(leaf, spec)}"
                )
        spec = {leaf: of for leaf, of in spec.items() if self.leaves is None or leaf in self.leaves}
        labels = [leaf for leaf in ("label", *spec) if leaf in spec and getattr(features[leaf], "num_classes", None)]
        return spec, tuple(features[labels[0]].names) if labels else ()

    @cached_property
    def _reader(self) -> Reader:
        """TFDS's own reader of the directory."""
        path = self._directory / "features.json"
        with self._damage(path):
            json.loads(path.read_bytes())
        with self._damage(self._directory):
            return Reader(str(self._directory), self._file_format)

    @property
    def _file_format(self) -> str:
        formats: list[str] = [self._info.get("fileFormat", "tfrecord"), *self._info.get("alternativeFileFormats", [])]
        return next((each for each in formats if each in _RANDOM_ACCESS), formats[0])

    def _require_reader(self) -> None:
        """Raise DataError if the records cannot be read here."""
        if self._file_format not in _RANDOM_ACCESS and importlib.util.find_spec("tensorflow") is None:
            raise DataError(
                f"source {self.name!r}: {self._directory} is stored as {self._file_format}, which TensorFlow alone "
                f"reads, and it is not installed: {install_hint('prepare')}."
            )

    def _decode(self) -> tuple[Arrays, dict[str, Any]]:
        spec, class_names = self._described
        arrays = {leaf: np.empty((self.num_records, *of.shape), of.dtype) for leaf, of in spec.items()}
        read = decode if self._file_format in _RANDOM_ACCESS else self._read_in_order
        with without_opencv_advice(), progress(f"Reading {self.name} {self.split}", self.num_records) as advance:
            for count in read(self._reader, self._parts, arrays, self._blamed):
                advance(count)
        return arrays, {"class_names": list(class_names)}

    def _blamed(self, part: Part) -> contextlib.AbstractContextManager[None]:
        """Blame what reading a part raises on its file."""
        return self._damage(Path(self._reader.builder.info.splits[part.split].filepaths[part.shard]))

    def _read_in_order(self, reader: Reader, parts: Sequence[Part], arrays: Arrays, guard: Guard) -> Iterator[int]:
        """The same for formats that only TensorFlow reads, from first to last."""
        self._require_reader()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf
        import tensorflow_datasets as tfds

        with contextlib.suppress(RuntimeError):  # already at work: then it keeps the devices it has
            tf.config.set_visible_devices([], "GPU")  # else it takes all of their memory
        start = 0
        for part in parts:
            with guard(part):
                records = reader.builder.as_dataset(split=instruction(part), shuffle_files=False)
                records = records.map(lambda record: {leaf: record[leaf] for leaf in arrays}).batch(CHUNK_RECORDS)
                try:
                    for batch in tfds.as_numpy(records):
                        stop = start + len(next(iter(batch.values())))
                        for leaf, array in arrays.items():
                            assign(array[start:stop], batch[leaf], leaf)
                        yield stop - start
                        start = stop
                except tf.errors.OpError as error:
                    raise ValueError(re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message)) from error

    @contextlib.contextmanager
    def _damage(self, path: Path) -> Iterator[None]:
        """Turn what reading `path` raises into one line that names it."""
        try:
            yield
        except _faults() as error:
            detail = f"there is no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
            what = f"is damaged: {detail}" if path.exists() else "is missing"
            raise DataError(
                f"source {self.name!r}: {path} {what}. To have it prepared again, delete {self._directory}."
            ) from error


def _registered_in(name: Name) -> str:
    """The module that registers a dataset with TFDS."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    if name.dataset not in known:
        near = difflib.get_close_matches(name.dataset, known, n=1)
        raise ConfigError(
            f"name = {name.dataset!r}: TFDS knows no such dataset, and none is prepared. "
            + (f"Did you mean {near[0]!r}? " if near else "")
            + "All names: https://www.tensorflow.org/datasets/catalog."
        )
    builder = tfds.builder_cls(name.dataset)
    configs = builder.builder_configs
    if name.config and name.config not in configs:
        raise ConfigError(f"name = '{name.dataset}/{name.config}': no such config. {hint(name.config, configs)}")
    return str(builder.__module__)


def _faults() -> tuple[type[BaseException], ...]:
    """The errors that reading damaged data raises; protobuf's are a kind of their own, absent until it is loaded."""
    protobuf = [sys.modules.get(f"google.protobuf.{module}") for module in ("message", "json_format")]
    faults = (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)
    return (*faults, *(module.Error for module in protobuf if module))
