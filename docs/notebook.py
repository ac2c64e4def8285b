"""Makes the notebook of the tutorial from its script, and a page of the site from the notebook.

`python docs/notebook.py` runs the script's cells and writes the notebook with what they print and draw.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "interleaved_tutorial.py"
NOTEBOOK = ROOT / "docs" / "pages" / "tutorials" / "interleaved.ipynb"


def cells_of(script: Path) -> list[tuple[str, str]]:
    """The cells of a script in the percent format: their kind, "markdown" or "code", and their text."""
    parts = re.split(r"^# %%(.*)\n", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    cells = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        kind = "markdown" if "[markdown]" in mark else "code"
        cells.append(
            (kind, re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip() if kind == "markdown" else text.strip())
        )
    return cells


def executed(script: Path, directory: Path) -> Any:
    """The notebook of a script, run from its first cell to its last in a directory."""
    import nbformat
    from nbclient import NotebookClient

    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    notebook = nbformat.v4.new_notebook(cells=[new[kind](text) for kind, text in cells_of(script)])
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(directory)}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # when it was run
        if "outputs" in cell:  # what is read, and whether from a cache, is of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    return notebook


def page_of(notebook: Any) -> Iterator[str]:
    """The page of a notebook in Markdown: its text, its code, and what that prints and draws."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        yield text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for output in cell.get("outputs", ()):
            if "text" in output:
                yield f"```text\n{''.join(output['text']).rstrip()}\n```"
            elif image := output.get("data", {}).get("image/png"):
                yield f"![What the cell draws](data:image/png;base64,{''.join(image).replace(chr(10), '')})"


def on_files(files: Any, config: Any) -> Any:
    """MkDocs' hook: adds the page."""
    import json

    from mkdocs.structure.files import File

    link = f"This page is [a notebook](interleaved.ipynb), and `scripts/{SCRIPT.name}` of the repository."
    parts = [*page_of(json.loads(NOTEBOOK.read_text(encoding="utf-8"))), link]
    files.append(File.generated(config, "tutorials/interleaved.md", content="\n\n".join(parts) + "\n"))
    return files


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as place:
        nbformat.write(executed(SCRIPT, Path(place)), NOTEBOOK)
