"""The files that the setting `path` of a source names: a file, a folder, a glob, a list of these, or these by split."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from datamix.errors import ConfigError, DataError, expanded, nearest, unreadable
from datamix.sources.cache import is_of_cache

Paths = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""What `path` may be in a configuration: one path, a list of them, or either for each split."""

_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|test|val|valid|validation|dev)(?![a-z])", re.IGNORECASE)


class Files(dict[str, tuple[Path, ...]]):
    """A dict from split to its files.

    Attributes:
      others: Other files in the folders of the path, which are not read.
    """

    others: frozenset[Path] = frozenset()


def files_of(path: Paths, *, suffixes: Sequence[str], key: str = "path") -> Files:
    """Find the files of each split.

    A folder stands for all files with these suffixes in it and its subfolders, except hidden files and those of the
    cache. The number of a shard may follow a suffix, as in `.array_record-00000-of-00002`.

    Args:
      path: A file, a folder, a glob or a list of them, which are the split `train`; or a mapping from splits to them.
      suffixes: The allowed endings of file names, such as `.parquet`.
      key: The key that errors name.

    Returns:
      Split to its files: those of a folder or a glob sorted by name, those of a list in its order.

    Raises:
      ConfigError: A path is remote, is named twice, or has another suffix.
      DataError: There is no such file, a shard is missing, or a folder cannot be read.

    >>> files_of({"train": "datamix/sources/s*s.py", "test": ["datamix/spec.py"]}, suffixes=[".py"])["test"]
    (PosixPath('datamix/spec.py'),)
    """
    splits = path if isinstance(path, Mapping) else {"train": path}
    if not splits:
        raise ConfigError("it names no split; write {train: FILE, test: FILE}", key=key, value=dict(splits))
    files_of_split, others = Files(), set[Path]()
    for split, texts in splits.items():
        where = f"{key}.{split}" if isinstance(path, Mapping) else key
        try:
            files = [file for text in _texts(texts, where) for file in _matching(text, suffixes, where, others)]
        except OSError as error:
            raise unreadable(str(error.filename), error) from error
        seen: set[str] = set()
        for file in files:
            if (place := os.path.abspath(file)) in seen:  # noqa: PTH100  # without following links
                raise ConfigError(f"it names {file} twice, and no record is given twice", key=where, value=texts)
            seen.add(place)
        files_of_split[str(split)] = tuple(files)
        others -= {file.with_suffix(".idx") for file in files if file.suffix == ".bin"}  # Megatron's index of tokens
    files_of_split.others = frozenset(others)
    return files_of_split


def notes_on(path: Paths, files: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
    """Notes for the user on files: which others are left out, and which splits their names mention but `path` does not.

    Args:
      path: The argument of `files_of`.
      files: Its result; or the files of each split, for a folder that lists its own, as those of `save_to_disk` do.

    >>> notes_on("d", {"train": [Path("d/train.parquet"), Path("d/test.parquet")]})[0].partition(";")[0]
    'its files are read as one split, train, though their names speak of train and test'
    """
    kinds = Counter(kind_of(file.name) for file in sorted(files.others if isinstance(files, Files) else ()))
    notes = [left_out(kinds, "of another kind")] if kinds else []
    if isinstance(path, Mapping) or set(files) != {"train"}:
        return tuple(notes)
    common = os.path.commonpath([file.parent for file in files["train"]])
    names = [os.path.relpath(file, common) for file in files["train"]]
    words = {match[1].lower(): None for name in names for match in _SPLIT_IN_NAME.finditer(name)}
    note = f"its files are read as one split, train, though their names speak of {' and '.join(words)}"
    mend = f"path={{{', '.join(f'{word}: …' for word in words)}}} keeps them apart."
    return (*([f"{note}; {mend}"] if len(words) > 1 else []), *notes)


def kind_of(name: str) -> str:
    """The kind of a file: the suffix of its name."""
    return Path(name).suffix.lower() or "without a suffix"


def left_out(kinds: Counter[str], what: str) -> str:
    """The note on files that are not read, with the number of each kind.

    >>> left_out(Counter({".txt": 2, ".md": 1}), "no tables")
    '3 files are left out, which are no tables: 2 .txt, 1 .md.'
    """
    some = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    are = "1 file is left out, which is" if kinds.total() == 1 else f"{kinds.total():,} files are left out, which are"
    return f"{are} {what}: {some}."


def _texts(texts: str | Sequence[str], key: str) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Sequence) else [texts]
    if not listed or not all(isinstance(text, str) and text for text in listed):
        raise ConfigError("it is a path, or a list of paths", key=key, value=texts)
    return listed


def _matching(text: str, suffixes: Sequence[str], key: str, others: set[Path]) -> list[Path]:
    """The files that a path or a glob names; a folder's files with other suffixes are added to `others`."""
    if "://" in text:
        hint_ = f"Write {text[7:]}." if text.startswith("file://") else "Copy the files first, and name the copy."
        raise ConfigError("files are read from this machine alone", key=key, value=text, hint=hint_)
    path = expanded(text)
    ending = re.compile(rf"({'|'.join(re.escape(suffix) for suffix in suffixes)})({_SHARD.pattern})?$", re.IGNORECASE)
    kinds = " or ".join(suffixes)
    if path.is_dir():
        every = sorted(_walk(path))
        files = [file for file in every if ending.search(file.name)]
        others.update(file for file in every if not ending.search(file.name))
        if not files:
            raise DataError(f"this folder holds no {kinds} file", key=key, value=text)
    elif path.exists():
        files = [path]
    else:
        _check_folders(path)
        files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())  # noqa: PTH207
        if not files:
            kind = "no file matches" if glob.has_magic(text) else "there is no such file or folder"
            absence = f"{kind} (looked for it at {path.absolute()})"
            raise DataError(absence, key=key, value=text, hint=meant(path, ending))
    if other := [file for file in files if not ending.search(file.name) or not file.is_file()]:
        raise ConfigError(f"{other[0].name} is no {kinds} file", key=key, value=text)
    if files != [path]:
        _check_shards(files, text, key)
    return files


def _check_folders(pattern: Path) -> None:
    """Open every folder that a glob searches, since `glob` skips those that cannot be read."""
    for part in (pattern, *pattern.parents):
        if glob.has_magic(part.name):
            for folder in glob.glob(str(part.parent), recursive=True):  # noqa: PTH207
                if Path(folder).is_dir():
                    os.scandir(folder).close()


def _walk(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, except hidden ones and the cache's; each folder once, despite links."""

    def fail(error: OSError) -> NoReturn:
        raise error

    seen = set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and not is_of_cache(Path(place, name))]
        files = [Path(place, name) for name in names if not name.startswith(".")]
        yield from (file for file in files if not is_of_cache(file))


def _check_shards(files: Sequence[Path], text: str, key: str) -> None:
    """Check that no file is missing among those that are numbered, as in `-00000-of-00002`."""
    shards: dict[tuple[Path, str, str, str], set[int]] = {}
    for file in files:
        if match := _SHARD.search(file.name):
            name = (file.parent, file.name[: match.start(1)], match[2], file.name[match.end(2) :])
            shards.setdefault(name, set()).add(int(match[1]))
    for (_, begin, count, end), numbers in shards.items():
        missing = next((number for number in range(int(count)) if number not in numbers), None)
        if missing is not None:
            shard = f"{begin}{missing:0{len(count)}d}-of-{count}{end}"
            mend = "To read those that are there alone, name them in a list."
            raise DataError(f"the shard {shard} is missing", key=key, value=text, hint=mend)


def meant(path: Path, ending: re.Pattern[str] | None = None) -> str:
    """Ask whether the most similar name beside a missing path was meant: of a folder, or a file with this ending.

    A name that lacks only its suffix, such as Megatron's prefixes, matches the file that has one.
    """
    try:
        names = sorted(os.listdir(path.parent))  # noqa: PTH208
    except OSError:
        return ""
    usable = [name for name in names if (ending and ending.search(name)) or path.with_name(name).is_dir()]
    whole = [name for name in usable if name.startswith(f"{path.name}.")]
    near = [repr(str(path.with_name(name))) for name in whole[:1] or nearest(path.name, usable)]
    return f"Did you mean {' or '.join(near)}?" if near else ""


def not_utf8(place: str, error: UnicodeDecodeError) -> DataError:
    """The error for text in another encoding, which is guessed from its first bytes."""
    wide = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    byte, encoding = error.object[error.start], "utf-16" if wide else "latin1"
    return DataError(f"{place} is no UTF-8 (byte 0x{byte:02x}); convert it, as by iconv -f {encoding} -t utf-8.")
