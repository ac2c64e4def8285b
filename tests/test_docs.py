"""The documentation: what its pages show runs as it is written, what they link to exists, and the site can be built."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from snippets import Page, commands, file_of, quick, run, words

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS / "pages")): Page(path) for path in sorted((DOCS / "pages").rglob("*.md"))}
SNIPPETS = [name for name, page in PAGES.items() if page.blocks]
FAST = ("concepts.md",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in SNIPPETS]
)
def test_what_a_page_shows_runs(call_among_datasets, environment, tmp_path, name):
    page = PAGES[name]
    page.save(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for kind, text in page.blocks:
        if kind == "python" and not file_of(text):
            run(text, name, names)
        for line in commands(text) if kind == "bash" else ():
            program, *arguments = words(line)
            if program == "datamix":
                ended = call_among_datasets(*quick(arguments))
                assert ended.code == 0, f"{line}\n{ended.err}"
            elif program == "python":
                command = [sys.executable, *arguments]
                done = subprocess.run(
                    command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{line}\n{done.stderr}"
            else:
                assert line.startswith("pip install "), line


def test_there_are_pages_with_commands_and_code():
    assert {"index.md", "concepts.md", "design.md", "reference/api.md"} <= set(PAGES)
    assert PAGES["index.md"].lines
    assert PAGES["index.md"].python


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-f",
        str(DOCS / "mkdocs.yml"),
        "-d",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "config" / "index.html").read_text(encoding="utf-8")
    for key in ("mix.share", "batch.size", "mix.window", "optimizer.learning_rate", "source.NAME.limit", "train.steps"):
        assert f"<code>{key}</code>" in reference
    assert "source.&lt;name&gt;.placement" in reference  # not taken for a tag
    for page, figure in (("", "samples"), ("how-to/sweep", "ratio_study"), ("how-to/set-the-mix", "plan")):
        link = re.search(rf'src="([./]*figures/{figure}.png)"', (tmp_path / page / "index.html").read_text("utf-8"))
        assert (tmp_path / page / link[1]).is_file()
    interface = (tmp_path / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert "with_weights" in interface


def test_the_interface_lists_every_public_name():
    stub = (ROOT / "datamix" / "__init__.pyi").read_text(encoding="utf-8")
    public = re.findall(r"^from (\S+) import (\w+) as \2$", stub, re.MULTILINE)
    listed = re.findall(r"^::: (\S+)", PAGES["reference/api.md"].text, re.MULTILINE)
    assert {f"{module}.{name}" for module, name in public} <= set(listed)
