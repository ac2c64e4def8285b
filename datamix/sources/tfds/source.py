"""Datasets in TFDS's format: decoded once and cached, or decoded as they are read; prepared first if necessary.

TensorFlow is imported only to read data stored as tfrecord, and TFDS itself (about a second) only if the decoded split
is not in the cache: if it is, plain JSON files describe the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datamix.errors import ConfigError, DataError, InstallationError, SpecError, expanded, hint, install_hint
from datamix.sources.base import TakeFromRead
from datamix.sources.cache import CachePlace, cache_directory
from datamix.sources.images import Fit, ImageFormat, Mode
from datamix.sources.long_work import progress_bar
from datamix.sources.splits import located, resolve_split
from datamix.sources.statistics import LeafStatistics, from_json, to_json
from datamix.sources.tfds.decode import DamageError, FilePart, TfdsReader, decode, decode_in_order, without_advice
from datamix.sources.tfds.prepare import Name, find_prepared, prepare, prepared_names, unavailable
from datamix.spec import Arrays, LeafSpec, Spec, bytes_of

CACHED_BYTES = 4 << 30  # of decoded records; up to this size, they are cached by default
_RANDOM_ACCESS = ("array_record", "parquet")  # formats that TFDS reads without TensorFlow


@dataclass(frozen=True, kw_only=True)
class Tfds(TakeFromRead):
    """A dataset in TFDS's format.

    Attributes:
      name: The name of the dataset in TFDS, with config and version if wanted: mnist, emnist/letters, mnist:3.0.1.
      split: The records to read, in TFDS's syntax.
      data_dir: The directory of all datasets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache_dir: The directory of the cache; by default $XDG_CACHE_HOME/datamix, else ~/.cache/datamix.
      leaves: The features to keep, or leaf name to feature; by default all that are numbers of one fixed shape, such as
        image and label. Texts and sequences are left out, and `notes` says so; images of varying size need `height` and
        `width`.
      cache: Whether records are decoded once, into the cache, or each time that they are read, which needs array_record
        or Parquet. By default, they are cached up to 4 GiB of decoded records, and always if stored as tfrecord.
      download: Whether to download and prepare a dataset that is not there.
      wait_s: How long to wait for the first answer from the network, in seconds.
      url: One of the dataset's own files, requested before a download to test the network; by default, a file of
        TFDS's.

    Everything is looked up at first use, which raises

    - ConfigError: TFDS knows no such dataset; there is no such split or leaf.
    - SpecError: no feature of it is numbers of one fixed shape, or its images are of varying size.
    - InstallationError: TFDS, or what it needs to read this dataset, is missing or does not work.
    - DataError: the data is damaged, or stored as tfrecord and TensorFlow is not installed.
    - Unavailable: the dataset is neither on disk nor available for download.
    """

    name: str
    split: str = "train"
    data_dir: str | None = None
    cache_dir: str | None = None
    leaves: tuple[str, ...] | Mapping[str, str] | None = None
    height: int | None = None
    width: int | None = None
    mode: Mode = "L"
    fit: Fit = "resize"
    background: str = "white"
    cache: bool | None = None
    download: bool = True
    wait_s: float = 5.0
    url: str | None = None
    provenance: ClassVar[str] = "tfds"

    @property
    def num_records(self) -> int:
        return sum(part.stop - part.start for part in self._parts)

    @property
    def spec(self) -> Spec:
        return self._described[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._described[1]

    @property
    def notes(self) -> tuple[str, ...]:
        left_out = self._described[2]
        notes = [f"{', '.join(left_out)}: no numbers of one fixed shape, and left out."] if left_out else []
        if self.cache is None and not self._is_cached:
            much = f"{self._num_bytes / 1e9:,.1f} GB of decoded records are more than the cache takes unasked"
            notes.append(f"{much}, and so are decoded each time that they are read; cache=true keeps them.")
        return tuple(notes)

    def read(self) -> Arrays:
        """All records: memory-mapped from the cache, and decoded into it first if need be; or decoded into memory."""
        return self._slot.load(self._decode).arrays if self._is_cached else self._decode()[0]

    @property
    def in_memory(self) -> Arrays:
        """The mapped arrays of the cache; empty if the source does not use it."""
        return self._read_once if self._is_cached else {}

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        if self._is_cached:
            super().take(indices, out)
            return
        features, (numbers, within) = self._features_of(self.spec), self._places(indices)
        for number in np.unique(numbers).tolist():
            part, rows = self._parts[number], np.flatnonzero(numbers == number)
            records = within[rows].tolist()
            decoded = {features[leaf]: np.empty((len(rows), *of.shape[1:]), of.dtype) for leaf, of in out.items()}
            with without_advice(), self._blamed(part):
                self._reader.take(part, records, decoded)
            for leaf, values in out.items():
                values[rows] = decoded[features[leaf]]

    @cached_property
    def _is_cached(self) -> bool:
        if self.cache is not None and (self.cache or self._file_format in _RANDOM_ACCESS):
            return self.cache
        if self.cache is False:
            text = f"{self._directory} is stored as {self._file_format}, which is read in order alone"
            mend = "Leave it out, or prepare the dataset as array_record."
            raise ConfigError(text, key="cache", value=False, hint=mend)
        is_small = self._num_bytes <= CACHED_BYTES
        return is_small or self._file_format not in _RANDOM_ACCESS or self._slot.peek() is not None

    @property
    def _num_bytes(self) -> int:
        return self.num_records * bytes_of(self.spec)

    @cached_property
    def _form(self) -> ImageFormat | None:
        if (height := self.height) is None and self.width is None:
            return None
        if height is None or (width := self.width) is None:
            raise ConfigError("height and width are set together", key="width" if height else "height", value=None)
        return ImageFormat(height=height, width=width, mode=self.mode, fit=self.fit, background=self.background)

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Decode the split into the cache if it is not there, and call `progress(done, total)`, both in records."""
        if self._is_cached:
            self._slot.load(lambda: self._decode(progress))

    def statistics(self) -> Mapping[str, LeafStatistics] | None:
        entry = self._slot.peek()
        return from_json(entry[1]["statistics"]) if entry else None

    def places(self, indices: np.ndarray) -> list[str]:
        shards = {split["name"]: np.cumsum([0, *map(int, split["shardLengths"])]) for split in self._info["splits"]}
        texts = []
        for number, within in np.stack(self._places(indices), 1).tolist():
            part = self._parts[number]
            record = part.start + within - int(shards[part.split][part.shard])
            last = f"-{part.shard:05d}-of-{len(shards[part.split]) - 1:05d}"
            name = f"{self._info.get('name', self.name)}-{part.split}.{self._file_format}{last}"
            texts.append(f"{self._directory / name}, record {record}")
        return texts

    def _places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the part in which each record lies, and its index there, int64 [count] each."""
        return located(np.cumsum([part.stop - part.start for part in self._parts]), indices)

    def whole_labels(self) -> np.ndarray:
        """The labels of all splits, stored in the cache; see `datamix.sources.base.LabelledSource`."""
        feature = self.leaves["label"] if isinstance(self.leaves, Mapping) else "label"
        labels = replace(self, split="all", leaves={"label": feature}, height=None, width=None, cache=True)
        return labels.read()["label"]

    @cached_property
    def _directory(self) -> Path:
        name = Name.parse(self.name)
        default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        data_dir = expanded(self.data_dir or default).resolve()
        if directory := find_prepared(name, data_dir):
            return directory
        module = _registered_in(name, data_dir)
        if not self.download:
            raise unavailable(self.name, data_dir, "download is switched off")
        return prepare(self.name, data_dir, url=self.url, wait_s=self.wait_s, module=module)

    @cached_property
    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._json("dataset_info.json")
        return info

    def _json(self, name: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
        """The content of a file that describes the dataset."""
        path = self._directory / name
        with self._damage(path):
            if path.exists() and not path.is_file():  # opening a pipe would block
                raise DamageError("it is no regular file")
            return json.loads(path.read_bytes(), object_hook=object_hook)

    @cached_property
    def _parts(self) -> list[FilePart]:
        path, info = self._directory / "dataset_info.json", self._info
        try:
            shards = {split["name"]: [int(size) for size in split["shardLengths"]] for split in info["splits"]}
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(path, error) from error
        parts = []
        for split, start, stop in resolve_split(self.split, {k: sum(v) for k, v in shards.items()}):
            first = 0
            for shard, size in enumerate(shards[split]):
                if max(start, first) < min(stop, first + size):
                    parts.append(FilePart(split, shard, max(start, first), min(stop, first + size)))
                first += size
        return parts

    @cached_property
    def _slot(self) -> CachePlace:
        """The place in the cache of the records that this source reads."""
        directory = self._directory
        for path in directory.iterdir():
            if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would block
                raise self._damaged(path, DamageError("it is no regular file"))
        stats = {path.name: path.stat() for path in sorted(directory.iterdir()) if path.is_file()}
        files = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
        info = hashlib.sha256((directory / "dataset_info.json").read_bytes()).hexdigest()
        return CachePlace(
            cache_dir=cache_directory(self.cache_dir),
            name=f"{self.name}-{self.split}",
            key={
                "directory": str(directory),
                "records": [[part.split, part.start, part.stop] for part in self._parts],
                "leaves": dict(self.leaves) if isinstance(self.leaves, Mapping) else self.leaves and list(self.leaves),
                **({} if self._form is None else {"images": astuple(self._form)}),
            },
            fingerprint={"files": files, "info": info},
        )

    @cached_property
    def _described(self) -> tuple[Spec, tuple[str, ...], tuple[str, ...]]:
        """The spec of a record, the names of its classes, and the features that are left out."""
        if entry := self._slot.peek():
            return entry[0], tuple(entry[1]["class_names"]), tuple(entry[1].get("left_out", ()))
        self._require_reader()
        features = self._reader.builder.info.features
        specs = {name: _fixed_spec(features[name]) for name in sorted(features)}
        specs |= dict.fromkeys(sorted(self._reader.images), self._form.spec) if self._form else {}
        spec = {name: part for name, part in specs.items() if part is not None}
        left_out = tuple(name for name in sorted(features) if name not in spec) if self.leaves is None else ()
        for name in left_out:
            self._refuse_image(name, features[name], spec)
        if not spec:
            raise SpecError("no feature is numbers of one fixed shape, which a batch needs.")
        feature_of = self._features_of(spec)
        for leaf, name in feature_of.items():
            if name not in spec:
                key = f"leaves.{leaf}" if isinstance(self.leaves, Mapping) else "leaves"
                text = f"{self.name} has no numbers of one fixed shape in {name!r}"
                raise ConfigError(text, key=key, hint=hint(name, spec))
            self._require_decoder(name, features[name])
        classes = [features[feature_of[leaf]] for leaf in ("label", *feature_of) if leaf in feature_of]
        names = next((tuple(each.names) for each in classes if getattr(each, "num_classes", None)), ())
        return {leaf: spec[name] for leaf, name in feature_of.items()}, names, left_out

    def _features_of(self, known: Iterable[str]) -> Mapping[str, str]:
        """Leaf name to feature; by default, all known features under their own names."""
        if isinstance(self.leaves, Mapping):
            return self.leaves
        names = known if self.leaves is None else self.leaves
        return {name: name for name in sorted(names)}

    def _refuse_image(self, name: str, feature: Any, spec: Spec) -> None:
        """Refuse to leave out images silently, as nobody wants that."""
        import tensorflow_datasets as tfds

        if isinstance(feature, tfds.features.Image):
            size = " × ".join("any" if length is None else str(length) for length in feature.shape)
            without = f", and leaves=[{','.join(spec)}] goes on without them" if spec else ""
            text = f"the images of feature {name!r} are of varying size ({size}), and a batch needs one size"
            raise SpecError(f"{text}; height and width resize them{without}.")

    def _require_decoder(self, name: str, feature: Any) -> None:
        import tensorflow_datasets as tfds

        is_image = isinstance(feature, tfds.features.Image) and self._file_format in _RANDOM_ACCESS and not self._form
        if is_image and np.dtype(feature.np_dtype) == np.uint16 and importlib.util.find_spec("cv2") is None:
            text = f"the images of {name!r} have 16 bits a pixel, which TFDS reads with OpenCV, and it is not installed"
            raise InstallationError(f"{text}: pip install opencv-python-headless.")

    @cached_property
    def _reader(self) -> TfdsReader:
        _require_tfds()
        self._check_features()
        with self._damage(self._directory):
            return TfdsReader(str(self._directory), self._file_format, self._form)

    def _check_features(self) -> None:
        """Check that a dataset names only features that are known: TFDS would import any module that it names."""
        import tensorflow_datasets as tfds

        names: list[str] = []

        def note(part: dict[str, Any]) -> dict[str, Any]:
            names.extend(str(part[key]) for key in ("pythonClassName", "python_class_name") if key in part)
            return part

        described, path = self._json("features.json", note), self._directory / "features.json"
        known = {f"{each.__module__}.{each.__name__}" for each in _subclasses(tfds.features.FeatureConnector)}
        if not isinstance(described, Mapping) or "pythonClassName" not in described:
            raise self._damaged(path, KeyError("pythonClassName"))
        for name in names:
            if name not in known:
                text = f"{path} describes its records with {name!r}, which is no feature of TFDS"
                mend = "no module is imported because a dataset names it"
                raise DataError(f"{text}; {mend}. If it is your own, name its module in plugins=.")

    @property
    def _file_format(self) -> str:
        formats: list[str] = [self._info.get("fileFormat", "tfrecord"), *self._info.get("alternativeFileFormats", [])]
        return next((each for each in formats if each in _RANDOM_ACCESS), formats[0])

    def _require_reader(self) -> None:
        if self._file_format not in _RANDOM_ACCESS and importlib.util.find_spec("tensorflow") is None:
            text = f"{self._directory} is stored as {self._file_format}, which TensorFlow alone reads"
            raise DataError(f"{text}, and it is not installed: {install_hint('prepare')}.")

    def _decode(self, progress: Callable[[int, int], None] | None = None) -> tuple[Arrays, dict[str, Any]]:
        spec, class_names, left_out = self._described
        arrays = {leaf: np.empty((self.num_records, *of.shape), of.dtype) for leaf, of in spec.items()}
        # Records are named by features, and leaves may have other names.
        features = {name: arrays[leaf] for leaf, name in self._features_of(spec).items()}
        self._require_reader()
        read = decode if self._file_format in _RANDOM_ACCESS else decode_in_order
        bar = progress_bar(f"Reading {self.name} {self.split}", self.num_records if progress is None else 0)
        with without_advice(), bar as advance:
            done = 0
            for count in read(self._reader, self._parts, features, self._blamed):
                advance(count)
                done += count
                if progress is not None:
                    progress(done, self.num_records)
        arrays = {leaf: features[name] for leaf, name in self._features_of(spec).items()}
        statistics = to_json({leaf: LeafStatistics.of(values) for leaf, values in arrays.items()})
        return arrays, {"class_names": list(class_names), "left_out": list(left_out), "statistics": statistics}

    def _blamed(self, part: FilePart) -> contextlib.AbstractContextManager[None]:
        """Blame errors in reading a part on its file."""
        return self._damage(Path(self._reader.builder.info.splits[part.split].filepaths[part.shard]))

    @contextlib.contextmanager
    def _damage(self, path: Path) -> Iterator[None]:
        """Turn errors in reading `path` into errors of one line that blame the data, the installation, or both."""
        try:
            yield
        except ImportError as error:
            text = f"reading {path} needs what is not installed, or does not work: {_line(error)}."
            raise InstallationError(text) from error
        except (TypeError, AttributeError, AssertionError) as error:
            if _is_ours(error):
                raise
            text = f"TFDS fails to read {path} ({type(error).__name__}: {_line(error)}), which may be its installation"
            text += " as well as the data; pip check finds packages that do not fit together."
            raise InstallationError(text) from error
        except _faults() as error:
            if _is_ours(error):
                raise
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: BaseException) -> DataError:
        what = f"is damaged: {_line(error)}" if path.exists() else "is missing"
        return DataError(f"{path} {what}. To have it prepared again, delete {self._directory}.")


def _line(error: BaseException) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")


def _is_ours(error: BaseException) -> bool:
    """Whether datamix's own code has raised an error by mistake, which says nothing about the data."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] == __name__.partition(".")[0] and not isinstance(error, DamageError)


def _fixed_spec(feature: Any) -> LeafSpec | None:
    """The shape and dtype of a feature of TFDS; None if it is not numbers of one fixed shape."""
    tensor = feature.get_tensor_info()  # a dict where the feature is nested
    fixed = not isinstance(tensor, dict) and not tensor.dataset_lvl and None not in (tensor.shape or [])
    if fixed and np.dtype(tensor.np_dtype).kind in "biufc":
        return LeafSpec(tuple(tensor.shape), str(np.dtype(tensor.np_dtype)))
    return None


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def _require_tfds() -> None:
    """Import what reading a dataset needs, before any data is read."""
    for module in ("tensorflow_datasets", "tensorflow_datasets.core.features", "tensorflow_datasets.core.dataset_info"):
        try:
            importlib.import_module(module)
        except Exception as error:  # an import runs a library's code; mismatched packages may raise anything
            text = f"{module} cannot be imported ({type(error).__name__}: {_line(error)})"
            raise InstallationError(f"{text}; pip check finds packages that do not fit together.") from error


def _registered_in(name: Name, data_dir: Path) -> str:
    """The module that registers a dataset with TFDS; ConfigError if there is no such dataset or config."""
    _require_tfds()
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    prepared = prepared_names(name.dataset, data_dir)
    if name.dataset not in known:
        if prepared:
            text = f"it is not prepared in {data_dir}, and TFDS cannot download {name.dataset}"
            raise ConfigError(text, key="name", value=str(name), hint=hint(str(name), prepared))
        near = hint(name.dataset, known).partition("Known:")[0]
        mend = f"{near}All names: https://www.tensorflow.org/datasets/catalog."
        raise ConfigError("TFDS knows no such dataset, and none is prepared", key="name", value=name.dataset, hint=mend)
    builder = tfds.builder_cls(name.dataset)
    configs = builder.builder_configs
    if name.config and name.config not in configs:
        mend = hint(name.config, configs) + (f" Prepared: {', '.join(prepared)}." if prepared else "")
        raise ConfigError("no such config", key="name", value=f"{name.dataset}/{name.config}", hint=mend)
    return str(builder.__module__)


def _faults() -> tuple[type[BaseException], ...]:
    """The errors that reading damaged data raises; those of protobuf exist only once it is loaded."""
    protobuf = [sys.modules.get(f"google.protobuf.{module}") for module in ("message", "json_format")]
    faults = (OSError, RuntimeError, ValueError, KeyError, IndexError, SyntaxError, EOFError)
    return (*faults, *(module.Error for module in protobuf if module))
