"""Records in `.npz` and `.npy` files, or in memory."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from datamix.errors import ConfigError, DataError, expanded, hint
from datamix.sources.base import TakeFromRead, take_rows
from datamix.sources.sliced import Sliced, sliced
from datamix.spec import Arrays, LeafSpec, Spec, spec_of

_Header = tuple[tuple[int, ...], np.dtype]

# What NumPy and zipfile raise on a damaged file; RuntimeError on one that is encrypted or packed in an unknown way.
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


def arrays(
    *,
    path: str | None = None,
    files: Mapping[str, str] | None = None,
    leaves: Mapping[str, str] | None = None,
    split: str = "train",
) -> Sliced:
    """Arrays in files, all of the same length along their first axis.

    Args:
      path: An `.npz` file.
      files: Instead, an `.npy` file for each leaf.
      leaves: Leaf name to the name of the array in the `.npz` file; all its arrays, under their names, by default.
      split: TFDS's syntax; the one split is called `train`.

    Raises:
      ConfigError: Not exactly one of `path` and `files` is set, `leaves` stands without `path`, or the file has no such
        leaf.
      DataError: A file is missing or damaged, or the arrays hold Python objects or differ in length.
    """
    if (path is None) == (files is None):
        raise ConfigError("an arrays source takes either path, an .npz file, or files, an .npy file for each leaf.")
    where: dict[str, tuple[Path, str | None]] = {}
    headers: dict[str, _Header] = {}
    if path is not None:
        archive = expanded(path)
        names = _names(archive)
        chosen = dict(leaves) if leaves is not None else {name: name for name in names}
        for leaf, name in chosen.items():
            if name not in names:
                raise ConfigError(f"leaves.{leaf}: {path} holds no array {name!r}. {hint(name, names)}")
            where[leaf] = (archive, name)
        of_name = _npz_headers(archive, chosen.values())
        headers = {leaf: of_name[name] for leaf, name in chosen.items()}
    elif leaves is not None:
        raise ConfigError("leaves chooses among the arrays of an .npz file; files names its leaves itself.")
    else:
        for leaf, file in (files or {}).items():
            where[leaf] = (expanded(file), None)
            headers[leaf] = _npy_header(where[leaf][0])
    lengths = {leaf: header[0][0] for leaf, header in headers.items() if header[0]}
    if not headers or len(lengths) < len(headers) or len(set(lengths.values())) > 1:
        shapes = ", ".join(f"{leaf} {list(shape)}" for leaf, (shape, _) in headers.items()) or "none"
        raise DataError(f"{path or 'files'}: the arrays need the same length along their first axis; found {shapes}.")
    size = next(iter(lengths.values()))
    spec = {leaf: LeafSpec(tuple(shape[1:]), str(dtype)) for leaf, (shape, dtype) in headers.items()}
    return sliced(ArrayFiles(where, size, spec), split)


@dataclass(frozen=True)
class ArrayFiles:
    """The records of array files.

    Attributes:
      where: The file of each leaf, and the name of its array in an `.npz` file.
      num_records: The number of records.
      spec: The shape and dtype of each leaf.
      class_names: The name of each label.
      provenance: Where the records come from.
    """

    where: Mapping[str, tuple[Path, str | None]]
    num_records: int
    spec: Spec
    class_names: tuple[str, ...] = ()
    provenance: str = "arrays"

    def read(self) -> Arrays:
        """See `datamix.sources.base.ReadableSource`."""
        return {leaf: _load(*place) for leaf, place in self.where.items()}

    def whole_labels(self) -> np.ndarray:
        """See `datamix.sources.base.LabelledSource`."""
        return _load(*self.where["label"])

    def places(self, indices: np.ndarray) -> list[str]:
        """The file of each record, of the first leaf where each has its own, and its row in it."""
        path = next(iter(self.where.values()))[0]
        return [f"{path}, row {index}" for index in indices.tolist()]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        take_rows(self._arrays, indices, out)

    @cached_property
    def _arrays(self) -> Arrays:
        """The arrays, memory-mapped where the file allows it."""
        return self.read()


def _load(path: Path, name: str | None) -> np.ndarray:
    """The array of an `.npy` file, memory-mapped, or one of an `.npz` file.

    Raises:
      DataError: The file is damaged.
    """
    try:
        if name is None:
            whole: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as archive:
                whole = archive[name]
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    return whole


@dataclass(frozen=True)
class MemoryArrays(TakeFromRead):
    """Records in memory.

    Attributes:
      arrays: Leaf name to array, shape [num_records, *leaf shape].
      provenance: Where the records come from.
      class_names: The name of each label.
    """

    arrays: Arrays
    provenance: str = "arrays"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(leaf) if leaf.ndim else -1 for leaf in self.arrays.values()}
        if len(lengths) != 1 or -1 in lengths:
            shapes = ", ".join(f"{name} {list(leaf.shape)}" for name, leaf in self.arrays.items())
            raise DataError(f"the arrays need the same length along their first axis; found {shapes or 'none'}.")

    @property
    def num_records(self) -> int:
        return len(next(iter(self.arrays.values())))

    @cached_property
    def spec(self) -> Spec:
        return spec_of(self.arrays)

    def read(self) -> Arrays:
        """See `datamix.sources.base.ReadableSource`."""
        return self.arrays


def _names(path: Path) -> list[str]:
    """Names of the arrays in an `.npz` file."""
    with _explained(path, ".npz"), zipfile.ZipFile(path) as archive:
        return [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]


def _npz_headers(path: Path, names: Iterable[str]) -> dict[str, _Header]:
    """Shape and dtype of arrays in an `.npz` file, without reading the arrays."""
    headers = {}
    for name in names:
        with _explained(path, ".npz"), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            headers[name] = _header(file)
        if headers[name][1].hasobject:
            raise DataError(
                f"{path}: array {name!r} holds Python objects, which are never unpickled; choose others with leaves."
            )
    return headers


def _npy_header(path: Path) -> _Header:
    """Shape and dtype of the array in an `.npy` file, without reading the array."""
    with _explained(path, ".npy"), path.open("rb") as file:
        header = _header(file)
    if header[1].hasobject:
        raise DataError(f"{path} holds Python objects, which are never unpickled; save numbers.")
    return header


def _header(file: IO[bytes]) -> _Header:
    version = npy.read_magic(file)
    try:
        shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    except TypeError as error:  # a damaged header may have keys that NumPy cannot sort
        raise ValueError(f"its header cannot be read ({error})") from error
    return shape, dtype


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Say of a file that is missing or damaged that it is."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise DataError(f"{path} is no file.")
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file (looked for it at {path.absolute()}).") from None
    except _DAMAGE as error:
        raise DataError(f"{path} is no {kind} file, or a damaged one: {error}.") from error
