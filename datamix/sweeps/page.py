"""A sweep as one page: everything in it, nothing fetched."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from datamix.sweeps.results import Result, Setting, shown_value, stand_ins, swept, swept_value
from datamix.sweeps.table import number, share_text

_STYLE = """
:root { color-scheme: light; --line: #d8dbe0; --soft: #f4f5f7; --ink: #1d2025; --dim: #626873; --mark: #fff3c9; }
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 1180px; padding: 0 1.2rem; color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; } .dim { color: var(--dim); } .warn { color: #b00020; font-weight: 600; }
.verdict { background: var(--mark); border-radius: 6px; padding: .6rem .9rem; margin: 1rem 0; }
.figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
td.number, th.number { text-align: right; } td.error { white-space: normal; min-width: 18rem; }
th { background: var(--soft); position: sticky; top: 0; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid #4269d0; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
tr.best td { background: var(--mark); } tr.failed td, tr.interrupted td { color: #b00020; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } details img { max-width: 100%; display: block; margin: .6rem 0; }
code { background: var(--soft); border-radius: 4px; padding: .1rem .35rem; font-size: 12px; overflow-wrap: anywhere; }
"""

_SCRIPT = """
for (const head of document.querySelectorAll("th")) head.querySelector("button").addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending", body = head.closest("table").tBodies[0];
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const missing = row => value(row) === "";
  const compare = (a, b) => value(a).localeCompare(value(b), undefined, {numeric: true});
  const numeric = head.classList.contains("number");
  const order = (a, b) => missing(a) - missing(b)
    || (down ? -1 : 1) * (numeric ? value(a) - value(b) : compare(a, b));
  body.append(...[...body.rows].sort(order));
});
for (const link of document.querySelectorAll("td a")) link.addEventListener("click", () => {
  document.querySelector(link.getAttribute("href")).open = true;
});
"""


def page(
    results: Sequence[Result],
    chosen: Setting | None,
    verdict: str,
    metrics: Sequence[str],
    figure: str,
    directory: Path,
) -> str:
    """A sweep's page, with the answer in one sentence and the figure as SVG; links are relative to its directory."""
    done = sum(result.status == "done" for result in results)
    named = directory.resolve().name
    parts = [
        f"<h1>Sweep {escape(named)}</h1>",
        f'<p class="dim">{len(results)} jobs, {done} done</p>',
        *(
            f'<p class="warn">{escape(name)}: a built-in stand-in was used; this is not real data.</p>'
            for name in stand_ins(results)
        ),
        f'<p class="verdict">{escape(verdict)}</p>',
        # A drawing within a page has no declaration of its own.
        f'<div class="figure">{figure[figure.find("<svg") :]}</div>' if figure else "",
        "<h2>Jobs</h2>",
        _table(results, chosen, metrics),
        "<h2>Each job</h2>",
        *(_job(i, result, directory) for i, result in enumerate(results)),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">\n'
        f"<title>Sweep {escape(named)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _table(results: Sequence[Result], chosen: Setting | None, metrics: Sequence[str]) -> str:
    keys = swept(results)
    sources = list(dict.fromkeys(name for result in results for name in result.sources))
    heads = [("job", True), *((key, _numeric(results, key)) for key in keys), ("seed", True), ("status", False)]
    heads += [(f"share of {name}", True) for name in sources]
    heads += [(name, True) for name in metrics if not name.startswith("share/")] + [("seconds", True)]
    if any(result.error for result in results):
        heads.append(("why", False))
    lines = []
    for i, result in enumerate(results):
        cells = [f'<td class="number" data-value="{result.job}"><a href="#job-{i}">{result.job}</a></td>']
        cells += [_cell(swept_value(result, key), _numeric(results, key), shown_value(result, key)) for key in keys]
        cells += [_cell(str(result.seed), True), _cell(result.status, False)]
        for name in sources:
            target = result.sources.get(name, {}).get("target")
            cells.append(_cell("" if target is None else repr(target), True, share_text(result, name)))
        for name in metrics:
            if not name.startswith("share/"):
                value = result.metrics.get(name)
                cells.append(
                    _cell("" if value is None else repr(value), True, "–" if value is None else number(value, name))
                )
        cells.append(_cell("" if result.seconds is None else repr(result.seconds), True))
        if any(other.error for other in results):
            cells.append(f'<td class="error">{escape(result.why or "")}</td>')
        best = chosen is not None and result in chosen.results and result.status == "done"
        lines.append(f'<tr class="{result.status}{" best" if best else ""}">{"".join(cells)}</tr>')
    head = "".join(
        f'<th scope="col"{" class=number" if numeric else ""}><button>{escape(name)}</button></th>'
        for name, numeric in heads
    )
    return (
        f'<div class="scroll"><table id="jobs"><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _numeric(results: Sequence[Result], key: str) -> bool:
    try:
        return bool([float(swept_value(result, key) or 0) for result in results])
    except ValueError:
        return False


def _cell(value: str, numeric: bool, shown: str | None = None) -> str:
    kind = ' class="number"' if numeric else ""
    return f'<td{kind} data-value="{escape(value)}">{escape(value if shown is None else shown)}</td>'


def _job(i: int, result: Result, directory: Path) -> str:
    overrides = " ".join(f"<code>{escape(f'{key}={value}')}</code>" for key, value in result.overrides.items())
    where = Path(os.path.relpath(result.directory, directory)).as_posix()
    figures = "".join(
        f'<img loading="lazy" alt="{escape(path.stem)} of job {result.job}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}">'
        for path in sorted(result.directory.glob("*.png"))
        if not path.name.startswith(".")
    )
    error = f'<p class="warn">{escape(result.why)}</p>' if result.why else ""
    of = f" of {escape(result.sweep)}" if result.sweep else ""
    metrics = ", ".join(f"{escape(name)} {number(value, name)}" for name, value in result.metrics.items())
    return (
        f'<details id="job-{i}"><summary>Job {result.job}{of} – {result.status} {overrides}</summary>'
        f'<p class="dim">in <a href="{escape(where)}/">{escape(where)}</a></p>{error}<p>{metrics}</p>{figures}'
        "</details>"
    )
