"""Train a classifier on a mix, and test it on every source's own test split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from datamix.config.schema import Config
from datamix.errors import DatamixError
from datamix.report import curves
from datamix.report.console import console, percent, print_notes, table
from datamix.report.contents import report_of
from datamix.report.files import write_report
from datamix.report.progress import progress
from datamix.training.runs import Run, fit, prepare, prepare_all


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Train and test a model.

    Args:
      config: of the run.
      directory: where `metrics.jsonl`, `curves.png` and `report.json` go.

    Returns:
      The report, with `metrics`: accuracy and mean loss of each source by name, their means and the worst accuracy;
      `confusion`: share of a source's test records taken for a class of each source, null where sources share classes.
    """
    out = console()
    job = _ahead.pop(directory.absolute(), None) or prepare(config, directory)
    if isinstance(job, DatamixError):
        raise job
    print_notes(out, "Stand-in", job.data.built.notes)
    print_notes(out, "Resume", [job.note] if job.note else [])
    begin(out, job)
    if not job.ended:
        with progress(out, job.steps, job.step) as advance:
            fit([job], lambda _: advance(job.step, _line(job)))
    if job.error is not None:
        raise job.error
    return end(out, job)


_ahead: dict[Path, Run | DatamixError] = {}


def train_ahead(jobs: Sequence[tuple[Config, Path]], how: str = "auto") -> None:
    """Train several jobs, in one program those that differ in weights, seeds and learning rate alone.

    What comes of it is there for `run`, which then has but to report.

    Args:
      jobs: configuration and directory of each.
      how: "threads", "vmap", or "auto"; see `datamix.training.replicas.execution_of`.
    """
    out = console()
    found = prepare_all(jobs)
    runs = [run for run in found if isinstance(run, Run)]

    def told(group: Sequence[Run]) -> str:
        return f"{len(group)} job{'s' * (len(group) > 1)} in one program, at step {group[0].step:,}"

    try:
        with progress(out, sum(run.steps for run in runs), sum(run.step for run in runs)) as advance:
            fit(runs, lambda group: advance(sum(run.step for run in runs), told(group)), how)
    finally:  # what has not come to its end is begun anew, by itself
        for (_, directory), each in zip(jobs, found, strict=True):
            if isinstance(each, DatamixError) or each.ended:
                _ahead[directory.absolute()] = each


def begin(out: Console, job: Run) -> None:
    """Print what is trained on what."""
    settings, plan = job.settings, job.data.pipeline.plan
    mix = ", ".join(f"{name} {percent(float(share))}" for name, share in zip(plan.names, plan.targets, strict=True))
    out.print(
        f"Training {settings.model} ({job.learner.num_parameters():,} parameters, {job.data.num_classes} classes) with "
        f"{settings.optimizer} for {job.steps:,} steps of {job.config.batch_size} on {mix}"
    )


def end(out: Console, job: Run) -> dict[str, Any]:
    """Print and write the results of a run that is done."""
    built, settings = job.data.built, job.settings
    names = list(built.sources)
    last = dict(job.records.lines[-1])
    step, loss = int(last.pop("step")), last.pop("loss")
    unreal = ", ".join(name for name, source in built.sources.items() if source.provenance == "stand-in")
    caution = f" — built-in stand-ins, not real data: {unreal}" if unreal else ""
    confusion = None
    if job.data.disjoint_classes and job.scores is not None:
        shares = np.asarray(job.scores.taken_for, float) / np.asarray(job.scores.num_records, float)[:, None]
        confusion = {
            name: dict(zip(names, map(float, row), strict=True)) for name, row in zip(names, shares, strict=True)
        }
    rows = [
        (
            name,
            percent(float(built.plan.targets[i])),
            f"{job.data.test_records[name]:,}",
            percent(last[f"accuracy/{name}"]),
            f"{last[f'loss/{name}']:.4f}",
            *([percent(share) for share in confusion[name].values()] if confusion else []),
        )
        for i, name in enumerate(names)
    ]
    columns = [
        "source",
        "share",
        "test records",
        "accuracy",
        "loss",
        *([f"taken for {n}" for n in names] if confusion else []),
    ]
    out.print(table(f"On each source's test records after {step:,} steps{caution}", columns, rows))
    out.print(
        f"Accuracy: mean {percent(last['accuracy/mean'])}, worst source {percent(last['accuracy/worst'])}; "
        f"{job.steps_done / max(job.seconds, 1e-9):,.0f} steps/s, tests included"
    )
    curves.draw(
        job.directory / "curves.png", job.records.lines, names, f"{settings.model} on {' + '.join(names)}{caution}"
    )
    plan, size = job.data.pipeline.plan, job.config.batch_size
    report = report_of(
        built,
        plan,
        job.data.pipeline.spec,
        fingerprint=job.data.pipeline.fingerprint,
        batches=step,
        counts=dict(zip(names, plan.counts(step * size), strict=True)),
        records=step * size,
        samples_per_s=job.steps_done * size / max(job.seconds, 1e-9),
        figure="curves.png",
    )
    report |= {
        "metrics": last,
        "confusion": confusion,
        "train_loss": loss,
        "test_records": job.data.test_records,
        "model": {"name": settings.model, **settings.model_settings},
        "parameters": job.learner.num_parameters(),
        "optimizer": {
            "name": settings.optimizer,
            "learning_rate": settings.learning_rate,
            "schedule": {"name": settings.schedule, **settings.schedule_settings},
            **settings.optimizer_settings,
        },
        "train": {"steps": job.steps, "eval_every": settings.eval_every, "batch_size": size},
        "seconds": job.seconds,
    }
    out.print(f"Curves: {job.directory / 'curves.png'}\nReport: {write_report(job.directory, report)}")
    return report


def _line(job: Run) -> str:
    last = job.records.lines[-1]
    names = job.data.pipeline.source_names
    accuracy = ", ".join(f"{name} {percent(last[f'accuracy/{name}'])}" for name in names)
    return f"loss {last['loss']:.4f}, accuracy {accuracy}"
