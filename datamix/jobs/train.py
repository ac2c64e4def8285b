"""Train a model on a mix, and test it on the test split of each source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from datamix.config.schema import Config
from datamix.errors import DatamixError
from datamix.report import curves
from datamix.report.console import console_of, per_s, percent, print_notes, table
from datamix.report.contents import report_of_pipeline
from datamix.report.files import write_report
from datamix.report.progress import progress
from datamix.training.predictions import NAME, write_predictions
from datamix.training.processes import is_first, together
from datamix.training.runs import Run, fit, prepare
from datamix.training.weight_history import counts as records_of
from datamix.training.weight_history import deviation, summary, write_schedule


def run(config: Config, directory: Path, trained: Run | DatamixError | None = None) -> dict[str, Any]:
    """Train and test a model.

    Args:
      config: The checked configuration.
      directory: The directory of the job.
      trained: The run that a launcher has trained together with others, or the error that kept it from starting; None
        to train here.

    Returns:
      The report; empty in processes other than the first. Its `metrics` are those of the task for each source, their
      mean and the worst; its `confusion` is the share of each source's test records that are classified as a class of
      each source, null if sources share classes or there are none.

    Raises:
      DatamixError: The run could not start, or ended early.
    """
    with together():
        job = prepare(config, directory) if trained is None else trained
        if isinstance(job, DatamixError):
            raise job
    out = console_of(job.data.built.notes)
    print_notes(out, "Note", _notes(job))
    print_notes(out, "Resume" if job.settings.resume else "Note", [job.note] if job.note else [])
    begin(out, job)
    if not job.ended:
        with progress(out, job.steps, job.step) as advance:
            fit([job], lambda _: advance(job.step, _line(job)))
    with together():
        if job.error is not None:
            raise job.error
    return end(out, job) if is_first() else {}


def begin(out: Console, job: Run) -> None:
    """Print which model is trained on which mix."""
    settings = job.settings
    parts = []
    for name, share, asked, differs in _shares(job, job.steps):
        begins_with = asked if job.learner.adapt else share
        parts.append(f"{name} {percent(begins_with)}" + (f" ({percent(asked)} asked for)" if differs else ""))
    mix = ", ".join(parts)
    model = f"{settings.model} ({job.learner.num_parameters():,} parameters, {job.data.task.says})"
    steps = f"{job.steps:,} steps of {job.config.batch_size}"
    devices = "" if job.mesh is None else f", by {job.mesh.size} devices"
    adapt = f", then as adapt={job.learner.adapt.rule} says" if job.learner.adapt else ""
    doing = "Trained" if job.step == job.steps else "Training"
    out.print(f"{doing} {model} with {settings.optimizer} for {steps} on {mix}{adapt}{devices}")


def end(out: Console, job: Run) -> dict[str, Any]:
    """Print and write the results of a finished run; returns its report."""
    built, settings = job.data.built, job.settings
    names = list(built.sources)
    last = dict(job.metrics.lines[-1])
    step, loss = int(last.pop("step")), last.pop("loss")
    untrained, families, confusion = _untrained(job), _families(job), None
    if job.data.disjoint_classes and job.scores is not None:
        parts = np.asarray(job.scores["taken_for"], float) / np.asarray(job.scores["num_records"], float)[:, None]
        confusion = {name: dict(zip(names, row, strict=True)) for name, row in zip(names, parts.tolist(), strict=True)}
    size, counts = job.config.batch_size, _counts(job, step)
    shares = _shares(job, step)
    with_targets = any(each.differs for each in shares)
    rows = [
        (
            name,
            *([percent(shares[i].asked)] if with_targets else []),
            "not trained on" if name in untrained else percent(shares[i].share),
            f"{job.data.num_test_records[name]:,}",
            *(_shown(last.get(f"{each}/{name}"), each) for each in families),
            *([percent(share) for share in confusion[name].values()] if confusion else []),
        )
        for i, name in enumerate(names)
    ]
    columns = ["source", *(["target share"] if with_targets else []), "share", "test records"]
    columns += [each.replace("_", " ") for each in families]
    columns += [f"taken for {name}" for name in names] if confusion else []
    out.print(table(f"On each source's test records after {step:,} steps{built.caution}", columns, rows))
    judged = families[0]
    mean, worst = (_shown(last[f"{judged}/{each}"], judged) for each in ("mean", "worst"))
    steps_per_s = job.steps_done / max(job.seconds, 1e-9)
    head = judged.replace("_", " ").capitalize()
    speed = f"; {per_s(steps_per_s)}, compiling and tests included" if job.steps_done else ""
    out.print(f"{head}: mean {mean}, worst source {worst}{speed}")
    title, unit = f"{settings.model} on {' + '.join(names)}{built.caution}", job.data.task.loss_unit
    adapt = None if job.learner.adapt is None else summary(job.learner.adapt.rule, names, job.adapted)
    untrained_line = [] if job.metrics.untrained is None else [job.metrics.untrained]
    drawn: Any = {"tests": [*untrained_line, *job.metrics.lines], "losses": job.metrics.losses}
    drawn |= {"unit": unit, "family": judged}
    figure = "curves.png" if settings.curves else None
    if figure is not None:
        curves.draw(job.directory / figure, names, title, adapt=adapt, **drawn)
    report = report_of_pipeline(
        built,
        job.data.pipeline,
        batches=step,
        counts=dict(zip(names, counts, strict=True)),
        records=step * size,
        samples_per_s=steps_per_s * size,
        figure=figure,
    )
    if job.learner.adapt is not None:
        mixed = [each.asked for each in shares] if job.learner.adapt.weighs_loss else None
        report |= {"adapt": adapt, "max_deviation": deviation(job.adapted, mixed)}
        for name, source in report["sources"].items() if mixed is None else ():
            source["target"] = report["adapt"]["mean"][name]
    for name, source in report["sources"].items():
        source["trained_on"] = name not in untrained
    report |= {
        "notes": _notes(job),
        "curves": drawn,
        "changed": list(job.data.pipeline.history),
        "samples": sum(job.data.pipeline.totals(step).records),
        "metrics": last,
        "confusion": confusion,
        "train_loss": loss,
        "test_records": job.data.num_test_records,
        "model": {"name": settings.model, **settings.model_settings},
        "parameters": job.learner.num_parameters(),
        "optimizer": {
            "name": settings.optimizer,
            "learning_rate": settings.learning_rate,
            "schedule": {"name": settings.schedule, **settings.schedule_settings},
            **settings.optimizer_settings,
        },
        "train": {
            "steps": job.steps,
            "eval_every": settings.eval_every,
            "batch_size": size,
            "devices": 1 if job.mesh is None else job.mesh.size,
        },
        "seconds": job.seconds,
    }
    if settings.keep_predictions:
        write_predictions(job)
    # Files that an earlier run left in the directory do not belong to this one.
    for name in [NAME] * (not settings.keep_predictions) + ["curves.png"] * (figure is None):
        (job.directory / name).unlink(missing_ok=True)
    if job.config.adapt is not None and job.config.adapt.export is not None:
        path = write_schedule(job.directory, job.config.adapt.export, names, job.adapted, job.steps)
        out.print(f"Schedule: {path}; to mix the same: --config-dir {job.directory} mix={path.stem}")
    elsewhere = "not drawn; train.curves=true draws curves.png, and the page of a sweep has those of its jobs"
    where = job.directory / figure if figure else elsewhere
    out.print(f"Curves: {where}\nReport: {write_report(job.directory, report)}")
    return report


def _untrained(job: Run) -> list[str]:
    """The sources that give no record in any step of a run."""
    counts = _counts(job, job.steps)
    return [name for name, count in zip(job.data.pipeline.source_names, counts, strict=True) if not count]


def _counts(job: Run, step: int) -> list[int]:
    """The number of records of each source before a step.

    Where weights follow training, it is that of all steps done so far, and 1 before the first.
    """
    if job.learner.adapt is not None:
        return records_of(job.adapted) if job.adapted else [1] * len(job.data.pipeline.source_names)
    return job.data.pipeline.totals(step).records


class _Share(NamedTuple):
    """The actual share of a source, its target share, and whether these differ by more than rounding."""

    name: str
    share: float
    asked: float
    differs: bool


def _shares(job: Run, step: int) -> list[_Share]:
    """The shares of the sources before a step; where weights follow training, the target is the initial share."""
    plan, position = job.data.pipeline.plan, step * job.config.batch_size
    targets, counts = map(float, plan.targets_until(position)), _counts(job, step)
    amounts = counts if plan.lengths is None else plan.amounts(position)
    shares = []
    for name, amount, asked in zip(plan.names, amounts, targets, strict=True):
        share = amount / max(sum(amounts), 1)
        rounding = max(2 * plan.slot_records / position, asked / 100)
        shares.append(_Share(name, share, asked, job.learner.adapt is None and abs(share - asked) > rounding))
    return shares


def _notes(job: Run) -> list[str]:
    plan = job.data.pipeline.plan
    untrained = [
        f"source {name!r} is not trained on, as it gives no record, but tested"
        + ("." if plan.has_share(plan.names.index(name)) else "; to drop it, leave it out of source=.")
        for name in _untrained(job)
    ]
    step, adapt = job.steps, job.learner.adapt
    gone_through = plan.unforeseen(step * job.config.batch_size, _counts(job, step) if adapt else ())
    repeated = [
        f"source {name!r} is gone through {epochs:.1f} times; "
        f"{'adapt.max_epochs' if adapt else f'mix.max_epochs.{name}'} says how often it may be."
        for name, epochs in gone_through.items()
        if adapt is None or adapt.max_epochs is None
    ]
    unseen = job.data.built.plan.unseen() if untrained else []
    capped = plan.capped(step * job.config.batch_size)
    return [*(note for note in job.data.notes if note not in unseen), *untrained, *capped, *repeated]


def _line(job: Run) -> str:
    if job.metrics.loss is None:  # the loss became NaN or infinite before the first line
        return ""
    loss = f"loss {job.metrics.loss:.4f}"
    if not job.metrics.lines:
        return loss
    last = job.metrics.lines[-1]
    names = job.data.pipeline.source_names
    family = _families(job)[0]
    values = ", ".join(f"{name} {_shown(last.get(f'{family}/{name}'), family)}" for name in names)
    return f"{loss}, {family.replace('_', ' ')} {values}"


def _families(job: Run) -> list[str]:
    """The families of metrics; the one that judges the task comes first, and the loss last."""
    families = dict.fromkeys(name.partition("/")[0] for name in job.metrics.lines[-1] if "/" in name)
    return sorted(families, key=lambda each: (each != job.data.task.judged_by, each == "loss"))


def _shown(value: float | None, family: str) -> str:
    if value is None:  # only other sources have this metric
        return "none"
    return percent(value) if family == "accuracy" else f"{value:.4f}"
