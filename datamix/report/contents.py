"""The contents of `report.json`, the same for every job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datamix.builder.built import Built
from datamix.mixing.groups import groups_of
from datamix.mixing.plan import Plan
from datamix.sources.statistics import Statistics
from datamix.spec import Spec

if TYPE_CHECKING:
    from datamix.pipeline.pipeline import Pipeline


def report_of_whole_mix(built: Built, spec: Spec, statistics: Statistics | None = None) -> dict[str, Any]:
    """The report on everything that a mix will hand out; records that are dropped at the end do not count."""
    plan, records = built.plan, built.num_records()
    counts: dict[str, int | None] = dict.fromkeys(plan.names)
    if records is not None and plan.can_count(records):
        counts.update(zip(plan.names, plan.counts(records), strict=True))
    seen: Any = {"batches": built.num_batches(), "counts": counts, "records": records}
    return report_of(built, plan, spec, fingerprint=built.fingerprint(), statistics=statistics, **seen)


def report_of_pipeline(built: Built, pipeline: Pipeline, **seen: Any) -> dict[str, Any]:
    """The report on those batches of a pipeline that a job has read; see `report_of`."""
    seen |= {"fingerprint": pipeline.fingerprint, "statistics": pipeline.statistics}
    return report_of(built, pipeline.plan, pipeline.spec, **seen)


def report_of(
    built: Built,
    plan: Plan,
    spec: Spec,
    *,
    fingerprint: str,
    batches: int | None,
    counts: Mapping[str, int | None],
    records: int | None,
    labels: Mapping[str, tuple[int, int]] | None = None,
    samples_per_s: float | None = None,
    figure: str | None = None,
    statistics: Statistics | None = None,
) -> dict[str, Any]:
    """Put a report together.

    Args:
      built: The mix.
      plan: The plan of the mix.
      spec: The shape and dtype of each leaf of a finished record.
      fingerprint: The fingerprint of the mix.
      batches: The number of batches that the report is about; None if the mix never ends.
      counts: The number of records of each source in them; None if the mix never ends, or they cannot be counted.
      records: The number of records in all of them; None if the mix never ends.
      labels: The smallest and the largest label of each source in them.
      samples_per_s: How many records per second were read.
      figure: The name of the file with the figure.
      statistics: The statistics of the leaves of each source, if its records were read.
    """
    amounts: dict[str, float | None] = dict(counts)
    is_counted = None not in counts.values()
    if plan.lengths is not None and records is not None and is_counted:
        amounts = dict(zip(plan.names, plan.amounts(records), strict=True))
    tokens = plan.tokens([counts[name] or 0 for name in plan.names]) if is_counted else None
    whole, targets = sum(amount or 0 for amount in amounts.values()), plan.targets_until(records)
    sources = {
        name: {
            "source_id": i,
            "provenance": source.provenance,
            "placement": built.placements[name],
            "records": source.num_records,
            "samples": counts[name],
            "share": (amounts[name] or 0) / max(whole, 1) if is_counted else plan.long_run_share(i),
            "tokens": None if tokens is None or source.num_tokens is None else tokens[i],
            "target": float(targets[i]),
            "epochs": None if (count := counts[name]) is None else count / max(plan.epoch_records[i], 1),
            "labels": list(labels[name]) if labels and name in labels else None,
            "unlabelled": _num_unlabelled(built, name, statistics or {}),
            "leaves": {leaf: each.report() for leaf, each in statistics[name].items()} if statistics else None,
        }
        for i, (name, source) in enumerate(built.sources.items())
    }
    groups = {path: [sources[plan.names[i]] for i in members] for path, members in groups_of(plan.names).items()}
    return {
        "job": built.config.job,
        "seed": built.seed,
        "batches": batches,
        "samples": records,
        "max_deviation": plan.max_deviation(records)[0],
        "fingerprint": fingerprint,
        "figure": figure,
        "samples_per_s": samples_per_s,
        "batch": {leaf: {"shape": [built.batch_size, *part.shape], "dtype": part.dtype} for leaf, part in spec.items()},
        "unit": built.config.mix.unit,
        "notes": [*plan.drawn(), *built.notes_on_records()],
        "sources": sources,
        "groups": {
            path: {
                "samples": sum(row["samples"] for row in members) if is_counted else None,
                "share": sum(row["share"] for row in members),
                "target": sum(row["target"] for row in members),
            }
            for path, members in groups.items()
        },
    }


def _num_unlabelled(built: Built, name: str, statistics: Statistics) -> int | None:
    """The number of records of a source without a class; None if labels are not classes, or were not all read."""
    if name not in built.labels.num_classes or "label" not in statistics.get(name, {}):
        return None
    label, source = statistics[name]["label"], built.sources[name]
    if label.sampled:
        return 0 if source.unlabelled == "refuse" else None  # if they are refused, none is handed out
    return label.num_unlabelled(source.num_records)
