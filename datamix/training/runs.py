"""Training runs: from a configuration to a trained model, one at a time or several in one program."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datamix import registry
from datamix.config import Config, TrainConfig
from datamix.cursor import Cursor
from datamix.errors import ConfigError, StateError
from datamix.pipeline import digest
from datamix.rng import key_for
from datamix.training.checkpoints import Checkpoints
from datamix.training.data import Data, open_data
from datamix.training.learner import Learner, Scores, State, evaluate_jitted, first_state, train_jitted
from datamix.training.optimizers import rates
from datamix.training.records import Line, Records, metrics_of


@dataclass(kw_only=True)
class Run:
    """One job that trains a model.

    Attributes:
      config: of the job.
      settings: the part of it that is about training.
      directory: where its files go.
      data: to train and test on.
      learner: what is trained.
      rates: learning rate of each step, float32 [steps].
      step: how many steps are done.
      cursor: before the next batch.
      state: after the last step.
      records: of the tests so far.
      scores: of the last test.
      checkpoints: of the run.
      note: whether it goes on or starts afresh, where that was asked for; else empty.
      seconds: spent on steps and tests.
      steps_done: in those seconds.
    """

    config: Config
    settings: TrainConfig
    directory: Path
    data: Data
    learner: Learner
    rates: np.ndarray
    step: int
    cursor: Cursor
    state: State
    checkpoints: Checkpoints
    records: Records = field(init=False)
    note: str = ""
    scores: Scores | None = None
    seconds: float = 0.0
    steps_done: int = 0

    @property
    def steps(self) -> int:
        """How many there are to do."""
        return len(self.rates)


def prepare(config: Config, directory: Path, like: Run | None = None) -> Run:
    """Make all ready for the first step; nothing is written but an empty list of tests.

    Args:
      config: of the job.
      directory: where its files go.
      like: a run that differs in weights, seeds and learning rate alone; its data is shared.

    Raises:
      DatamixError: in one line, what is wrong and how to mend it.
    """
    settings = config.train
    if settings is None:
        raise ConfigError(
            "job=train needs the groups model and optimizer and the keys of train, as job/train.yaml has."
        )
    data = open_data(config, None if like is None else like.data)
    schedule = registry.lookup("schedule", settings.schedule)
    steps = _steps(settings, data)
    learner = Learner.of(settings, data.shape, data.num_classes)
    learner.check()
    words = jnp.asarray(key_for(config.seed, "train", settings.model), jnp.uint32)
    run = Run(
        config=config,
        settings=settings,
        directory=directory,
        data=data,
        learner=learner,
        rates=rates(schedule(steps, **settings.schedule_settings), settings.learning_rate, steps),
        step=0,
        cursor=data.pipeline.start(),
        state=first_state(learner, jax.random.wrap_key_data(words)),
        checkpoints=Checkpoints(directory),
    )
    lines = _resume(run) if settings.resume else run.checkpoints.clear()
    run.records = Records(directory, lines or ())
    return run


def _steps(settings: TrainConfig, data: Data) -> int:
    length, size = data.pipeline.plan.length, data.pipeline.batch_size
    whole = None if length is None else length // size
    if settings.steps is None and whole is None:
        raise ConfigError(
            "train.steps = null is the whole mix, which never ends; set train.steps, or another stop than forever."
        )
    if whole is not None and (settings.steps or 0) > whole:
        raise ConfigError(
            f"train.steps = {settings.steps} is more than the {whole} whole batches of the mix; make it {whole} or "
            "less, or set stop=forever."
        )
    return settings.steps or whole or 0


def _resume(run: Run) -> list[Line]:
    """Go on from the last checkpoint, where there is one; returns the tests before it.

    Raises:
      StateError: it was taken under another configuration; names what differs.
    """
    step = run.checkpoints.last()
    if step is None:
        run.note = f"train.resume: there is no checkpoint in {run.checkpoints.path}; the run starts afresh."
        return []
    position = run.checkpoints.position(step)
    own, saved = _identity(run), position.get("identity", {})
    if differing := sorted(key for key in own.keys() | saved.keys() if own.get(key) != saved.get(key)):
        raise StateError(
            f"train.resume: {run.checkpoints.path / str(step)} was taken under another configuration: "
            f"{', '.join(differing)} differ; resume with the settings it was taken under, or start afresh without "
            "train.resume."
        )
    run.step = step
    run.state = run.checkpoints.state(step, run.state)
    run.cursor = run.data.pipeline.start(position["mix"]["step"])
    run.note = f"train.resume: the run goes on after step {step:,} of {run.steps:,}."
    lines: list[Line] = position["lines"]
    return lines


def _identity(run: Run) -> dict[str, Any]:
    """What determines a run, digested, by the key that sets it."""
    settings, mix = run.settings, run.data.pipeline.iterator().state()["fingerprint"]
    own = {
        "model": [settings.model, dict(settings.model_settings)],
        "optimizer": [settings.optimizer, dict(settings.optimizer_settings)],
        "optimizer.learning_rate": settings.learning_rate,
        "optimizer.schedule": [settings.schedule, dict(settings.schedule_settings)],
        "train.steps": run.steps,
        "test_split": run.data.tests.pipeline.fingerprint,
    }
    return {**mix, **{key: digest(value) for key, value in own.items()}}


def _save(run: Run) -> None:
    mix = run.data.pipeline.iterator(start=run.step).state()
    run.checkpoints.save(run.step, run.state, {"mix": mix, "identity": _identity(run), "lines": run.records.lines})


def fit(run: Run, tell: Callable[[Run], None]) -> None:
    """Train a run to its end.

    Args:
      run: changed in place.
      tell: called after each test.

    Raises:
      ConfigError: the loss is no longer finite.
    """
    names = run.data.pipeline.source_names
    while run.step < run.steps:
        begun = time.perf_counter()
        count = min(run.settings.eval_every - run.step % run.settings.eval_every, run.steps - run.step)
        some = jnp.asarray(run.rates[run.step : run.step + count])
        run.cursor, run.state, losses = train_jitted(run.learner, run.data.pipeline, run.cursor, run.state, some)
        run.scores = _scores(run)
        loss = np.asarray(losses)
        run.step += count
        run.steps_done += count
        run.seconds += time.perf_counter() - begun
        if not np.isfinite(loss).all():
            lost = run.step - count + int(np.argmin(np.isfinite(loss))) + 1
            raise ConfigError(
                f"optimizer.learning_rate = {run.settings.learning_rate:g}: at step {lost} the loss is no longer "
                "finite; a smaller rate keeps it so."
            )
        run.records.add(run.step, float(loss.mean()), metrics_of(names, run.scores))
        if _due(run.settings, run.step - count, run.step, run.steps):
            _save(run)
        tell(run)
    if run.scores is None:  # the run had ended before
        run.scores = _scores(run)
    run.records.close()
    run.checkpoints.close()


def _scores(run: Run) -> Scores:
    data = run.data
    scores = evaluate_jitted(run.learner, data.tests, run.state, data.num_test_batches, len(data.test_records))
    found: Scores = jax.device_get(scores)
    return found


def _due(settings: TrainConfig, before: int, step: int, steps: int) -> bool:
    """Whether to take a checkpoint after the test at `step`, the one before having been at `before`."""
    every = settings.checkpoint_every or 1
    return step == steps or step // every > before // every
