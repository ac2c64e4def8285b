"""The fenced blocks of a Markdown page, and how tests run them as a reader would.

A `bash` block is run line by line: `datamix …` and `python …`, while `pip install …` is left out. A block whose
first line is `# path.py` or `# path.yaml` is a file, and is saved; `# @package _global_`, which Hydra wants first, may
stand before it. Any other `python` block is run where it stands. Whatever is not to be run, such as a command for a
cluster, is marked `text`.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Page:
    """A Markdown page."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """The language and the text of each fenced block; within tabs and lists, blocks are indented."""
        found = re.findall(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", self.text, re.MULTILINE | re.DOTALL)
        return [(kind, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, kind, text in found]

    @cached_property
    def lines(self) -> list[str]:
        """The commands of the page."""
        return [line for kind, text in self.blocks if kind == "bash" for line in commands(text)]

    @cached_property
    def files(self) -> dict[str, str]:
        """The files that the page shows, by their path."""
        return {path: text for _, text in self.blocks if (path := file_of(text))}

    @cached_property
    def python(self) -> list[str]:
        """The pieces of code that are no files."""
        return [text for kind, text in self.blocks if kind == "python" and not file_of(text)]

    def save(self, directory: Path) -> None:
        """Save the files that the page shows."""
        for path, text in self.files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text, encoding="utf-8")


def commands(text: str) -> list[str]:
    """The commands of a `bash` block, one a line; a line that ends in a backslash goes on in the next."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def file_of(text: str) -> str:
    """The path of the file that a block is; empty where it is none."""
    match = re.match(r"(?:# @package _global_\n)?# (\S+\.\w+)\n", text)
    return match[1] if match else ""


def words(line: str) -> list[str]:
    """The words of a command line as bash makes them: with its braces, brackets and quotes."""
    split = subprocess.run(["bash", "-c", f'printf "%s\\0" {line}'], capture_output=True, text=True, check=True)
    return split.stdout.split("\0")[:-1]


def quick(arguments: list[str]) -> list[str]:
    """The arguments of a job that trains, in little time: few steps, and a small model where none is named."""
    if "job=train" not in arguments and not any(each.endswith("ratio_study") for each in arguments):
        return arguments
    named = any(each.startswith(("model=", "experiment=text")) for each in arguments)
    small = [] if named else ["model=linear"]
    return [*arguments, "train.steps=2", "train.eval_every=2", *small]


def run(code: str, file: str, names: dict[str, object] | None = None) -> dict[str, object]:
    """Run a piece of code; the names that it leaves."""
    names = {"__name__": "__main__"} if names is None else names
    exec(compile(code, file, "exec"), names)
    return names
