"""Records in `.npz` and `.npy` files, or in memory."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from datamix.errors import ConfigError, DataError, hint
from datamix.sources.base import Arrays, LeafSpec, Spec, spec_of
from datamix.sources.splits import resolve_split


def arrays(
    *,
    path: str | None = None,
    files: Mapping[str, str] | None = None,
    leaves: Mapping[str, str] | None = None,
    split: str = "train",
) -> ArrayFiles:
    """Arrays in files, all of the same length along their first axis.

    Args:
      path: an `.npz` file.
      files: instead, an `.npy` file for each leaf.
      leaves: leaf name to the name of the array in the `.npz` file; all its arrays, under their names, if not given.
      split: TFDS's syntax; the one split is called `train`.

    Raises:
      ConfigError: not exactly one of `path` and `files`, or a leaf that the file does not hold.
      DataError: a file is missing or damaged, or the arrays differ in length.
    """
    if (path is None) == (files is None):
        raise ConfigError("an arrays source takes either path, an .npz file, or files, an .npy file for each leaf.")
    if path is not None:
        held = _headers(Path(path))
        chosen = dict(leaves) if leaves is not None else {name: name for name in held}
        for leaf, name in chosen.items():
            if name not in held:
                raise ConfigError(f"leaves.{leaf}: {path} holds no array {name!r}. {hint(name, held)}")
        where = {leaf: (Path(path), name) for leaf, name in chosen.items()}
        headers = {leaf: held[name] for leaf, name in chosen.items()}
    else:
        where = {leaf: (Path(file), None) for leaf, file in (files or {}).items()}
        headers = {leaf: _headers(file)[""] for leaf, (file, _) in where.items()}
    lengths = {leaf: header[0][0] for leaf, header in headers.items() if header[0]}
    if not headers or len(lengths) < len(headers) or len(set(lengths.values())) > 1:
        shapes = ", ".join(f"{leaf} {list(shape)}" for leaf, (shape, _) in headers.items())
        raise DataError(f"{path or 'files'}: the arrays need the same length along their first axis; found {shapes}.")
    size = next(iter(lengths.values()))
    ranges = [(start, stop) for _, start, stop in resolve_split(split, {"train": size}, where="split")]
    spec = {leaf: LeafSpec(tuple(shape[1:]), str(dtype)) for leaf, (shape, dtype) in headers.items()}
    return ArrayFiles(where, tuple(ranges), spec)


@dataclass(frozen=True)
class ArrayFiles:
    """Ranges of records in array files."""

    where: Mapping[str, tuple[Path, str | None]]
    ranges: tuple[tuple[int, int], ...]
    spec: Spec
    class_names: tuple[str, ...] = ()
    provenance: str = "arrays"

    @property
    def num_records(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    def read(self) -> Arrays:
        """See `datamix.sources.base.Source`."""
        return {leaf: self._leaf(*place) for leaf, place in self.where.items()}

    def _leaf(self, path: Path, name: str | None) -> np.ndarray:
        try:
            if name is None:
                whole = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                with np.load(path, allow_pickle=False) as archive:
                    whole = archive[name]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}.") from error
        parts = [whole[start:stop] for start, stop in self.ranges]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class MemoryArrays:
    """Records in memory.

    Attributes:
      arrays: leaf name to array, shape [num_records, *leaf shape].
      provenance: where they come from.
      class_names: of the labels.
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
        """See `datamix.sources.base.Source`."""
        return self.arrays


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each array in a file, without reading the arrays; the array of an `.npy` file is called ""."""
    try:
        if path.suffix != ".npz":
            with path.open("rb") as file:
                return {"": _header(file)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    found[re.sub(r"\.npy$", "", entry)] = _header(file)
            return found
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file (looked for it at {path.absolute()}).") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no array file, or a damaged one: {error}.") from error


def _header(file: object) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(file)
    shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    return shape, dtype
