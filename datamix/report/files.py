"""Files that are written as a whole, or not at all."""

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
    """Give a temporary path beside `path`, which replaces `path` if the block ends without an error."""
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        part.replace(path)
    except OSError as error:  # the error of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may not be valid text


def write_report(directory: Path, report: Mapping[str, Any]) -> Path:
    """Write a job's `report.json`, and return its path."""
    path = directory / REPORT
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return path
