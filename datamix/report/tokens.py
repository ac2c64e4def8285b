"""The report on tokens: how the documents of each source were packed, their text, and a figure of their lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.text import Text

from datamix.builder.open_source import OpenSource
from datamix.builder.texts import packed
from datamix.errors import printable
from datamix.mixing.plan import Plan
from datamix.report.console import Console, percent
from datamix.report.figures import canvas, color_of, save
from datamix.spec import Batch

COLUMNS = ["source", "documents", "split", "left out", "its tokens", "padding", "tokens", "share of tokens", "epochs"]
_SEGMENTS, _CHARACTERS = 4, 240  # shown of a record, and of each segment


def rows(sources: Mapping[str, OpenSource], plan: Plan, records: int | None) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` for each source of tokens in a mix of so many records; None for a mix that never ends."""
    records = records if plan.can_count(records) else None
    in_mix = plan.tokens([0] * len(sources) if records is None else plan.counts(records))
    if in_mix is None:
        return []
    in_source = [0 if source.num_tokens is None else int(source.num_tokens.sum()) for source in sources.values()]
    amounts = [float(tokens) for tokens in in_mix]
    if records is None:  # from the shares in the long run, and the mean tokens of a record
        means = [
            tokens / max(source.num_records, 1) for tokens, source in zip(in_source, sources.values(), strict=True)
        ]
        by_tokens = plan.lengths is not None
        amounts = [plan.long_run_share(i) * (1 if by_tokens else mean) for i, mean in enumerate(means)]
    table: list[tuple[str, ...]] = []
    for name, source in packed(sources).items():
        i, facts = list(sources).index(name), source.facts
        left_out = f"{facts.dropped:,}" + (f" ({facts.lost:,} tokens)" if facts.lost else "")
        epochs = f"{in_mix[i] / max(in_source[i], 1):.2f}"
        numbers = ("∞", "∞") if records is None else (f"{in_mix[i]:,}", epochs)
        share = percent(amounts[i] / (sum(amounts) or 1))
        row = (f"{facts.documents:,}", f"{facts.split:,}", left_out, f"{in_source[i]:,}", percent(facts.padding))
        table.append((name, *row, numbers[0], share, numbers[1]))
    return table


def documents(out: Console, sources: Mapping[str, OpenSource], batches: Sequence[Batch]) -> Iterator[Text]:
    """The lines that show the first documents of each source in some batches, in the colour of the source."""
    names = list(sources)
    for name, source in packed(sources).items():
        row = next((row for batch in batches for row in _rows_of(batch, names.index(name))), None)
        if row is None:
            continue
        color, num_documents = color_of(names.index(name)), int(row["segment_ids"].max())
        shown = min(num_documents, _SEGMENTS)
        which = f"{f'the first {shown} of ' if shown < num_documents else ''}{num_documents}"
        tokens = f"{int((row['segment_ids'] > 0).sum()):,} tokens"
        yield Text(
            f"{printable(name)}: a record of {tokens}, {which} document{'s' * (num_documents > 1)}", f"bold {color}"
        )
        for segment in range(1, shown + 1):
            text = source.decode(row["tokens"][row["segment_ids"] == segment])
            text = printable(" ".join(text[:_CHARACTERS].split())) + ("…" if len(text) > _CHARACTERS else "")
            for i, line in enumerate(Text(text).wrap(out, max(out.width - 6, 20)) or [Text()]):
                line.rstrip()
                yield Text.assemble((f"{'' if i else segment:>3} │ ", f"bold {color}"), line)


def _rows_of(batch: Batch, source: int) -> Iterator[Mapping[str, np.ndarray]]:
    if "tokens" in batch and batch["tokens"].ndim == 2:
        for row in np.flatnonzero(batch["source_id"] == source):
            segments = batch["segment_ids"][row] if "segment_ids" in batch else np.ones_like(batch["tokens"][row])
            yield {"tokens": batch["tokens"][row], "segment_ids": segments}


def draw(directory: Path, sources: Mapping[str, OpenSource]) -> str | None:
    """Draw the tokens of each source and the lengths of its documents.

    Returns:
      The name of the file; None if there are no sources of tokens.
    """
    if not (shown := packed(sources)):
        return None
    from matplotlib.ticker import EngFormatter, NullFormatter

    figure = canvas(9, 1.8 + 0.25 * len(shown))
    amounts, lengths = figure.subplots(1, 2)
    ends = [np.concatenate([np.diff(file.ends, prepend=0) for file in source.files]) for source in shown.values()]
    sizes = np.concatenate(ends)
    bins = np.geomspace(max(sizes.min(initial=1), 1), sizes.max(initial=1) + 1, 40)
    for (name, source), each in zip(shown.items(), ends, strict=True):
        color = color_of(list(sources).index(name))
        amounts.barh(name, source.facts.tokens, color=color)
        lengths.hist(each, bins, weights=each / max(each.sum(), 1), histtype="step", color=color, label=name)
    amounts.invert_yaxis()
    amounts.set(xlabel="tokens")
    lengths.axvline(next(iter(shown.values())).length, color="gray", linestyle="--", linewidth=1, label="a record")
    lengths.set(xscale="log", xlabel="tokens of a document", ylabel="share of the tokens")
    lengths.legend(fontsize=8)
    lengths.xaxis.set_minor_formatter(NullFormatter())
    for axis in (amounts, lengths):
        axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
    save(figure, directory / "tokens.png")
    return "tokens.png"
