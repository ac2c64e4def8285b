"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPORT = "report.json"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, which takes its place once the block has ended without an error."""
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        part.replace(path)
    except OSError as error:  # a full disk does not say which file it was
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be no text


def write_report(directory: Path, report: Mapping[str, Any]) -> Path:
    """Write a job's `report.json`; returns its path."""
    path = directory / REPORT
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return path
