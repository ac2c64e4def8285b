"""Samples in tar files, in WebDataset's layout: indexed once, then read in any order."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError, counted, read_error
from datamix.sources.base import read_leaf
from datamix.sources.cache import CachePlace, cache_directory, stamp
from datamix.sources.decoding import decode_images
from datamix.sources.files import Paths, files_of, notes_on
from datamix.sources.images import SUFFIXES, Fit, ImageFormat, Mode, image_format
from datamix.sources.long_work import progress_bar
from datamix.sources.sliced import Sliced, sliced
from datamix.sources.splits import sizes_of
from datamix.spec import Arrays, LeafSpec, Spec

_INDEX_FORMAT = 1  # the version of the index in the cache
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_IMAGES = [suffix[1:] for suffix in SUFFIXES]
_DEFAULT = {"image": ";".join(_IMAGES), "label": "cls", "array": "npy"}
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's rule: a key ends at the first dot of the file name
_BLOCK = 512  # bytes; a tar file consists of blocks, and an empty one ends it


def webdataset(
    *,
    path: Paths,
    leaves: Mapping[str, str | None] | None = None,
    height: int | None = None,
    width: int | None = None,
    mode: Mode = "L",
    fit: Fit = "resize",
    background: str = "white",
    split: str = "train",
    cache_dir: str | None = None,
) -> Sliced:
    """Samples in tar files: the members `KEY.SUFFIX` with the same KEY, which ends at the first dot of a file's name.

    `datamix.sources.images.ImageFormat` describes the settings of images.

    Args:
      path: A tar file, a folder, a glob or a list of them; or a mapping from splits to these, see `files_of`.
      leaves: Leaf name to suffix: that of an image; `cls`, a class number in digits; `npy`, an array; or a longer one,
        such as `mask.png`. Of several suffixes, separated by `;`, each sample has one; None leaves the leaf out. By
        default, `image` is any image, `label` is `cls` and `array` is `npy`, as far as samples have them.
      split: The records to read, in TFDS's syntax.
      cache_dir: The directory of the cache, which stores the index.
    """
    splits = files_of(path, suffixes=[".tar", *_PACKED])
    files = [file.absolute() for of_split in splits.values() for file in of_split]
    if packed := [file.name for file in files if file.name.lower().endswith(_PACKED)]:
        text = f"{packed[0]} is packed, so that no sample can be read without all before it"
        raise ConfigError(text, key="path", value=path, hint="Unpack it to a .tar file, and name that.")
    kinds: dict[str, str] = {}
    leaf_of: dict[str, str] = {}
    chosen = {leaf: text for leaf, text in (_DEFAULT if leaves is None else leaves).items() if text is not None}
    for leaf, suffixes in chosen.items():
        for suffix in str(suffixes).lower().split(";"):
            last = suffix.rpartition(".")[2]
            kind = "image" if last in _IMAGES else last
            if kind not in ("image", "cls", "npy") or kinds.setdefault(leaf, kind) != kind:
                text = f"a leaf is made of images ({', '.join(_IMAGES)}), of cls or of npy"
                raise ConfigError(text, key=f"leaves.{leaf}", value=suffixes)
            if leaf_of.setdefault(suffix, leaf) != leaf:
                raise ConfigError(f"{suffix} is the leaf {leaf_of[suffix]}", key=f"leaves.{leaf}", value=suffixes)
    stamps = [stamp(file.stat()) for file in files]
    entry = CachePlace(
        cache_dir=cache_directory(cache_dir),
        name=f"{files[0].name}-index",
        key={"files": [str(file) for file in files], "leaves": leaf_of, "format": _INDEX_FORMAT},
        fingerprint={"stamps": stamps},
    ).load(partial(_index, files, stamps, leaf_of, list(kinds)))
    counts = entry.arrays["count"]
    whole = WebDataset(
        files=files,
        stamps=stamps,
        ends=np.cumsum(counts),
        keys=entry.arrays["key"],
        members={leaf: entry.arrays[f"leaf {leaf}"] for leaf in kinds},
        kinds=kinds,
    )
    if leaves is None:
        kinds = {leaf: kind for leaf, kind in kinds.items() if (whole.members[leaf][:, 1] >= 0).any()}
    for leaf in kinds:
        if len(lacking := np.flatnonzero(whole.members[leaf][:, 1] < 0)):
            have = f"{counted(len(lacking), 'sample')} {'has' if len(lacking) == 1 else 'have'}"
            text = f"{have} no {leaf}, the first one {whole.places(lacking[:1])[0]}"
            others = ", ".join(f"{other}: {chosen[other]}" for other in kinds if other != leaf)
            choice = f"leaves={{{others}}}" if leaves is None else f"leaves.{leaf}=null"
            mend = "Delete such samples" + (f", or leave the leaf out by {choice}." if others else ".")
            raise DataError(text, key="path", value=path, hint=mend)
    forms: dict[str, str | ImageFormat] = dict(kinds)
    for image in (leaf for leaf, kind in kinds.items() if kind == "image"):
        first = (io.BytesIO(whole.content(image, record)) for record in range(min(whole.num_records, 20)))
        forms[image] = image_format(first, height=height, width=width, mode=mode, fit=fit, background=background)
    left_out = Counter[str](entry.info["left_out"])
    note = f"{left_out.total():,} members are left out: {_counted(left_out)}; leaves={{LEAF: SUFFIX}} chooses."
    notes = (*notes_on(path, splits), *([note] if left_out else []))
    return sliced(replace(whole, kinds=forms, notes=notes), split, sizes_of(splits, counts.tolist()))


@dataclass(frozen=True, kw_only=True)
class WebDataset:
    """The records of tar files.

    Attributes:
      stamps: The `stamp` of each file, which changes if the file is written again.
      ends: The number of records up to the end of each file, over all splits, int64 [num_files].
      keys: The key of each record, in bytes.
      members: Leaf name to int64, shape [num_records, 2]: the offset of each member in its file and its size, in bytes,
        or -1 if there is none; for "cls", the number of the class and 0.
      kinds: Leaf name to what it is made of: an image of this format, "cls" or "npy".
    """

    files: Sequence[Path]
    stamps: Sequence[list[int]]
    ends: np.ndarray
    keys: np.ndarray
    members: Arrays
    kinds: Mapping[str, str | ImageFormat]
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    provenance: str = "webdataset"

    @property
    def num_records(self) -> int:
        return len(self.keys)

    @property
    def block_records(self) -> int | None:
        """The number of samples in a tar file, if it is the same in all but the last."""
        counts = np.diff(self.ends, prepend=0)
        return int(counts[0]) if (counts[:-1] == counts[0]).all() else None

    @cached_property
    def spec(self) -> Spec:
        spec = {}
        for leaf, kind in self.kinds.items():
            array = self._array(leaf, 0) if kind == "npy" else np.empty((), np.int64)
            spec[leaf] = kind.spec if isinstance(kind, ImageFormat) else LeafSpec(array.shape, str(array.dtype))
        return spec

    def whole_labels(self) -> np.ndarray:
        return read_leaf(self, "label")

    def places(self, indices: np.ndarray) -> list[str]:
        return [self._place(record) for record in indices.tolist()]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        for leaf, rows in out.items():
            if isinstance(kind := self.kinds[leaf], ImageFormat):
                self._decode(leaf, kind, indices.tolist(), rows)
            elif kind == "cls":
                rows[...] = self.members[leaf][indices, 0]
            else:
                for row, record in enumerate(indices.tolist()):
                    rows[row] = self._checked(leaf, record)

    def content(self, leaf: str, record: int) -> bytes:
        """The content of a record's member, with records counted over all splits; DataError if the file has changed."""
        with read_error(self._place(record)):
            return self._content(leaf, record)

    def _content(self, leaf: str, record: int) -> bytes:
        number = self._number(record)
        offset, size = self.members[leaf][record].tolist()
        with self.files[number].open("rb", buffering=0) as file:
            if stamp(os.fstat(file.fileno())) != self.stamps[number]:
                raise DataError("the tar file has changed since it was indexed; start again")
            return os.pread(file.fileno(), size, offset)

    def _decode(self, leaf: str, form: ImageFormat, records: Sequence[int], rows: np.ndarray) -> None:
        content, place = partial(self._content, leaf), self._place
        decode_images(form, lambda row: content(records[row]), lambda row: place(records[row]), rows)

    def _checked(self, leaf: str, record: int) -> np.ndarray:
        """An array, checked against the spec."""
        array, spec = self._array(leaf, record), self.spec[leaf]
        if LeafSpec(array.shape, str(array.dtype)) != spec:
            text = f"{leaf} is {array.dtype} {list(array.shape)}, but {spec} in the first sample"
            raise DataError(f"{self._place(record)}: {text}")
        return array

    def _array(self, leaf: str, record: int) -> np.ndarray:
        try:
            array: np.ndarray = np.load(io.BytesIO(self.content(leaf, record)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{self._place(record)}: {leaf} is no array that can be read: {error}") from error
        return array

    def _place(self, record: int) -> str:
        return f"{self.files[self._number(record)]}: {os.fsdecode(self.keys[record])}"

    def _number(self, record: int) -> int:
        return int(np.searchsorted(self.ends, record, side="right"))


def _index(
    files: Sequence[Path], stamps: Sequence[list[int]], leaf_of: Mapping[str, str], leaves: Sequence[str]
) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of `WebDataset`, as the cache stores them, and the number of members left out, by suffix."""
    keys: list[bytes] = []
    counts: list[int] = []
    places = [np.empty((0, len(leaves), 2), np.int64)]
    left_out: Counter[str] = Counter()
    with progress_bar("Indexing", sum(size for size, _, _ in stamps) >> 20, unit="MiB", least=1000) as advance:
        for file, (size, _, _) in zip(files, stamps, strict=True):
            samples = _scan(file, leaf_of, leaves, left_out)
            counts.append(len(samples))
            keys += map(os.fsencode, samples)
            places.append(np.array([*samples.values()], np.int64).reshape(-1, len(leaves), 2))
            advance(size >> 20)
    if not keys:
        kinds = f"KEY.{', KEY.'.join(leaf_of)}"
        raise DataError(f"{files[0]} holds no member {kinds}, but {_counted(left_out) or 'nothing'}")
    members = np.concatenate(places)
    of_leaves = {f"leaf {leaf}": members[:, each] for each, leaf in enumerate(leaves)}
    return {"count": np.array(counts), "key": np.array(keys), **of_leaves}, {"left_out": left_out}


def _scan(
    file: Path, leaf_of: Mapping[str, str], leaves: Sequence[str], left_out: Counter[str]
) -> dict[str, list[int]]:
    """The samples of a tar file, by key: the two numbers of each leaf that `WebDataset.members` holds, in a row."""
    samples: dict[str, list[int]] = {}
    with read_error(str(file)), file.open("rb") as content:
        try:
            archive = tarfile.open(fileobj=content, mode="r:")  # noqa: SIM115  # closing it would close nothing
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if member.size < 0:  # reading on would come back to this member
                    raise tarfile.ReadError("a member has a negative size")
                if member.isdir():
                    continue
                match = _MEMBER.fullmatch(member.name)
                suffix = match[2].lower() if match else ""
                if match is None or suffix not in leaf_of or not member.isreg() or member.issparse():
                    kind = f".{suffix}" if match else "without a suffix"
                    left_out[kind if kind in left_out or len(left_out) < 100 else "others"] += 1
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
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise DataError(f"it is no tar file, or a damaged or truncated one: {error}") from error
    return samples


def _counted(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {suffix}" for suffix, count in left_out.most_common(5))


def _class_number(text: bytes, name: str) -> int:
    if not (digits := text.strip()).isdigit() or len(digits) > 18:
        raise DataError(f"{name} holds {text.decode(errors='replace')!r}; a class is a number in digits")
    return int(digits)
