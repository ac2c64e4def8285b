"""Samples in tar files, as WebDataset keeps them: indexed once, then read in any order."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError
from datamix.sources.cache import Place, cache_directory
from datamix.sources.files import Paths, files_of, notes_on
from datamix.sources.images import SUFFIXES, Fit, ImageFormat, Mode, image_sizes, read_error, spread
from datamix.sources.splits import split_records
from datamix.sources.tfds.decode import progress
from datamix.spec import Arrays, LeafSpec, Spec

_INDEX_FORMAT = 1  # of what the cache keeps
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_IMAGES = [suffix[1:] for suffix in SUFFIXES]
_DEFAULT = {"image": ";".join(_IMAGES), "label": "cls", "array": "npy"}
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's rule: a key reaches to the first dot of the file name
_BLOCK = 512  # bytes; a tar file consists of blocks, and an empty one ends it


def webdataset(
    *,
    path: Paths,
    leaves: Mapping[str, str] | None = None,
    height: int | None = None,
    width: int | None = None,
    mode: Mode = "L",
    fit: Fit = "resize",
    background: str = "white",
    split: str = "train",
    cache_dir: str | None = None,
) -> WebDataset:
    """Samples in tar files: the members `KEY.SUFFIX` of one KEY, which reaches to the first dot of a file's name.

    Args:
      path: A tar file, a folder, a glob or a list of them; or these by split, see `files_of`.
      leaves: Leaf name to suffix: of images; `cls`, the number of a class in digits; `npy`, an array; or such as
        `mask.png`. Of several suffixes, apart by `;`, a sample has one. By default `image` is any image, `label` is
        `cls` and `array` is `npy`, as far as samples have them.
      height: Of images; see `ImageFormat`.
      width: See `ImageFormat`, as for the three below.
      mode: See `ImageFormat`.
      fit: See `ImageFormat`.
      background: See `ImageFormat`.
      split: TFDS's syntax.
      cache_dir: The directory of the cache, which keeps the index.

    Raises:
      ConfigError: A setting is missing or not allowed, a file is packed, or there is no such split.
      DataError: A file is missing or damaged, or a sample lacks a leaf or has it twice.
    """
    splits = files_of(path, suffixes=[".tar", *_PACKED])
    files = [file for of_split in splits.values() for file in of_split]
    for file in files:
        if file.name.endswith(_PACKED):
            text = f"{file.name} is packed, so that no sample can be read without all before it"
            raise ConfigError(text, key="path", value=path, hint="Unpack it to a .tar file, and name that.")
    kinds: dict[str, str] = {}
    leaf_of: dict[str, str] = {}
    for leaf, suffixes in (_DEFAULT if leaves is None else leaves).items():
        for suffix in suffixes.lower().split(";"):
            last = suffix.rpartition(".")[2]
            kind = "image" if last in _IMAGES else last
            if kind not in ("image", "cls", "npy") or kinds.setdefault(leaf, kind) != kind:
                text = f"a leaf is made of images ({', '.join(_IMAGES)}), of cls or of npy"
                raise ConfigError(text, key=f"leaves.{leaf}", value=suffixes)
            leaf_of[suffix] = leaf
    index, left_out = _indexed(files, leaf_of, list(kinds), cache_directory(cache_dir))
    if leaves is None:
        kinds = {leaf: kind for leaf, kind in kinds.items() if (index.members[leaf][:, 1] >= 0).any()}
    for leaf in kinds:
        if len(lacking := np.flatnonzero(index.members[leaf][:, 1] < 0)):
            other = ",".join(f"{each}: …" for each in kinds if each != leaf)
            mend = f"leaves={{{other}}} goes on without {leaf}." if other else ""
            text = f"{len(lacking):,} samples have no {leaf}, the first one {index.place(lacking[0])}"
            raise DataError(text, key="path", value=path, hint=mend)
    form, spec = None, {}
    for leaf, kind in kinds.items():
        if kind == "image":
            if height is None or width is None:
                first = (io.BytesIO(index.read(leaf, record)) for record in range(min(index.num_records, 20)))
                text = f"the first images are {image_sizes(first)}"
                raise ConfigError(text, key="width" if height else "height", value=None, hint="Set height and width.")
            form = ImageFormat(height=height, width=width, mode=mode, fit=fit, background=background)
            spec[leaf] = form.spec
        else:
            array = np.int64() if kind == "cls" else index.array(leaf, 0)
            spec[leaf] = LeafSpec(array.shape, str(array.dtype))
    first_file, sizes = 0, {}
    for name, of_split in splits.items():
        numbers = np.diff(index.ends, prepend=0)[first_file : first_file + len(of_split)]
        sizes[name], first_file = int(numbers.sum()), first_file + len(of_split)
    notes = list(notes_on(path, splits))
    if left_out:
        what = ", ".join(f"{count:,} {suffix}" for suffix, count in Counter(left_out).most_common(5))
        notes.append(f"{sum(left_out.values()):,} members are left out: {what}; leaves={{LEAF: SUFFIX}} takes others.")
    return WebDataset(
        index=index,
        kinds=kinds,
        form=form,
        records=split_records(split, sizes, where="split"),
        spec=spec,
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class WebDataset:
    """The records of tar files.

    Attributes:
      index: Where the samples of all splits lie.
      kinds: Leaf name to what it is made of: "image", "cls" or "npy".
      form: What images are decoded to.
      records: The records of the split, as `index` numbers them, shape [num_records].
      spec: The shape and dtype of each leaf.
      notes: What is left out.
      class_names: None are known.
      provenance: Where the records come from.
    """

    index: _Index
    kinds: Mapping[str, str]
    form: ImageFormat | None
    records: np.ndarray
    spec: Spec
    notes: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    provenance: str = "webdataset"

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.records)

    @property
    def block_records(self) -> int | None:
        """The number of samples in each tar file but the last, if it is the same."""
        counts = set(np.diff(self.index.ends, prepend=0)[:-1].tolist()) or {self.index.num_records}
        return counts.pop() if len(counts) == 1 else None

    def whole_labels(self) -> np.ndarray:
        """See `datamix.sources.base.LabelledSource`."""
        every = np.arange(self.index.num_records)
        labels = np.empty((len(every), *self.spec["label"].shape), self.spec["label"].dtype)
        replace(self, records=every).take(every, {"label": labels})
        return labels

    def places(self, indices: np.ndarray) -> list[str]:
        """The tar file and the key of some records."""
        return [self.index.place(int(record)) for record in self.records[indices]]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        records = self.records[indices]
        for leaf, rows in out.items():
            if self.kinds[leaf] == "cls":
                rows[...] = self.index.members[leaf][records, 0]
            else:
                spread(len(records), partial(self._fill, leaf, records, rows))

    def _fill(self, leaf: str, records: np.ndarray, rows: np.ndarray, row: int) -> None:
        """Fill one row with an image or an array."""
        record = int(records[row])
        if self.kinds[leaf] == "npy":
            array = self.index.array(leaf, record)
            if (array.shape, array.dtype) != (rows.shape[1:], rows.dtype):
                here, first = LeafSpec(array.shape, str(array.dtype)), self.spec[leaf]
                raise DataError(f"{self.index.place(record)}: {leaf} is {here}, but {first} in the first sample")
            rows[row] = array
        elif self.form is not None:
            with read_error(self.index.place(record)):
                self.form.decode(self.index.read(leaf, record), rows[row])


@dataclass(frozen=True, kw_only=True)
class _Index:
    """Where the samples of tar files lie.

    Attributes:
      files: The tar files.
      stamps: What would change if a file were written again, of each.
      ends: The record after the last of each file, int64.
      keys: The keys of all samples, one behind the other.
      key_ends: Where in `keys` each ends, int64 [num_records].
      members: Leaf name to the place of the member in its file and its size, in bytes; of a class, its number and 0;
        int64 [num_records, 2], -1 where there is none.
    """

    files: Sequence[Path]
    stamps: Sequence[list[int]]
    ends: np.ndarray
    keys: np.ndarray
    key_ends: np.ndarray
    members: Arrays

    @property
    def num_records(self) -> int:
        return len(self.key_ends)

    def shard(self, record: int) -> int:
        """The number of the file that a record lies in."""
        return int(np.searchsorted(self.ends, record, side="right"))

    def place(self, record: int) -> str:
        """The file and the key of a record."""
        begin = self.key_ends[record - 1] if record else 0
        return f"{self.files[self.shard(record)]}: {bytes(self.keys[begin : self.key_ends[record]]).decode()}"

    def read(self, leaf: str, record: int) -> bytes:
        """The content of a member.

        Raises:
          DataError: The file is gone, or not the one that was indexed.
        """
        shard = self.shard(record)
        offset, size = self.members[leaf][record].tolist()
        with read_error(str(self.files[shard])), self.files[shard].open("rb", buffering=0) as file:
            if _stamp(os.fstat(file.fileno())) != self.stamps[shard]:
                raise DataError("it has changed since it was indexed; start again")
            return os.pread(file.fileno(), size, offset)

    def array(self, leaf: str, record: int) -> np.ndarray:
        """The array in a member."""
        with read_error(self.place(record)):
            try:
                array: np.ndarray = np.load(io.BytesIO(self.read(leaf, record)), allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise DataError(f"{leaf} is no array that can be read: {error}") from error
        return array


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _indexed(
    files: Sequence[Path], leaf_of: Mapping[str, str], leaves: Sequence[str], cache_dir: Path
) -> tuple[_Index, Mapping[str, int]]:
    """The index of tar files, from the cache where it is there; and how many members are left out, by suffix.

    Args:
      files: The tar files.
      leaf_of: Suffix to leaf name.
      leaves: The names of all leaves.
      cache_dir: The directory of the cache.
    """
    paths = [file.absolute() for file in files]
    stamps = []
    for file in paths:
        with read_error(str(file)):
            stamps.append(_stamp(file.stat()))
    left_out: Counter[str] = Counter()

    def build() -> tuple[Arrays, dict[str, Any]]:
        keys, counts, members = bytearray(), [], []
        ends: list[int] = []
        with progress("Indexing", sum(size for size, _, _ in stamps) >> 20, unit="MB", least=1000) as advance:
            for file, (size, _, _) in zip(paths, stamps, strict=True):
                samples = _scan(file, leaf_of, leaves, left_out)
                counts.append(len(samples))
                for key, places in samples.items():
                    keys += key.encode()
                    ends.append(len(keys))
                    members.append(places)
                advance(size >> 20)
        if not members:
            raise DataError(f"{paths[0]}: there is no sample with {' or '.join(leaf_of)} in it")
        found = np.array(members, np.int64).reshape(len(members), len(leaves), 2)
        arrays = {"count": np.array(counts), "key": np.frombuffer(keys, np.uint8), "key_end": np.array(ends)}
        return arrays | {f"of {leaf}": found[:, each] for each, leaf in enumerate(leaves)}, {"left_out": left_out}

    entry = Place(
        cache_dir=cache_dir,
        name=f"{paths[0].name}-index",
        key={"files": [str(file) for file in paths], "leaves": dict(leaf_of), "format": _INDEX_FORMAT},
        fingerprint={"stamps": stamps},
    ).load(build)
    index = _Index(
        files=paths,
        stamps=stamps,
        ends=np.cumsum(entry.arrays["count"]),
        keys=entry.arrays["key"],
        key_ends=entry.arrays["key_end"],
        members={leaf: entry.arrays[f"of {leaf}"] for leaf in leaves},
    )
    return index, entry.info["left_out"]


def _scan(
    file: Path, leaf_of: Mapping[str, str], leaves: Sequence[str], left_out: Counter[str]
) -> dict[str, list[int]]:
    """The samples of a tar file, by key: of each leaf, its place and size, see `_Index.members`.

    Raises:
      DataError: It is damaged or truncated, or a sample has a leaf twice.
    """
    samples: dict[str, list[int]] = {}
    with read_error(str(file)), file.open("rb") as content:
        try:
            archive = tarfile.open(fileobj=content, mode="r:")  # noqa: SIM115  # closing it would close nothing
            while (member := archive.next()) is not None:
                archive.members.clear()  # which it would keep
                if member.isdir():
                    continue
                match = _MEMBER.fullmatch(member.name)
                suffix = match[2].lower() if match else "without a suffix"
                if match is None or suffix not in leaf_of or not member.isreg() or member.issparse():
                    left_out[suffix if match is None else f".{suffix}"] += 1
                    continue
                places = samples.setdefault(match[1], [-1] * (2 * len(leaves)))
                at = 2 * leaves.index(leaf_of[suffix])
                if places[at + 1] >= 0:
                    raise DataError(f"{match[1]} has {leaf_of[suffix]} twice; the second one is {member.name}")
                places[at : at + 2] = member.offset_data, member.size
                if suffix.rpartition(".")[2] == "cls":
                    content.seek(member.offset_data)
                    places[at : at + 2] = _class_number(content.read(min(member.size, 100)), member.name), 0
            content.seek(archive.offset)
            if content.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a damaged header for the end
                raise DataError("it is damaged or truncated: no tar file ends so")
        except tarfile.TarError as error:
            raise DataError(f"it is no tar file, or a damaged or truncated one: {error}") from error
    return samples


def _class_number(text: bytes, name: str) -> int:
    """The number of a class.

    Raises:
      DataError: It is no number of digits.
    """
    if not (digits := text.strip()).isdigit() or len(digits) > 18:
        raise DataError(f"{name} holds {text.decode(errors='replace')!r}; a class is a number in digits")
    return int(digits)
