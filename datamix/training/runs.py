"""Training runs: train a model from a configuration, or several models in one program."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from datamix import interruption, registry
from datamix.config.schema import Config, TrainConfig
from datamix.errors import ConfigError, DataError, DatamixError, StateError
from datamix.fingerprint import changes, digest, in_words, records_key, shortened
from datamix.mixing.totals import Totals, source_metrics
from datamix.pipeline.adapt import Adapt
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lowering import stored_spec
from datamix.pipeline.readers.fed import failures_named
from datamix.rng.hash import key_for
from datamix.rng.keys import key_of
from datamix.spec import bytes_of
from datamix.training.checkpoints import Checkpoints
from datamix.training.data import Data, open_data
from datamix.training.learner import Learner, Trail, TrainState, first_state
from datamix.training.metrics import MetricsFile
from datamix.training.optimizers import rate_of, rates
from datamix.training.parallel import Parallel, mesh_of
from datamix.training.processes import agreed, check_alike, has_joined
from datamix.training.replicas import Replicas, execution_of, same_program
from datamix.training.tasks.base import Sums
from datamix.training.tasks.regression import Regression
from datamix.training.weight_history import check_export
from datamix.training.weight_history import counts as records_of


@dataclass(kw_only=True)
class Run:
    """One job that trains a model.

    Attributes:
      config: The configuration of the job.
      settings: Its settings of training, `config.train`.
      directory: The directory of the job.
      data: The records to train and test on.
      learner: The model and the optimiser.
      rates: The learning rate of each step, float32 [steps].
      step: The number of steps done.
      cursor: The cursor of the batch to begin with.
      state: The state to begin with, or that of the last checkpoint.
      checkpoints: The checkpoints of the run.
      metrics: The metrics file of the run.
      note: A sentence that the run continues, starts afresh or replaces another; empty if there is none.
      scores: The sums of the task's scores in the test after `step`; None if there was no test.
      error: The error that ended the run early.
      seconds: The time spent on steps and tests; the share of this run if several are trained together.
      steps_done: The number of steps in that time.
      adapted: The first step of each window to the weights, in parts of `TOTAL`, and the number of records of each
        source in the window; empty if the weights do not follow training.
      mesh: The devices that train the run together; None for one device.
    """

    config: Config
    settings: TrainConfig
    directory: Path
    data: Data
    learner: Learner
    rates: np.ndarray
    step: int
    cursor: Cursor
    state: TrainState
    checkpoints: Checkpoints
    metrics: MetricsFile = field(init=False)
    note: str = ""
    scores: Sums | None = None
    error: DatamixError | None = None
    seconds: float = 0.0
    steps_done: int = 0
    adapted: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    mesh: Mesh | None = None

    @property
    def steps(self) -> int:
        """The total number of steps, including those that are left out."""
        return len(self.rates)

    @property
    def ended(self) -> bool:
        """Whether the run has failed, or is trained and tested."""
        return self.error is not None or (self.step == self.steps and self.scores is not None)


def prepare(
    config: Config, directory: Path, like: Data | None = None, first_states: dict[object, TrainState] | None = None
) -> Run:
    """Prepare a run for its first step, or for the step after its last checkpoint.

    It removes the checkpoints of an earlier run unless it resumes, and starts the metrics file.

    Args:
      config: The configuration of a job that trains.
      directory: The directory of the job.
      like: The data of a run that only differs in weights, seeds and training, to be shared; None to read them.
      first_states: The initial states of runs that are prepared together, by learner and key, to be shared; it is
        added to.

    Raises:
      DatamixError: A setting is wrong, the data cannot be trained on, or the checkpoint cannot be resumed.
    """
    settings = config.train
    if settings is None:
        needed = "it needs the groups model and optimizer and the keys of train, as job/train.yaml has"
        raise ConfigError(needed, key="job", value="train")
    mesh = mesh_of(config.batch_size, settings.devices)
    data = open_data(config, like)
    schedule = registry.lookup("schedule", settings.schedule)
    steps = _steps(settings, data)
    if config.adapt is not None and data.pipeline.adapt is not None:
        check_export(config.adapt.export, data.pipeline.adapt, data.pipeline.source_names)
    if not data.pipeline.batching.kept_runs(0, steps):
        raise ConfigError(f"it leaves out all of the run's {steps:,} steps", key="skip", value=config.skip)
    if settings.keep_predictions and isinstance(data.task, Regression):
        raise ConfigError("a regression gives numbers, not probabilities", key="train.keep_predictions", value=True)
    learner = Learner.of(settings, data.task, data.pipeline.adapt)
    learner.check(data.pipeline.spec)
    if learner.adapt is not None:
        learner.adapt.check_steps(steps, data.pipeline.plan.epoch_records)
    key, moments = key_for(config.seed, "train", settings.model), data.moments()
    states = {} if first_states is None or moments else first_states  # moments depend on the mix
    if (state := states.get((learner, key))) is None:
        state = states[learner, key] = first_state(learner, key_of(key), moments)
    run = Run(
        config=config,
        settings=settings,
        directory=directory,
        data=data,
        learner=learner,
        rates=rates(schedule(steps, **settings.schedule_settings), settings.learning_rate, steps),
        step=0,
        cursor=data.pipeline.start(),
        state=state._replace(adapt=data.pipeline.adapted()),
        checkpoints=Checkpoints(directory),
        mesh=mesh,
    )
    facts: dict[str, Any] = {}
    if settings.resume:
        facts = _resume(run)
    else:
        if (last := run.checkpoints.last()) is not None:
            text = f"the checkpoints of an earlier run, up to step {last:,}, are removed"
            run.note = f"{text}; train.resume=true would have gone on from them."
        run.checkpoints.clear()
    run.metrics = MetricsFile(directory, facts.get("lines", ()), run.step, facts.get("losses", ()))
    run.metrics.untrained = facts.get("untrained")
    if has_joined():
        mix = data.pipeline.state(steps)
        check_alike(mix["settings"] | _identity(run) | mix["fingerprint"])
    return run


def prepare_all(jobs: Sequence[tuple[Config, Path]]) -> list[Run | DatamixError]:
    """Prepare several jobs, which share equal data; the result of a job that cannot start is its error."""
    runs: list[Run | DatamixError] = []
    first_states: dict[object, TrainState] = {}
    for config, directory in jobs:
        like = next((run.data for run in runs if isinstance(run, Run) and same_data(run.config, config)), None)
        try:
            runs.append(prepare(config, directory, like, first_states))
        except DatamixError as error:
            runs.append(error)
    return runs


def same_data(first: Config, other: Config) -> bool:
    """Whether two jobs differ only in weights, seeds and training."""

    def kept(config: Config) -> Config:
        mix = replace(config.mix, ratio=None, weights={}, share={})
        sources = tuple(replace(source, seed=None) for source in config.sources)
        return replace(config, seed=0, mix=mix, sources=sources, adapt=None, train=None)

    return kept(first) == kept(other)


def _steps(settings: TrainConfig, data: Data) -> int:
    length, size = data.pipeline.plan.length, data.pipeline.batch_size
    whole = None if length is None else length // size
    wanted = settings.steps if settings.tokens is None else None
    refusal = data.pipeline.plan.refusal()
    if wanted is None and (whole is None or refusal):
        text = "the whole mix never ends; set train.steps, or another stop than forever"
        raise ConfigError(text, key="train.steps", value=None)
    if whole is not None and (wanted or 0) > whole:
        if refusal:
            raise refusal
        text = f"it is more than the {whole} whole batches of the mix"
        mend = f"Make it {whole} or less, or set stop=forever."
        raise ConfigError(text, key="train.steps", value=settings.steps, hint=mend)
    return wanted or whole or 0


def _resume(run: Run) -> dict[str, Any]:
    """Continue from the last checkpoint if there is one; returns its facts, with steps of the present batch size."""
    step = run.checkpoints.last()
    if step is None:
        run.note = f"train.resume: there is no checkpoint in {run.checkpoints.path}; the run starts afresh."
        return {}
    facts = run.checkpoints.facts(step)
    path, on_purpose = run.checkpoints.path / str(step), run.settings.resume == "changed"
    identity = _identity(run)
    changed = changes(facts["identity"], identity)
    # Test records must only agree for sources that the checkpoint and this run both have.
    tested = {f"source.{name}.test_split" for name in facts["mix"]["counts"]} & set(identity)
    firm = [key for key in changed if not key.endswith(".test_split") or key in tested]
    if on_purpose:
        firm = [key for key in firm if key not in _MAY_CHANGE]
    if firm:
        may = "" if on_purpose or set(firm) - set(_MAY_CHANGE) else "go on on purpose with train.resume=changed, "
        text = f"{path} was taken under another configuration: {in_words({key: changed[key] for key in firm})}"
        raise StateError(f"{text}; resume it under the same, {may}or start afresh without train.resume", key=_RESUME)
    try:
        pipeline, run.step = run.data.pipeline.restored(facts["mix"], "mix" if on_purpose else None)
    except StateError as error:
        raise StateError(f"{path}: {error}", key=_RESUME) from error
    if run.step > run.steps:
        text = f"the run in {run.checkpoints.path.parent} has done {run.step:,} steps already"
        raise StateError(text, key="train.steps", value=run.steps, hint="Make it more, or start afresh.")
    on = {key: changed[key] for key in changed if key in _MAY_CHANGE}
    if len(pipeline.history) > len(facts["mix"]["history"]):
        on |= pipeline.history[-1]["changes"]
    run.data = replace(run.data, pipeline=pipeline)
    run.state = run.checkpoints.state(step, run.state)
    run.cursor = pipeline.start(run.step) if run.state.adapt is None else run.state.adapt[1]
    run.adapted = {int(window): tuple(values) for window, values in facts.get("adapted", {}).items()}
    run.note = f"train.resume: the run goes on after step {run.step:,} of {run.steps:,}."
    if run.step == run.steps:
        raised = "train.steps" if run.settings.tokens is None else "train.tokens"
        if run.settings.tokens is None and run.data.pipeline.plan.length is not None:
            raised = "train.steps, with stop=forever where the mix has no more batches,"
        text = f"all {run.steps:,} steps are trained, and nothing is left to train"
        run.note = f"train.resume: {text}; raise {raised} to go on."
    if on:
        run.note = f"{run.note[:-1]} under what was changed: {in_words(on)}."
    else:
        run.note += _rising_again(run)
    # Under another batch size, the same records have other steps.
    lines, now = facts["lines"], Fraction(run.step, max(step, 1))
    losses = facts.get("losses") or [(line["step"], line["loss"]) for line in lines]  # earlier versions kept no losses
    facts["lines"] = [{**line, "step": round(line["step"] * now)} for line in lines]
    facts["losses"] = [(math.ceil(before * now), loss) for before, loss in losses]
    return facts


def _rising_again(run: Run) -> str:
    """A blank and a sentence if the schedule, over another number of steps, raises the rate again; otherwise empty."""
    trained = run.data.pipeline.batching.kept_runs(0, run.step)
    if not trained or run.step == run.steps:
        return ""
    before, now = rate_of(run.state.optimizer), float(run.rates[run.step])
    # The schedule must be higher at the last trained step, too: otherwise the rate just rises in it, as in a warmup.
    if min(now, run.rates[trained[-1][1] - 1]) <= 1.01 * before:
        return ""
    return (
        f" The learning rate rises from {before:.3g} to {now:.3g}, as optimizer.schedule is of {run.steps:,} steps now."
    )


_RESUME = "train.resume"
# Settings that only affect later steps, and do not change the structure of the state.
_MAY_CHANGE = ("optimizer.learning_rate", "optimizer.schedule", "mix.loss_weight")


def _identity(run: Run) -> dict[str, Any]:
    """The settings that determine a run apart from its mix and its length, by key."""
    settings, held_out = run.settings, run.data.test_pipeline
    parts = held_out.parts(held_out.plan.length or 0)
    of_source = {
        f"source.{name}.test_split": f"#{digest([parts.get(f'source.{name}'), parts.get(records_key(name))])}"
        for name in held_out.source_names
    }
    return shortened({
        "model": [settings.model, dict(settings.model_settings)],
        "parameters": run.learner.num_parameters(),
        "optimizer": [settings.optimizer, dict(settings.optimizer_settings)],
        "optimizer.learning_rate": settings.learning_rate,
        "optimizer.schedule": [settings.schedule, dict(settings.schedule_settings)],
        **({"mix.loss_weight": [weight]} if (weight := run.config.mix.loss_weight) else {}),
    }) | of_source  # fmt: skip


def _save(run: Run) -> None:
    mix, adapted = run.data.pipeline.state(run.step), {"adapted": run.adapted} if run.adapted else {}
    lines = {"lines": run.metrics.lines, "losses": run.metrics.losses, "untrained": run.metrics.untrained}
    facts = {"mix": mix, "identity": _identity(run), **lines, **adapted}
    run.checkpoints.save(run.step, run.state, facts)


def fit(runs: Sequence[Run], tell: Callable[[Sequence[Run]], None], how: str = "auto") -> None:
    """Train runs to their end, in one program where possible.

    Args:
      runs: The runs, which are changed in place; a run whose loss becomes NaN or infinite gets an `error`.
      tell: The function that is called after each line of metrics, with the runs that are trained together.
      how: The way to train several runs: "auto", "threads" or "vmap"; see `execution_of`.

    Raises:
      KeyboardInterrupt: SIGINT has arrived; what was trained is saved.
      SystemExit: Another signal has arrived, or any signal in another process; what was trained is saved.
    """
    groups: list[list[Run]] = []
    for run in runs:
        alike = next((group for group in groups if _alike(group[0], run)), None)
        groups.append([run]) if alike is None else alike.append(run)
    with interruption.waiting():  # so that a signal comes after the next checkpoint
        for group in groups:
            _fit(group, tell, how)


def _alike(first: Run, other: Run) -> bool:
    """Whether two runs can be trained in one program."""
    mine, theirs = first.data, other.data
    return (
        (first.learner, first.step, first.steps, mine.test_pipeline, mine.pipeline.batching.skip)
        == (other.learner, other.step, other.steps, theirs.test_pipeline, theirs.pipeline.batching.skip)
        and _every(first) == _every(other)
        and same_program(mine.pipeline.compiled, theirs.pipeline.compiled)
    )


def _fit(runs: Sequence[Run], tell: Callable[[Sequence[Run]], None], how: str) -> None:
    """Train runs in one program."""
    first, replicas = runs[0], _replicas(runs, how)
    all_rates, replica_step = np.stack([run.rates for run in runs]), first.step
    if first.step == 0 < first.steps:
        _test_untrained(runs, replicas)
    while True:
        begun, before, step = time.perf_counter(), first.step, _next_line(first)
        steps, trained = first.data.pipeline.batching.kept_runs(before, step), []
        scores: Sequence[Sums | None] = [None] * len(runs)
        with failures_named():
            for begin, end in steps:
                if begin != replica_step:
                    replicas.seek([run.data.pipeline.start(begin) for run in runs])
                trained.append(replicas.train(all_rates[:, begin:end]))
                replica_step = end
            trained_s = (time.perf_counter() - begun) / len(runs)
            if step == first.steps or step % first.settings.eval_every == 0:
                scores = _tested(first.data, replicas)
        seconds = (time.perf_counter() - begun) / len(runs)
        ending = any(agreed(interruption.received))  # a later signal takes effect after the next line
        for i, run in enumerate(runs):
            run.step, run.scores, run.seconds = step, scores[i], run.seconds + seconds
            if trained and run.error is None:
                numbers = np.concatenate([np.arange(*each) for each in steps])
                trail = _joined([trails[i] for trails in trained])
                _note(run, before, numbers, trail, trained_s, partial(replicas.state, i), ending=ending)
        if trained:  # not if the runs were complete before, or all steps are left out
            tell(runs)
        if ending:
            interruption.check()
            raise SystemExit(128 + signal.SIGTERM)  # the signal has arrived in another process
        if step == first.steps:
            break


def _replicas(runs: Sequence[Run], how: str) -> Replicas:
    first = runs[0]
    execution: Callable[..., Replicas] = execution_of(how, len(runs))
    if first.mesh is not None and len(runs) == 1:
        execution = partial(Parallel, first.mesh)
    programs = [run.data.pipeline.compiled for run in runs]
    return execution(first.learner, programs, [run.cursor for run in runs], [run.state for run in runs])


def _tested(data: Data, replicas: Replicas) -> Sequence[Sums | None]:
    return replicas.scores(data.held_out, data.num_test_batches, len(data.num_test_records))


def _test_untrained(runs: Sequence[Run], replicas: Replicas) -> None:
    """Test the untrained models of runs."""
    begun = time.perf_counter()
    with failures_named():
        for run, sums in zip(runs, _tested(runs[0].data, replicas), strict=True):
            assert sums is not None
            run.metrics.untrained = {"step": 0, **run.data.task.metrics(run.data.pipeline.source_names, sums)}
    for run in runs:
        run.seconds += (time.perf_counter() - begun) / len(runs)


def _next_line(run: Run) -> int:
    """The step of the next line or test after a step that is not left out."""
    first_kept = run.data.pipeline.batching.after(run.step, 0)
    return min(run.steps, *(first_kept - first_kept % number + number for number in _every(run)))


def _joined(trails: Sequence[Trail]) -> Trail:
    """Join the trails of the parts of the steps between two lines.

    There is one trail if the weights follow training, as no steps are left out then.
    """
    loss = np.concatenate([each.loss for each in trails])
    return trails[0]._replace(loss=loss, sums=np.sum([each.sums for each in trails], axis=0))


def _every(run: Run) -> tuple[int, int]:
    """The numbers of steps between two tests, and between two lines."""
    return run.settings.eval_every, run.settings.log_every or run.settings.eval_every


def _note(
    run: Run,
    before: int,
    steps: np.ndarray,
    trail: Trail,
    seconds: float,
    state: Callable[[], TrainState],
    *,
    ending: bool,
) -> None:
    """Record the steps of a run since the last line, in its metrics and, if one is due, in a checkpoint.

    Args:
      run: The run, with the present `step` and `scores`.
      before: The step of the last line.
      steps: The numbers of the trained steps, which are not left out.
      trail: The trail of these steps.
      seconds: The time spent on them.
      state: A function that returns the present state.
      ending: Whether the run ends here, so that a checkpoint is due.
    """
    losses: np.ndarray = trail.loss
    run.steps_done += len(losses)
    if not np.isfinite(losses).all():
        lost = int(steps[np.argmin(np.isfinite(losses))]) + 1
        text = "the loss is no longer finite"
        if broken := run.data.broken():
            run.error = DataError(f"at step {lost} {text}: {broken}; {run.data.mend()}.")
        elif lost == 1:
            text = f"at step 1, before anything is learnt, {text}, whatever the rate"
            run.error = ConfigError(text, key="model", value=run.settings.model)
        else:
            text = f"at step {lost} {text}; a smaller rate may keep it so"
            run.error = ConfigError(text, key="optimizer.learning_rate", value=run.settings.learning_rate)
        return
    pipeline, plan = run.data.pipeline, run.data.pipeline.plan
    totals = [pipeline.totals(step) for step in (run.step, before)]
    if run.learner.adapt is not None:
        counts = [records_of(run.adapted) or [0] * len(plan.names)]
        _note_weights(run, run.learner.adapt, before, trail)
        counts.insert(0, records_of(run.adapted))
        totals = [Totals(records, plan.tokens(records)) for records in counts]
    if run.error is not None:
        return
    sources = source_metrics(plan, *totals)
    for row, loss, count in zip(sources.values(), *trail.sums.tolist(), strict=True):
        row["loss"] = loss / count if count else None
    for name, now, since in zip(plan.names, totals[0].records, totals[1].records, strict=True):
        if pipeline.placements[name] == "host":
            num_bytes = (now - since) * bytes_of(stored_spec(name, run.data.built.sources[name].spec))
            sources[name]["bytes_per_s"] = num_bytes / seconds
    metrics = None if run.scores is None else run.data.task.metrics(run.data.pipeline.source_names, run.scores)
    run.metrics.trained(steps, losses)
    run.metrics.add(run.step, float(losses.mean()), metrics, sources)
    if ending or (metrics is not None and _due(run)):
        run.state = state()
        _save(run)


def _note_weights(run: Run, adapt: Adapt, before: int, trail: Trail) -> None:
    """Record the weights since the step `before`, and the number of records of each source under them."""
    if (trail.weight < 0).any():
        lost = before + int(np.argmax((trail.weight < 0).any(axis=1)))
        text = f"at step {lost} it gives weights that are no numbers of 0 or more with one above 0"
        run.error = ConfigError(text, key="adapt", value=adapt.rule)
        return
    for step, weight, count in zip(range(before, run.step), trail.weight, trail.records, strict=True):
        window = step - step % adapt.every
        weights, counts = run.adapted.get(window, (weight.tolist(), [0] * len(count)))
        run.adapted[window] = weights, [int(a + b) for a, b in zip(counts, count, strict=True)]


def _due(run: Run) -> bool:
    """Whether to take a checkpoint after a test."""
    every, tests = run.settings.checkpoint_every or 1, run.settings.eval_every
    test_before = (run.step - 1) // tests * tests
    return run.step == run.steps or run.step // every > test_before // every
