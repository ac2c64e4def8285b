"""The description on the package index: README without what only a checkout has, its pictures and relative links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def rendered(text: str) -> str:
    """Markdown that stands alone: pictures of the checkout are left out, and links into it are their text."""
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


class CustomMetadataHook(MetadataHookInterface):
    """Hatch's hook, run when a wheel or an sdist is built."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": rendered(text)}
