"""Folders of images, one for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from datamix.errors import DataError, expanded, read_error
from datamix.sources.decoding import decode_images
from datamix.sources.files import kind_of, left_out, meant
from datamix.sources.images import SUFFIXES, Fit, ImageFormat, Mode, image_format
from datamix.sources.sliced import Sliced, sliced
from datamix.sources.splits import located
from datamix.spec import Arrays, LeafSpec, Spec

SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")
"""The names of the folders of splits, in upper or lower case."""

_FIRST_BYTES, _PIECE_BYTES = 2**16, 2**20  # of a file, in the first and in later reads
_MOST_RUNS = 1000  # folders in a folder that are looked at for output of runs
_LOOSE = "in no folder of a class"  # the kind of images that belong to no class


def image_folder(
    *,
    path: str,
    height: int | None = None,
    width: int | None = None,
    mode: Mode = "L",
    fit: Fit = "resize",
    background: str = "white",
    split: str = "train",
) -> Sliced:
    """Images in `PATH/class/…`, or in `PATH/split/class/…` if all folders of PATH are named in `SPLITS`.

    The classes are the folders of all splits, sorted by name. Folders inside that of a class belong to it. Hidden files
    and folders are skipped, and so are folders of PATH that hold the output of runs, such as `outputs`.
    `datamix.sources.images.ImageFormat` describes the settings of images.

    Args:
      path: A folder.
      split: The records to read, in TFDS's syntax; without folders of splits, all are the split `train`.
    """
    root = expanded(path)
    with read_error(str(root)):
        is_folder = root.is_dir()
    if not is_folder:
        what = "this is no folder" if root.exists() else f"there is no such folder (looked for it at {root.absolute()})"
        mend = "Copy it to this machine first." if "://" in path else "" if root.exists() else meant(root)
        raise DataError(what, key="path", value=path, hint=mend)
    files, tops = _listed(root)
    runs = [top for top in tops if _holds_runs(root / top)]
    tops = [top for top in tops if top not in runs]
    splits, notes, others = {"train": (root, files, tops)}, [], Counter[str]()
    if runs:
        notes.append(f"{', '.join(runs)} {'is' if len(runs) == 1 else 'are'} no class, with the output of runs inside.")
    if named := {top.lower(): root / top for top in tops if top.lower() in SPLITS}:
        if len(named) == len(tops):
            others.update(map(_kind, files))
            splits = {name: (top, *_listed(top)) for name, top in named.items()}
        else:
            notes.append(f"{', '.join(named)} are read as classes, and not as splits, as other folders lie beside.")
    classes = sorted({name for _, _, names in splits.values() for name in names})
    number = {name: label for label, name in enumerate(classes)}
    folders, labels, sizes = [], [], dict.fromkeys(splits, 0)
    for name, (top, files, tops) in splits.items():
        others.update(map(_kind, files))
        for class_name in tops:
            for folder, files in _walk(top / class_name):
                images = [os.fsencode(file) for file in files if _is_image(file)]
                others.update(_kind(file) for file in files if not _is_image(file))
                if images:
                    folders.append((folder, np.array(images)))
                    labels.append(number[class_name])
                    sizes[name] += len(images)
    if others:
        what = "no image" if others.total() == 1 else "no images"
        notes.append(left_out(others, f"{what} in a folder of a class"))
    if not folders:
        text = f"it holds no image in a folder of a class, such as {path}/cat/1.png"
        above = f"If {root.name} is a class, name the folder that holds it." if _LOOSE in others else " ".join(notes)
        raise DataError(text, key="path", value=path, hint=above)
    if empty := [name for name in classes if number[name] not in {*labels}]:
        notes.append(f"no image lies in the folder of {', '.join(empty)}, which is a class all the same.")
    first = (os.path.join(folder, os.fsdecode(names[0])) for folder, names in folders[:20])  # noqa: PTH118
    whole = ImageFolder(
        form=image_format(first, height=height, width=width, mode=mode, fit=fit, background=background),
        folders=folders,
        labels=np.array(labels, np.int32),
        ends=np.cumsum([len(names) for _, names in folders]),
        class_names=tuple(classes),
        notes=tuple(notes),
    )
    return sliced(whole, split, sizes)


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The records of a folder of images: `image`, uint8 [height, width, channels], and `label`, the class, int32.

    Attributes:
      folders: The folders of all splits that hold images, each with their names, in bytes; there may be millions.
      labels: The class of each folder, int32 [num_folders].
      ends: The number of records up to the end of each folder, over all splits, int64 [num_folders].
    """

    form: ImageFormat
    folders: Sequence[tuple[str, np.ndarray]]
    labels: np.ndarray
    ends: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: str = "image_folder"

    @property
    def num_records(self) -> int:
        return int(self.ends[-1])

    @property
    def spec(self) -> Spec:
        return {"image": self.form.spec, "label": LeafSpec((), "int32")}

    def whole_labels(self) -> np.ndarray:
        return np.repeat(self.labels, np.diff(self.ends, prepend=0))

    def places(self, indices: np.ndarray) -> list[str]:
        return [*map(os.fsdecode, self._files(indices))]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        if "label" in out:
            out["label"][...] = self.labels[located(self.ends, indices)[0]]
        if "image" in out:
            files = self._files(indices)
            decode_images(
                self.form, lambda row: _content(files[row]), lambda row: os.fsdecode(files[row]), out["image"]
            )

    def _files(self, indices: np.ndarray) -> list[bytes]:
        """The path of each record."""
        numbers, places = located(self.ends, indices)
        folders = [(self._prefixes[number], self.folders[number][1]) for number in numbers.tolist()]
        return [prefix + names[place] for (prefix, names), place in zip(folders, places.tolist(), strict=True)]

    @cached_property
    def _prefixes(self) -> list[bytes]:
        """The beginning of the paths in each folder, up to the name of the file."""
        return [os.fsencode(os.path.join(folder, "")) for folder, _ in self.folders]  # noqa: PTH118


def _content(file: bytes) -> bytes:
    """The bytes of a file, in as few system calls as possible: at each one, another thread may take the GIL."""
    handle, parts = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0)), list[bytes]()
    try:
        while part := os.read(handle, _PIECE_BYTES if parts else _FIRST_BYTES):
            parts.append(part)
    finally:
        os.close(handle)
    return b"".join(parts)


def _holds_runs(folder: Path, depth: int = 2) -> bool:
    """Whether a folder is the output of a run or a sweep, or holds nothing but such folders, as Hydra's `outputs`."""
    if (folder / ".hydra").is_dir() or (folder / "multirun.yaml").is_file():
        return True
    if depth == 0:
        return False
    folders = list[Path]()
    with read_error(str(folder)), os.scandir(folder) as entries:
        for entry in entries:
            if _is_image(entry.name) or len(folders) > _MOST_RUNS:  # folders of classes need no further look
                return False
            if entry.is_dir():
                folders.append(Path(entry.path))
    return bool(folders) and all(_holds_runs(each, depth - 1) for each in folders)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _kind(name: str) -> str:
    return _LOOSE if _is_image(name) else kind_of(name)


def _walk(folder: Path, within: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """The files of a folder and its subfolders; a link back to a folder above is not followed."""
    real = os.path.realpath(folder)
    if real not in within:
        files, folders = _listed(folder)
        yield str(folder), files
        for name in folders:
            yield from _walk(folder / name, (*within, real))


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the files and of the folders in a folder, sorted, without hidden ones."""
    names: tuple[list[str], list[str]] = ([], [])
    with read_error(str(folder)), os.scandir(folder) as entries:
        for entry in entries:
            if _is_image(entry.name) and not entry.is_file() and not entry.is_dir() and Path(entry.path).exists():
                raise DataError(f"{entry.name} is no regular file.")  # opening a pipe would block
            if not entry.name.startswith("."):
                names[entry.is_dir()].append(entry.name)
    return sorted(names[0]), sorted(names[1])
