"""Prepare each source of a mix, so that later runs start at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datamix.builder.built import Built, build
from datamix.builder.opening import Locations, open_source
from datamix.builder.statistics_cache import KeptStatistics
from datamix.builder.texts import texts
from datamix.builder.views import held_out, of_split
from datamix.config.schema import Config, SourceConfig
from datamix.errors import ConfigError, of_source
from datamix.report.console import console_of, print_notes, table
from datamix.report.contents import report_of_whole_mix
from datamix.report.files import write_report
from datamix.report.progress import counting
from datamix.sources.cache import cache_directory, locked
from datamix.sources.statistics import LeafStatistics
from datamix.sources.text.tokenizers import train_tokenizer
from datamix.spec import bytes_of


def run(
    config: Config,
    directory: Path,
    *,
    parts: int = 1,
    part: int = 0,
    tokenizer: str | None = None,
    vocab_size: int = 8192,
) -> dict[str, Any]:
    """Download, decode, index and tokenise each source and its test split where needed, and complete their statistics.

    Finished work is kept: if the job is interrupted, running it again continues.

    Args:
      parts: The number of jobs that divide the work, each with another `part`.
      part: The number of this job among them, counted from 0.
      tokenizer: The file to write a tokenizer to, which is trained on the text of the mix in its ratio; None for none.
      vocab_size: The number of tokens of that tokenizer.

    Returns:
      The report, with `prepared`: a row for each source and split.

    Raises:
      ConfigError: A setting is wrong, or the cache cannot be written.
    """
    if parts < 1:
        raise ConfigError("it is 1 or more", key="job.parts", value=parts)
    if not 0 <= part < parts:
        raise ConfigError(f"it is 0 or more, and less than job.parts, {parts}", key="job.part", value=part)
    built = build(config)  # report a mistake in the mix before hours of work
    out = console_of(built.notes)
    rows, notes = [], built.notes_on_records()
    if tokenizer is not None:
        trained = train_tokenizer(texts(built), vocab_size=vocab_size, path=tokenizer)
        notes.append(f"{trained} is trained on this mix; source.NAME.tokenizer={trained} of every source takes it.")
    statistics: dict[str, Mapping[str, LeafStatistics]] = {}
    for source in _with_test_splits(built, notes):
        row, source_statistics = _prepare(source, built.locations, part, parts)
        rows.append(row)
        if source_statistics is not None:
            statistics.setdefault(source.name, source_statistics)
        elif parts > 1:
            notes.append(of_source(source.name, "other parts are missing; the last one joins all."))
    if part == 0:
        built = built.completed(all_counts=True)  # this caches the labels that must be read, too
    print_notes(out, "Note", notes)
    columns = ["source", "split", "records", "MB", "seconds", "statistics"]
    cells = [
        (
            row["source"],
            row["split"],
            f"{row['records']:,}",
            f"{row['bytes'] / 1e6:,.1f}",
            f"{row['seconds']:.1f}",
            row["statistics"],
        )
        for row in rows
    ]
    out.print(table("Prepared", columns, cells))
    report = report_of_whole_mix(built, built.spec(), statistics if len(statistics) == len(built.sources) else None)
    report |= {"notes": notes, "prepared": rows, "cache": str(cache_directory(config.cache_dir))}
    out.print(f"Cache: {report['cache']}\nReport: {write_report(directory, report)}")
    return report


def _with_test_splits(built: Built, notes: list[str]) -> Iterator[SourceConfig]:
    """Each source of a mix, and after it the split that a model is tested on; notes say where there is none."""
    for source in built.config.sources:
        yield source
        try:
            held_out(source, built.locations)
        except ConfigError as error:
            notes.append(f"no test records are prepared: {error}")
        else:
            tests = of_split(source)
            if tests.settings.get("split") != source.settings.get("split"):
                yield tests


def _prepare(
    config: SourceConfig, locations: Locations, part: int, parts: int
) -> tuple[dict[str, Any], Mapping[str, LeafStatistics] | None]:
    """Prepare one source; returns its row, and its statistics, or None while other parts are missing."""
    begun = time.perf_counter()
    source = open_source(config, locations)
    split = config.settings.get("split") or "train"
    label = f"{config.name} {split}"
    kept = KeptStatistics(config, source.source, source.num_records, locations.cache_dir)
    try:
        how = "were kept" if source.statistics() else "are kept now"
        if (prepare := getattr(source.source, "prepare", None)) is not None:
            with locked(kept.path), counting(f"Preparing {label}") as progress:
                prepare(progress)
        if source.statistics() is None:
            with counting(f"Statistics of {label}") as progress:
                if kept.complete(progress, part=part, parts=parts) is None:
                    how = f"part {part} of {parts}"
    except OSError as error:
        if not str(error.filename or "").startswith(str(kept.path.parent)):
            raise
        text = f"{error.filename} cannot be written: {error.strerror}"
        raise ConfigError(text, key="data.cache", value=str(kept.path.parent)) from error
    statistics = source.statistics()
    row = {
        "source": config.name,
        "split": split,
        "records": source.num_records,
        "bytes": source.num_records * bytes_of(source.spec),
        "seconds": time.perf_counter() - begun,
        "statistics": how,
    }
    return row, statistics
