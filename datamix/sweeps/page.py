"""A sweep as one self-contained HTML page."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from datamix.report.figures import color_of
from datamix.report.files import REPORT
from datamix.sweeps.results import Result, Setting, number, readable, shown_value, stand_ins, swept, swept_value
from datamix.sweeps.table import by_setting, columns_of, share_text


def page(
    results: Sequence[Result],
    chosen: Setting | None,
    answer: Sequence[str],
    metrics: Sequence[str],
    figure: str,
    directory: Path,
    notes: Sequence[str] = (),
) -> str:
    """The page of a sweep, in HTML.

    Args:
      results: The results of the jobs.
      chosen: The best setting; None if no job reports the metric.
      answer: The answer and any suggestion, in sentences and commands.
      metrics: The metrics to show.
      figure: The figure as an SVG file; empty for none.
      directory: The directory of the page, to which links are relative.
      notes: The notes of the jobs.
    """
    done = sum(result.status == "done" for result in results)
    named = directory.resolve().name
    unreal = map(escape, stand_ins(results))
    parts = [
        f"<h1>Sweep {escape(named)}</h1>",
        f'<p class="dim">{len(results)} jobs, {done} done</p>',
        *(f'<p class="warn">{name}: a built-in stand-in was used; this is not real data.</p>' for name in unreal),
        *(f'<p class="dim">Note: {escape(note)}</p>' for note in notes),
        *map(_answer, answer),
        # An SVG element within HTML has no XML declaration.
        f'<div class="figure">{figure[figure.find("<svg") :]}</div>' if figure else "",
        _settings(results, chosen, metrics),
        "<h2>Jobs</h2>",
        _table(results, chosen, metrics),
        "<h2>Each job</h2>",
        *(_job(i, result, directory) for i, result in enumerate(results)),
    ]
    body = "\n".join(part for part in parts if part)
    style, script = (Path(__file__).with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">\n'
        f"<title>Sweep {escape(named)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _answer(line: str) -> str:
    if line.startswith("datamix "):
        return f'<p class="command"><code>{escape(line)}</code></p>'
    return f"<p>{escape(line)}</p>" if line.endswith(":") else f'<p class="verdict">{escape(line)}</p>'


def _settings(results: Sequence[Result], chosen: Setting | None, metrics: Sequence[str]) -> str:
    """The table of settings as in the terminal, but with all metrics; empty if each setting has one job."""
    columns, lines = by_setting(results, chosen, columns_of(metrics))
    if len(lines) == len(results):
        return ""
    numeric = [  # whether every cell begins like a number, or is a dash for no value
        name not in ("", "status") and all(each[:1] in "–-0123456789" for each in cells)
        for name, *cells in zip(columns, *lines, strict=True)
    ]
    rows = [f"<tr{' class=best' if line[0] else ''}>{''.join(map(_cell, line, numeric))}</tr>" for line in lines]
    return "<h2>Settings, mean ± deviation over the seeds</h2>\n" + _grid(zip(columns, numeric, strict=True), rows)


def _grid(columns: Iterable[tuple[str, bool]], rows: Sequence[str], name: str = "settings") -> str:
    """A table that its headings sort; a heading may wrap after a dot."""
    head = "".join(
        f'<th scope="col"{" class=number" if numeric else ""}><button>'
        f"{escape(text).replace('.', '.<wbr>').replace(' %', '&nbsp;%')}</button></th>"
        for text, numeric in columns
    )
    head, body = f"<thead><tr>{head}</tr></thead>", "\n".join(rows)
    return f'<div class="scroll"><table id="{name}">{head}\n<tbody>\n{body}\n</tbody></table></div>'


def _table(results: Sequence[Result], chosen: Setting | None, metrics: Sequence[str]) -> str:
    keys = swept(results)
    sources = list(dict.fromkeys(name for result in results for name in result.sources))
    sources = [name for name in sources if f"mix.share.{name}" not in keys]
    heads = [("job", True), *((key, _numeric(results, key)) for key in keys), ("seed", True), ("status", False)]
    heads += [(f"share of {name}", True) for name in sources]
    shown = columns_of(metrics)
    heads += [*((readable(name), True) for name in shown), ("seconds", True)]
    if any(result.error for result in results):
        heads.append(("why", False))
    lines = []
    for i, result in enumerate(results):
        cells = [f'<td class="number" data-value="{result.job}"><a href="#job-{i}">{result.job}</a></td>']
        cells += [_cell(swept_value(result, key), _numeric(results, key), shown_value(result, key)) for key in keys]
        cells += [_cell(str(result.seed), True), f"<td>{result.status}</td>"]
        targets = {name: result.sources.get(name, {}).get("target") for name in sources}
        cells += [_number_cell(target, share_text(result, name)) for name, target in targets.items()]
        values = {name: result.metrics.get(name) for name in shown}
        cells += [_number_cell(each, "–" if each is None else number(each, name)) for name, each in values.items()]
        cells.append(_number_cell(result.seconds, "–" if result.seconds is None else f"{result.seconds:.1f}"))
        if any(other.error for other in results):
            cells.append(f'<td class="error">{escape(result.why or "")}</td>')
        best = chosen is not None and result in chosen.results and result.status == "done"
        lines.append(f'<tr class="{result.status}{" best" if best else ""}">{"".join(cells)}</tr>')
    box = '<p><input id="filter" type="search" placeholder="Show jobs with …" aria-label="Show jobs with"></p>'
    return box + _grid(heads, lines, "jobs")


def _numeric(results: Sequence[Result], key: str) -> bool:
    try:
        return bool([float(swept_value(result, key) or 0) for result in results])
    except ValueError:
        return False


def _cell(value: str, numeric: bool, shown: str | None = None) -> str:
    kind = "number" if numeric else "text"
    return f'<td class="{kind}" data-value="{escape(value)}">{escape(value if shown is None else shown)}</td>'


def _number_cell(value: float | None, shown: str | None) -> str:
    return _cell("" if value is None else repr(value), True, shown)


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
    metrics = ", ".join(f"{escape(readable(name))} {number(value, name)}" for name, value in result.metrics.items())
    return (
        f'<details id="job-{i}"><summary>Job {result.job}{of} – {result.status} {overrides}</summary>'
        f'<p class="dim">in <a href="{escape(where)}/">{escape(where)}</a></p>{error}<p>{metrics}</p>'
        f"{figures or _curves(result)}</details>"
    )


def _curves(result: Result) -> str:
    """The curves of a job as JSON, which the page's script draws when the job is opened.

    Figures of all jobs would take longer than training small models. It is empty for a job that has trained nothing, or
    has no complete report.
    """
    with suppress(OSError, ValueError, KeyError):
        report = json.loads((result.directory / REPORT).read_bytes(), parse_constant=lambda _: None)
        sources, curves, losses = report["sources"], report["curves"], report["curves"]["losses"]
        thinned = {"losses": losses[:: 1 + len(losses) // 300], "adapt": report.get("adapt")}
        text = json.dumps(curves | thinned | {"colors": {name: color_of(i) for i, name in enumerate(sources)}})
        # A "</script>" in a name must not end the script.
        return '<script type="application/json">' + text.replace("<", "\\u003c") + "</script>"
    return ""
