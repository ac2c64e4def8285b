"""Shows the `>>>` examples of docstrings as code: Griffe knows them below a heading `Examples:` alone."""

from __future__ import annotations

import re
from typing import Any

import griffe


class FencedExamples(griffe.Extension):
    """Puts a fence around each example, which ends with its paragraph."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^>>> (?:.+\n?)+", lambda example: f"```pycon\n{example[0].rstrip()}\n```\n", obj.docstring.value,
                flags=re.MULTILINE,
            )  # fmt: skip
