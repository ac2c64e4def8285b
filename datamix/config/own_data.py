"""The advice for a path in place of the name of a dataset: the YAML file that makes a dataset of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from datamix.config.files import choices_of
from datamix.config.quoting import as_value
from datamix.errors import ConfigError

_IMAGES = "path: {path}, height: 28, width: 28, operators: [to_float]"
# The `_target_` for files, and the settings that it needs, by the suffix of their names; {path} is the path.
_KINDS = {
    ".npz": "arrays, path: {path}",
    ".npy": "arrays, files: {{image: {path}}}",
    ".parquet": "parquet, path: {path}",
    ".arrow": "huggingface, path: {path}",
    ".csv": "table, path: {path}",
    ".tsv": "table, path: {path}",
    ".tar": f"webdataset, {_IMAGES}",
    ".array_record": f"array_record, {_IMAGES}",
    **dict.fromkeys((".txt", ".jsonl"), "text, path: {path}, length: 1024"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".webp"), f"image_folder, {_IMAGES}"),
}
# The shipped example for a `_target_`, where its settings fit all data of this kind.
_EXAMPLES = {
    "image_folder": "folder",
    **{target: f"my_{target}" for target in ("array_record", "table", "text", "tokens", "webdataset")},
}
_MOST_FILES = 1000  # of a folder that are examined to find its kind


def refuse_paths(choice: str) -> None:
    """Refuse paths where `source=` takes names."""
    if match := re.fullmatch(r"\[(.*)\]", choice.strip("'\"")):
        choice = re.sub(r"\s*,\s*", "+", match[1].strip())  # a list is the sum of its items
    for name in _names(choice):
        if _is_path(name) and not re.match(r"\w+\(", choice):
            mend = advice(name, choice)
            raise ConfigError("it is a path, and source= takes names of datasets", key="source", value=name, hint=mend)


def advice(path: str, choice: str | None = None) -> str:
    """One line on how to make a dataset of a path; `choice` is the value of `source=` that contains the path."""
    place = Path(os.path.expanduser(path))  # noqa: PTH111  # unlike `Path.expanduser`, it accepts an unknown home
    if "://" in path:
        return "Files are read from this machine: copy them here first."
    try:
        if not place.exists():
            return f"There is no such file or folder (looked for it at {place.absolute()})."
        settings, note = _settings(place, path), ""
        if settings and settings.startswith("image_folder") and _is_one_class(place):
            settings = _settings(place, os.path.normpath(f"{path}/.."))
            one = place.absolute().name
            note = f"Its images lie in no folder of a class, so that {one} is one, as are the folders beside it. "
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}."
    if settings is None and (tokens := _tokens(place)):
        text = f"Megatron's tokens in {tokens} need {tokens.with_suffix('.idx')} beside it, which is not there"
        return f"{text}; others are {{_target_: tokens, path: {path}, dtype: …, end_of_document: …, length: 1024}}."
    if settings is None:
        return f"Its kind is not known by its name; known are {', '.join(_KINDS)} and folders of them."
    known = re.match(r"tfds, name: (\w+)", settings)
    name = known[1] if known else re.sub(r"\W+", "_", place.absolute().name.partition(".")[0]).strip("_")
    is_taken = name in (*choices_of("dataset"), "mix")  # the node of the graph in which sources meet
    if is_taken or not re.match(r"[A-Za-z]", name) or as_value(name) != name:
        name = f"my_{name}"
    command = f"--config-dir my_conf source={_renamed(path, name, choice or path)}{_first_look(settings, path, choice)}"
    return f"{note}Write {{_target_: {settings}}} into my_conf/dataset/{name}.yaml, and run with {command}."


def _renamed(path: str, name: str, choice: str) -> str:
    """The value of `source=` with a name for a path, but not for another path that begins like it."""
    return re.sub(rf"(?<![^+,'\"]){re.escape(path)}(?![^+,@'\"])", name, choice)


def _names(choice: str) -> list[str]:
    return re.split(r"[+,]", choice.strip("'\""))


def _is_path(name: str) -> bool:
    return re.search(r"[/\\~.]", name) is not None


def _first_look(settings: str, path: str, choice: str | None) -> str:
    """The advice to set the path of a shipped example; empty where it does not fit, or not the path alone."""
    match = re.match(r"(\w+), path: ([\w./-]+)(?:, column: \"(\w+)\")?(?!, column)(?:,|$)", settings)
    if match is None or (example := _EXAMPLES.get(match[1])) is None:
        return ""
    renamed = _renamed(path, example, choice or path)
    names = _names(renamed)
    # Not where another name follows the path, as in `a.csv@b`, or beside another path, which may need the same example.
    if names.count(example) != 1 or example in _names(choice or path) or any(map(_is_path, names)):
        return ""
    if any(as_value(text) != text for text in (match[2], match[3] or "text")):
        return ""  # numbers or words of YAML, which need quotes that a shell takes away
    column = f" source.{example}.column={match[3]}" if match[3] else ""
    return f"; for a first look, source={renamed} source.{example}.path={match[2]}{column} will do"


def _settings(place: Path, path: str) -> str | None:
    """The settings in YAML that make a dataset of a file or folder; None if its kind is not known."""
    text = json.dumps(path, ensure_ascii=False) if re.search(r"[^\w./-]", path) else path
    for described in [*place.glob("features.json"), *place.glob("*/features.json")]:  # prepared by TFDS
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            info = json.loads((described.parent / "dataset_info.json").read_bytes())
            parts = [info["name"], *([info["configName"]] if "configName" in info else [])]
            return f"tfds, name: {'/'.join(parts)}, data_dir: {described.resolve().parents[len(parts) + 1]}"
    if any((place / file).is_file() for file in ("dataset_dict.json", "state.json")):  # saved by Hugging Face
        return f"huggingface, path: {text}"
    if place.suffix == ".idx" and place.with_suffix(".bin").is_file():
        return _settings(place.with_suffix(".bin"), f"{path.removesuffix('.idx')}.bin")
    for file in _files(place):
        if file.suffix == ".bin" and file.with_suffix(".idx").is_file():  # Megatron's, which need no settings
            return f"tokens, path: {text}, length: 1024"
        stem = re.sub(r"-\d+-of-\d+$|\.gz$", "", file.name.lower())
        if kind := _KINDS.get(Path(stem).suffix):
            kind = _of_columns(file) or kind
            if place.is_dir() and kind.startswith("arrays"):
                return None  # a dataset of arrays is a file
            if place.is_dir() or not kind.startswith("image_folder"):
                return kind.format(path=text)
    return None


def _is_one_class(folder: Path) -> bool:
    """Whether the images of a folder lie in it, and not in folders of classes."""
    images = [file for file in _files(folder) if _KINDS.get(file.suffix.lower(), "").startswith("image_folder")]
    return all(file.parent == folder for file in images)


def _of_columns(file: Path) -> str | None:
    """The settings for a Parquet file whose columns are all numbers or text; None for any other file."""
    if file.suffix.lower() != ".parquet":
        return None
    try:
        from pyarrow import parquet, types

        schema = parquet.read_schema(file)
    except (ImportError, OSError, ValueError):  # reading the file as a dataset reports what is wrong
        return None
    texts = [each.name for each in schema if types.is_string(each.type) or types.is_large_string(each.type)]
    kinds = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    numbers = [each.name for each in schema if any(is_kind(each.type) for is_kind in kinds)]
    if not texts + numbers or len(texts + numbers) < len(schema):
        return None
    if numbers and "text" not in texts:
        return "table, path: {path}"
    column = json.dumps("text" if "text" in texts else texts[0], ensure_ascii=False)
    return f"text, path: {{path}}, column: {column.replace('{', '{{').replace('}', '}}')}, length: 1024"


def _tokens(place: Path) -> Path | None:
    """The first `.bin` file at a path, which has no `.idx` file that describes it; None if there is none."""
    return next((file for file in _files(place) if file.suffix == ".bin"), None)


def _files(place: Path) -> Iterator[Path]:
    """A file, or the first `_MOST_FILES` files of a folder."""
    yield from [place] if place.is_file() else islice(_walk(place), _MOST_FILES)


def _walk(folder: Path) -> Iterator[Path]:
    os.scandir(folder).close()  # raises if the folder cannot be read, which `os.walk` would ignore
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))
