"""Records in `.npz` and `.npy` files, or in memory."""

from __future__ import annotations

import contextlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from datamix.errors import ConfigError, DataError, expanded, hint, unreadable
from datamix.sources.base import TakeFromRead
from datamix.sources.sliced import Sliced, sliced
from datamix.spec import Arrays, LeafSpec, Spec, spec_of

_Header = tuple[tuple[int, ...], np.dtype]
_Place = tuple[Path, str | None]

# What NumPy and zipfile raise on a damaged file; RuntimeError on one that is encrypted or compressed in an unknown way.
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
# The split in the name of an array, the splits that may take its place, and the leaves that Keras's names mean.
_TRAIN = re.compile(r"(?<![A-Za-z])train(?![A-Za-z])")
_OTHER_SPLITS = ("test", "val", "valid", "validation", "dev", "eval")
_LEAVES = {"x": "image", "images": "image", "y": "label", "labels": "label"}


def arrays(
    *,
    path: str | None = None,
    files: Mapping[str, str] | None = None,
    leaves: Mapping[str, str] | None = None,
    split: str = "train",
) -> Sliced:
    """Arrays in files, all of the same length along their first axis.

    All records are the split `train`, unless the names of the arrays contain splits: with `leaves: {image: x_train}`, a
    file that also has `x_test` has a split `test`, which is read from there.

    Args:
      path: An `.npz` file.
      files: Instead of `path`, an `.npy` file for each leaf.
      leaves: Leaf name to the name of an array in the `.npz` file. By default, all its arrays under their own names; if
        all are named after splits, as `x_train`, `y_train`, `x_test` and `y_test` are, `image` (`features` if its
        records are vectors) and `label`.
      split: The records to read, in TFDS's syntax.
    """
    if (path is None) == (files is None):
        raise ConfigError("an arrays source takes either path, an .npz file, or files, an .npy file for each leaf.")
    if path is None:
        if leaves is not None:
            raise ConfigError("leaves chooses among the arrays of an .npz file; files names its leaves itself.")
        where = {leaf: (expanded(file), None) for leaf, file in (files or {}).items()}
        return sliced(_array_files("files", where), split)
    archive = expanded(path)
    with _explained(archive, ".npz"), zipfile.ZipFile(archive) as content:
        names = [entry.removesuffix(".npy") for entry in content.namelist() if entry.endswith(".npy")]
    if class_names := _class_names(archive, names, leaves):
        names.remove("class_names")
    keras = None if leaves is not None else _keras_leaves(archive, names)
    chosen = leaves if leaves is not None else keras or {name: name for name in names}
    for leaf, name in chosen.items():
        if name not in names:
            mend = hint(name, names)
            if not mend.startswith("Did"):
                mend += f" '~source.NAME.leaves.{leaf}' takes a leaf out of the list."
            raise ConfigError(f"{path} holds no array {name!r}", key=f"leaves.{leaf}", hint=mend)
    splits = {
        name: _array_files(path, {leaf: (archive, array) for leaf, array in each.items()})
        for name, each in _by_split(chosen, names).items()
    }
    sizes = {name: each.num_records for name, each in splits.items()}
    used = {part.partition("[")[0].strip() for part in split.split("+")}
    if len(used) == 1 and used <= sizes.keys():  # one split alone needs no copy
        sizes = {name: size for name, size in sizes.items() if name in used}
    source = splits[next(iter(sizes))] if len(sizes) == 1 else _joined(list(splits.values()))
    label = source.spec.get("label")
    read = ", ".join(f"{name} as {leaf}" for leaf, name in chosen.items())
    alike = [each for each in splits.values() if label and each.spec["label"].shape == label.shape]
    notes = (f"{archive.name}: {read}; its splits are {', '.join(splits)}.",) if keras else ()
    labels = [each.where["label"][0] for each in alike]
    return sliced(replace(source, class_names=class_names, labels=labels, notes=notes), split, sizes)


def _class_names(archive: Path, names: Sequence[str], leaves: Mapping[str, str] | None) -> tuple[str, ...]:
    if "class_names" not in names or "class_names" in (leaves or {}).values():
        return ()
    with contextlib.suppress(DataError):  # Python objects: as a leaf, they are refused later
        text = load_array(archive, "class_names")
        return tuple(text.tolist()) if text.ndim == 1 and text.dtype.kind == "U" else ()
    return ()


def _keras_leaves(archive: Path, names: Sequence[str]) -> dict[str, str] | None:
    """The array of each leaf in the split `train`; None if some arrays are not named after splits."""
    leaves = {}
    for name in [name for name in names if _TRAIN.search(name)]:
        leaf = _TRAIN.sub("", name).strip("_")
        is_vector = leaf == "x" and len(_header_of(archive, name)[0]) < 3
        leaves["features" if is_vector else _LEAVES.get(leaf, leaf)] = name
    splits = _by_split(leaves, names)
    return leaves if len(splits) > 1 and len(splits) * len(leaves) == len(names) else None


def _by_split(leaves: Mapping[str, str], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The array of each leaf, by split: `train`, and the splits in which every array of `train` has a counterpart."""
    splits = {"train": dict(leaves)}
    if leaves and all(_TRAIN.search(name) for name in leaves.values()):
        for split in _OTHER_SPLITS:
            counterparts = {leaf: _TRAIN.sub(split, name) for leaf, name in leaves.items()}
            if all(name in names for name in counterparts.values()):
                splits[split] = counterparts
    return splits


def _joined(parts: Sequence[ArrayFiles]) -> ArrayFiles:
    """The records of several splits, one after the other."""
    first = parts[0].spec
    for part in parts:
        for leaf, spec in first.items():
            if part.spec[leaf] != spec:
                text = f"splits that are read together are alike, and here {leaf} is {spec} and {part.spec[leaf]}."
                raise DataError(text)
    where = {leaf: [place for part in parts for place in part.where[leaf]] for leaf in first}
    return replace(parts[0], where=where, num_records=sum(part.num_records for part in parts))


def _array_files(what: str, where: Mapping[str, _Place]) -> ArrayFiles:
    """The records of arrays in files, given the place of each leaf."""
    headers = {leaf: _header_of(*place) for leaf, place in where.items()}
    length = _common_length({leaf: shape for leaf, (shape, _) in headers.items()}, f"{what}: ")
    spec = {leaf: LeafSpec(tuple(shape[1:]), str(dtype)) for leaf, (shape, dtype) in headers.items()}
    return ArrayFiles({leaf: [place] for leaf, place in where.items()}, length, spec)


def _common_length(shapes: Mapping[str, tuple[int, ...]], what: str = "") -> int:
    """The length of arrays along their first axis."""
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) != 1 or () in lengths:
        listed = ", ".join(f"{leaf} {list(shape)}" for leaf, shape in shapes.items()) or "none"
        raise DataError(f"{what}the arrays need the same length along their first axis; found {listed}.")
    return lengths.pop()[0]


@dataclass(frozen=True)
class ArrayFiles(TakeFromRead):
    """The records of array files.

    Attributes:
      where: The file of each leaf, and the name of its array in an `.npz` file; several if the array is in pieces.
      labels: Where the labels of the whole dataset lie, if this is only a part of it.
    """

    where: Mapping[str, Sequence[_Place]]
    num_records: int
    spec: Spec
    class_names: tuple[str, ...] = ()
    provenance: str = "arrays"
    labels: Sequence[_Place] = ()
    notes: tuple[str, ...] = ()

    def read(self) -> Arrays:
        return {leaf: _load_all(places) for leaf, places in self.where.items()}

    def whole_labels(self) -> np.ndarray:
        return _load_all(self.labels or self.where["label"])

    def places(self, indices: np.ndarray) -> list[str]:
        files = next(iter(self.where.values()))
        joined = f" of {' and '.join(str(name) for _, name in files)} together" if len(files) > 1 else ""
        return [f"{files[0][0]}, row {index}{joined}" for index in indices.tolist()]


def _load_all(places: Sequence[_Place]) -> np.ndarray:
    parts = [load_array(*place) for place in places]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def load_array(path: Path, name: str | None = None) -> np.ndarray:
    """Load the array of an `.npy` file, memory-mapped, or one array of an `.npz` file.

    Raises:
      DataError: The file is missing or damaged, or the array holds Python objects.
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
    """Records in memory: leaf name to array, shape [num_records, *leaf shape]."""

    arrays: Arrays
    provenance: str = "arrays"
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _common_length({leaf: values.shape for leaf, values in self.arrays.items()})

    @property
    def num_records(self) -> int:
        return len(next(iter(self.arrays.values())))

    @cached_property
    def spec(self) -> Spec:
        return spec_of(self.arrays)

    def read(self) -> Arrays:
        return self.arrays


def _header_of(path: Path, name: str | None) -> _Header:
    with contextlib.ExitStack() as stack:
        if name is None:
            stack.enter_context(_explained(path, ".npy"))
            header = _header(stack.enter_context(path.open("rb")))
        else:
            stack.enter_context(_explained(path, ".npz"))
            header = _header(stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(f"{name}.npy")))
    if header[1].hasobject:
        array, mend = ("", "save numbers") if name is None else (f": array {name!r}", "choose others with leaves")
        raise DataError(f"{path}{array} holds Python objects, which are never unpickled; {mend}.")
    return header


def _header(file: IO[bytes]) -> _Header:
    version = npy.read_magic(file)
    try:
        shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    except TypeError as error:  # a damaged header may have keys that NumPy cannot sort
        raise ValueError(f"its header cannot be read ({error})") from error
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its header says that its shape is {shape}")
    return shape, dtype


@contextlib.contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Raise a DataError that explains what is wrong with a file that is missing or damaged."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise DataError(f"{path} is no file.")
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file (looked for it at {path.absolute()}).") from None
    except PermissionError as error:
        raise unreadable(str(path), error) from error
    except _DAMAGE as error:
        raise DataError(f"{path} is no {kind} file, or a damaged one: {error}.") from error
