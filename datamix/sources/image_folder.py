"""Folders of images, one a class."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamix.errors import ConfigError, DataError, expanded
from datamix.sources.images import SUFFIXES, Fit, ImageFormat, Mode, image_sizes, read_error, spread
from datamix.sources.splits import split_records
from datamix.spec import Arrays, LeafSpec, Spec

SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")
"""What folders of splits are called, in capitals or not."""

_SILENT_FILES = 100_000  # more take seconds to list


def image_folder(
    *,
    path: str,
    height: int | None = None,
    width: int | None = None,
    mode: Mode = "L",
    fit: Fit = "resize",
    background: str = "white",
    split: str = "train",
) -> ImageFolder:
    """Images in `ROOT/class/…`, or in `ROOT/split/class/…` where all folders of ROOT are named in `SPLITS`.

    Classes are the folders of all splits, sorted by name. Folders in that of a class belong to it. Hidden files and
    folders are passed over.

    Args:
      path: ROOT.
      height: Of the leaf `image`; see `ImageFormat`.
      width: See `ImageFormat`, as for the three below.
      mode: See `ImageFormat`.
      fit: See `ImageFormat`.
      background: See `ImageFormat`.
      split: TFDS's syntax; without folders of splits, there is the split `train`.

    Raises:
      ConfigError: A setting is missing or not allowed, or there is no such split.
      DataError: There is no such folder, or no image in it.
    """
    root = expanded(path)
    if not root.is_dir():
        raise DataError(f"there is no such folder (looked for it at {root.absolute()})", key="path", value=path)
    tree = _Tree.of(root, path)
    if height is None or width is None:
        files = [tree.file(record) for record in range(min(tree.num_records, 20))]
        key, text = "width" if height else "height", f"the first images are {image_sizes(files)}"
        raise ConfigError(text, key=key, value=None, hint="Set height and width.")
    form = ImageFormat(height=height, width=width, mode=mode, fit=fit, background=background)
    return ImageFolder(tree=tree, form=form, records=split_records(split, tree.sizes, where="split"))


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The records of a folder of images: `image`, uint8 [height, width, channels], and `label`, the class, int32.

    Attributes:
      tree: The files.
      form: What images are decoded to.
      records: The records of the split, as `tree` numbers them, shape [num_records].
      provenance: Where the records come from.
    """

    tree: _Tree
    form: ImageFormat
    records: np.ndarray
    provenance: str = "image_folder"

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.records)

    @property
    def spec(self) -> Spec:
        """The shape and dtype of each leaf."""
        return {"image": self.form.spec, "label": LeafSpec((), "int32")}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.tree.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out, and what is read in another way than its names may say."""
        return self.tree.notes

    def whole_labels(self) -> np.ndarray:
        """See `datamix.sources.base.LabelledSource`."""
        return np.repeat(self.tree.labels, np.diff(self.tree.ends, prepend=0))

    def places(self, indices: np.ndarray) -> list[str]:
        """The files of some records."""
        return [self.tree.file(int(record)) for record in self.records[indices]]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        records = self.records[indices]
        if "label" in out:
            out["label"][...] = self.tree.labels[np.searchsorted(self.tree.ends, records, side="right")]
        if "image" in out:
            spread(len(records), lambda row: self._read(int(records[row]), out["image"][row]))

    def _read(self, record: int, out: np.ndarray) -> None:
        file = self.tree.file(record)
        with read_error(file):
            self.form.decode(Path(file).read_bytes(), out)


@dataclass(frozen=True, kw_only=True)
class _Tree:
    """The files of all splits; names lie in one string, as there may be millions.

    Attributes:
      sizes: Split to its number of records; they follow one another.
      classes: The names of all classes.
      folders: The folders, in the order of their records.
      labels: The class of each folder, int32.
      ends: The record after the last of each folder, int64.
      names: The names of all files, one behind the other.
      name_ends: Where in `names` each ends, int64 [num_records].
      notes: See `ImageFolder.notes`.
    """

    sizes: dict[str, int]
    classes: tuple[str, ...]
    folders: list[str]
    labels: np.ndarray
    ends: np.ndarray
    names: bytes
    name_ends: np.ndarray
    notes: tuple[str, ...]

    @property
    def num_records(self) -> int:
        return len(self.name_ends)

    def file(self, record: int) -> str:
        """The path of a record's file."""
        begin = self.name_ends[record - 1] if record else 0
        folder = self.folders[np.searchsorted(self.ends, record, side="right")]
        return os.path.join(folder, os.fsdecode(self.names[begin : self.name_ends[record]]))  # noqa: PTH118

    @classmethod
    def of(cls, root: Path, path: str) -> _Tree:
        """List all files below a folder.

        Raises:
          DataError: There is no image in a folder of a class, or a folder cannot be listed.
        """
        loose, tops = _listed(str(root))
        splits, notes = {"train": root}, []
        named = sorted((top for top in tops if top.lower() in SPLITS), key=lambda top: (top.lower() != "train", top))
        if named and len(named) == len(tops):
            splits = {name.lower(): root / name for name in named}
            tops = []
        elif named:
            other = next(top for top in tops if top not in named)
            notes.append(f"{', '.join(named)} are read as classes and no splits, as {other} lies beside.")
        inside = {split: _listed(str(folder)) for split, folder in splits.items()}
        if not tops:
            loose += [name for names, _ in inside.values() for name in names]
        classes = {
            name: label for label, name in enumerate(sorted({top for _, tops in inside.values() for top in tops}))
        }
        sizes, folders, labels, counts = dict.fromkeys(splits, 0), [], [], []
        names, lengths = bytearray(), [np.empty(0, np.int64)]
        other_files = Counter(_kind(name) for name in loose if not _is_image(name))
        for split, (_, of_classes) in inside.items():
            for name in of_classes:
                for folder, files in _walk(str(splits[split] / name)):
                    images = [os.fsencode(file) for file in files if _is_image(file)]
                    other_files.update(_kind(file) for file in files if not _is_image(file))
                    if images:
                        folders.append(folder)
                        labels.append(classes[name])
                        counts.append(len(images))
                        names += b"".join(images)
                        lengths.append(np.fromiter(map(len, images), np.int64, len(images)))
                        if sizes[split] < _SILENT_FILES <= sizes[split] + len(images):
                            print(f"Listing the files of {path} …", file=sys.stderr, flush=True)
                        sizes[split] += len(images)
        if beside := sum(map(_is_image, loose)):
            notes.append(f"{beside:,} images lie in no folder of a class, and are left out.")
        if other_files:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in other_files.most_common(5))
            notes.append(f"{other_files.total():,} files are no images by their names, and are left out: {kinds}.")
        if not folders:
            text = f"it holds no image in a folder of a class, such as {path}/cat/1.png"
            raise DataError(text, key="path", value=path, hint=" ".join(notes))
        filled = set(labels)
        if empty := [name for name, label in classes.items() if label not in filled]:
            notes.append(f"no image lies in the folder of {', '.join(empty)}, which is a class all the same.")
        return cls(
            sizes=sizes,
            classes=tuple(classes),
            folders=folders,
            labels=np.array(labels, np.int32),
            ends=np.cumsum(counts),
            names=bytes(names),
            name_ends=np.cumsum(np.concatenate(lengths)),
            notes=tuple(notes),
        )


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _kind(name: str) -> str:
    """What files are counted by: their suffix."""
    return os.path.splitext(name)[1].lower() or "without a suffix"  # noqa: PTH122


def _walk(folder: str, within: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """The files of a folder and of those in it; not of one that a link leads back to."""
    real = os.path.realpath(folder)
    if real in within:
        return
    files, folders = _listed(folder)
    yield folder, files
    for name in folders:
        yield from _walk(os.path.join(folder, name), (*within, real))  # noqa: PTH118


def _listed(folder: str) -> tuple[list[str], list[str]]:
    """The names of files and of folders in a folder that are not hidden, sorted."""
    names: tuple[list[str], list[str]] = ([], [])
    with read_error(folder), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                names[entry.is_dir()].append(entry.name)
    return sorted(names[0]), sorted(names[1])
