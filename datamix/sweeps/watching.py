"""A multirun from its start to its end: what each job leaves behind, what is resumed, what is gathered.

Hydra's `on_multirun_end` is skipped where a job has failed, and some launchers run callbacks in their workers; so a
sweep is watched from outside, whichever sweeper and launcher run it. Importing this imports neither JAX nor matplotlib.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamix import interruption
from datamix.config.check import leaves_of
from datamix.config.compose import load_plugins
from datamix.config.parse import without_hydra
from datamix.errors import ConfigError, DatamixError, ResourceError, StateError, hint, of_kind, unknown_source
from datamix.report.files import write_text
from datamix.sweeps.preparing import (
    check_directories,
    config_flags,
    grid,
    is_search,
    shared_directory,
    sweep_overrides,
)
from datamix.sweeps.results import RESULT, Result, by_key, complaints, metric_of, number, read_result, read_results

_HOW_IT_RUNS = ("sweep.", "train.resume=", "train.curves=")
"""Overrides that say how a sweep is run, and not what its jobs compute."""


class JobsFailed(SystemExit):
    """Raised when a sweep has come to its end and some of its jobs have failed."""


def run_watched(config: DictConfig, loader: ConfigLoaderImpl, start: Callable[[], object]) -> None:
    """Run a multirun, and gather what its jobs leave behind however it ends.

    Raises:
      StateError: An earlier sweep lies there that this one does not go on with.
      JobsFailed: Jobs have failed, and all have ended; it is said which and why.
      SystemExit: Jobs have not come to their end.
    """
    directory = Path(str(config.hydra.sweep.dir))
    first, jobs = config.hydra.sweeper.get("first_job") or 0, grid(config, loader)
    _VARIED.clear()
    _VARIED.update(_varied(jobs) or _searched(config, loader))
    if config.sweep.get("auto") and not jobs:
        text, mend = "a search chooses what to try by itself", "Leave it out, or sweep without that sweeper."
        raise ConfigError(text, key="sweep.auto", value=config.sweep.auto, hint=mend)
    for name in (config.sweep.get("goal_weights") or {}) if jobs else ():
        sources = loader.load_sweep_config(config, jobs[0]).source
        if name not in sources:
            raise unknown_source(name, [*sources], f"sweep.goal_weights.{name}")
    check_directories(config, loader, jobs)
    numbered = dict(enumerate(jobs, first))
    _check_earlier(config, loader, directory, numbered)
    stopped = None
    with interruption.ended_by(signal.SIGINT, signal.SIGTERM):
        try:
            start()
            interruption.check()
        except BaseException as error:
            stopped = interruption.instead_of(error)
        results = read_results(directory)
        if results or not isinstance(stopped, Exception | None):
            results = _with_the_rest(results, numbered, directory)
            try:
                _gather(results, directory, config)
            except (KeyboardInterrupt, SystemExit) as error:
                text = "Its table, figure and page are not all written"
                print(f"{text}; job=report sweep.dir={directory} draws what the jobs have left.", file=sys.stderr)
                stopped = error
        _end(results, stopped, directory)


def _gather(results: list[Result], directory: Path, config: DictConfig) -> None:
    # It draws, and the command line starts without what that takes.
    from datamix.sweeps.gathering import gather

    goal: Any = {key: config.sweep[key] for key in ("metric", "goal")}
    goal |= {"goal_weights": config.sweep.get("goal_weights") or {}, "num_next": config.sweep.get("num_next", 3)}
    goal["rounds"] = config.sweep.get("auto") or 0
    try:
        gather({directory: results}, directory, **goal)
    except OSError as error:
        text = f"{error.filename or directory} cannot be written: {error.strerror}; once it can, job=report"
        mend = f"sweep.dir={directory} draws what the jobs have left"
        raise ConfigError(f"{text} {mend}", key="hydra.sweep.dir") from error


def _end(results: list[Result], stopped: BaseException | None, directory: Path) -> None:
    bad = [result for result in results if result.status != "done"]
    mistakes = bool(bad) and all(of_kind(result.kind or "", "") for result in bad)
    if isinstance(stopped, Exception) and not bad:
        raise stopped
    for why, jobs in complaints(bad).items():
        print(f"{why} (job{'s' * (len(jobs) > 1)} {', '.join(map(str, jobs))})", file=sys.stderr)
    if bad and (not mistakes or any(map(_is_cut_short, bad))):
        more = f"sweep.resume=true hydra.sweep.dir={directory}"
        print(f"The same command with {more} runs what is missing.", file=sys.stderr)
    if stopped is not None and not isinstance(stopped, Exception):
        raise stopped
    if stopped is not None and any(result.status == "interrupted" for result in bad):
        print(f"{type(stopped).__name__}: {str(stopped).partition(chr(10))[0]}", file=sys.stderr)
    if bad:
        ended = JobsFailed if all(result.status == "failed" for result in bad) else SystemExit
        raise ended(2 if mistakes else 1)


def _check_earlier(
    config: DictConfig, loader: ConfigLoaderImpl, directory: Path, jobs: Mapping[int, list[str]]
) -> None:
    earlier = read_results(directory)
    if not earlier:
        return
    if not config.sweep.resume:
        text = f"it holds the results of {len(earlier)} jobs"
        mend = "sweep.resume=true goes on with that sweep, another directory begins a new one."
        raise StateError(text, key="hydra.sweep.dir", value=str(directory), hint=mend)
    for result in earlier:
        if result.status == "done" and result.job in jobs:
            node = loader.load_sweep_config(config, jobs[result.job])
            _require_same(result.config, plain_config(node), result.job, result.directory)


def _with_the_rest(results: list[Result], jobs: Mapping[int, list[str]], directory: Path) -> list[Result]:
    """A sweep's results, with a row for each job that has not begun."""
    begun = {result.job: result for result in results}
    for job, overrides in jobs.items():
        varied = by_key([override for override in overrides if not override.startswith(_HOW_IT_RUNS)])
        missing: Any = {"status": "interrupted", "error": "it had not begun", "overrides": varied, "config": varied}
        begun.setdefault(job, Result(job=job, directory=directory / str(job), **missing))
    return [begun[job] for job in sorted(begun)]


def run_recorded(node: DictConfig, work: Callable[[DictConfig], Mapping[str, Any]]) -> float | None:
    """Run one job of a multirun and leave its result in its directory, however it ends.

    Returns:
      The metric that the sweep is judged by, None where the job does not report it. A finished job of a sweep that is
      resumed is not run again.

    Raises:
      StateError: The finished job had another configuration.
      DatamixError: What ended the job, where a search must know of it; a grid goes on with its other jobs.
      SystemExit: A search is judged by a metric that its jobs do not report.
    """
    hydra: Any = HydraConfig.get()
    directory, searches = Path(hydra.runtime.output_dir), is_search(hydra)
    load_plugins(node)
    config = plain_config(node)
    if (result := finished(node, config, directory, hydra.job.num)) is not None:
        return result.metrics.get(metric_of(node.sweep.metric, () if searches else result.metrics))
    interruption.check()
    result_file = begin(node, hydra, config, directory)
    try:
        with _output(directory, verbose=bool(node.sweep.get("verbose"))):
            report = work(node)
    except BaseException as error:
        ending = interruption.instead_of(error)
        result_file.end_badly(ending)
        if ending is not error:
            raise ending from error
        if searches or not isinstance(error, Exception):
            raise
        return None
    metrics = result_file.end_well(report)
    # A search must know before its first job what to look for, and whether as large or as small as can be.
    metric = metric_of(node.sweep.metric, () if searches else metrics)
    reached = f"{metric} {number(value, metric)}" if (value := metrics.get(metric)) is not None else "done"
    print(f"#{hydra.job.num} {_shortened(result_file.overrides)}: {reached}, {result_file.seconds:.1f} s", flush=True)
    interruption.check()
    if searches and metric not in metrics:
        why = f"job={hydra.runtime.choices.get('job')} gives no such number to search by"
        result_file.end_badly(ConfigError(why, key="sweep.metric", value=metric, hint=hint(metric, metrics)))
        raise SystemExit(2)  # no other job would do better; as an error, it would be one of many trials that fail
    return metrics.get(metric)


def begin(node: DictConfig, hydra: Any, config: Mapping[str, Any], directory: Path) -> ResultFile:
    """Begin the result file of a job; where its sweep is resumed, one that was cut short goes on from its checkpoint.

    Args:
      node: The composed configuration, whose `train.resume` is set.
      hydra: Hydra's part of it.
      config: What `plain_config` makes of it.

    Raises:
      ConfigError: Another job of the sweep has written to that directory.
    """
    earlier, job = _earlier(directory), hydra.job.num
    if earlier is not None and earlier.job != job:
        raise shared_directory(str(hydra.sweep.subdir), earlier.job, job)
    if node.sweep.resume and "train" in node and earlier and _is_cut_short(earlier) and earlier.config == config:
        node.train.resume = True
    overrides, flags = list(hydra.overrides.task), config_flags(hydra)
    return ResultFile(directory, job=job, overrides=overrides, config=config, flags=flags)


@contextmanager
def _output(directory: Path, *, verbose: bool) -> Iterator[None]:
    """What a job prints goes into its directory, where a sweep is not to print it all."""
    if verbose:
        yield
        return
    with (directory / "output.txt").open("w", encoding="utf-8") as file, redirect_stdout(file):
        yield


# The keys whose values differ between the jobs of the sweep that this process runs; a worker of a launcher has none.
_VARIED: set[str] = set()


def _varied(jobs: Sequence[Sequence[str]]) -> set[str]:
    """The keys of overrides that have more than one value in jobs."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in by_key(job).items():
            values.setdefault(key, set()).add(value)
    return {key for key, each in values.items() if len(each) > 1}


def _searched(config: DictConfig, loader: ConfigLoaderImpl) -> set[str]:
    """The keys that a search gives values."""
    swept = [each for each in sweep_overrides(config, loader) if each.is_sweep_override()]
    return {str(each.key_or_group) for each in swept} | {*(config.hydra.sweeper.get("search_space") or {})}


def _shortened(overrides: Sequence[str], length: int = 90) -> str:
    """Overrides without Hydra's escapes; of many, those in which jobs differ, or else the end."""
    text = " ".join(overrides).replace("\\", "")
    if len(text) > length and _VARIED:
        text = " ".join(each for each in overrides if {*by_key([each])} <= _VARIED).replace("\\", "")
        return text if len(text) <= length else f"{text[:length]}…"
    return text if len(text) <= length else f"…{text[-length:]}"


def finished(node: DictConfig, config: Mapping[str, Any], directory: Path, job: int) -> Result | None:
    """The result of a job that an earlier run of its sweep has finished, where that sweep is resumed."""
    result = _earlier(directory) if node.sweep.resume else None
    if result is None or result.status != "done":
        return None
    _require_same(result.config, config, job, directory)
    print(f"Job {job} is done already: {directory}")
    return result


def _is_cut_short(result: Result) -> bool:
    """Whether a job has been ended by what is no error of its own: a signal, or what its machine lacked or killed."""
    return result.status == "interrupted" or result.kind == ResourceError.__name__


def _earlier(directory: Path) -> Result | None:
    return read_result(directory / RESULT) if (directory / RESULT).is_file() else None


class ResultFile:
    """The file `result.json` that a job of a sweep leaves in its directory: begun when it is made, ended once."""

    def __init__(
        self, directory: Path, *, job: int, overrides: list[str], config: Mapping[str, Any], flags: Sequence[str] = ()
    ) -> None:
        self._directory, self._begun, self._reported_s = directory, time.perf_counter(), 0.0
        self.overrides = [override for override in overrides if not override.startswith(_HOW_IT_RUNS)]
        self._beginning: dict[str, Any] = {"job": job, "flags": flags, "overrides": self.overrides, "config": config}
        self._write("begun")

    @property
    def seconds(self) -> float:
        """How long the job has taken; of jobs that were computed in one program, all of them together."""
        return max(time.perf_counter() - self._begun, self._reported_s)

    def end_well(self, report: Mapping[str, Any]) -> dict[str, float | None]:
        """Keep what a job has reported; returns its metrics."""
        metrics, self._reported_s = _metrics(report), float(report.get("seconds") or 0)
        sources = {
            name: {key: source.get(key) for key in ("share", "target", "provenance", "samples")}
            for name, source in report.get("sources", {}).items()
        }
        notes = list(report.get("notes") or ())
        self._write("done", metrics=metrics, sources=sources, figure=report.get("figure"), notes=notes)
        return metrics

    def end_badly(self, error: BaseException) -> None:
        """Keep what has ended a job; an error that is no user's mistake is shown in full."""
        if not isinstance(error, Exception):
            self._write("interrupted", error="it was interrupted")
            return
        if not isinstance(error, DatamixError):
            traceback.print_exception(error)
        text = " ".join(str(error).split()) or "no message"
        kind = error.kind if isinstance(error, DatamixError) else type(error).__name__
        self._write("failed", error=text, kind=kind)

    def _write(self, status: str, **ending: Any) -> None:
        seconds = None if status == "begun" else round(self.seconds, 3)
        rest: dict[str, Any] = {"error": None, "kind": None, "metrics": {}, "sources": {}, "seconds": seconds}
        rest |= {"figure": None, "status": status, "seed": self._beginning["config"].get("seed")}
        result = self._beginning | rest | ending
        write_text(self._directory / RESULT, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _metrics(report: Mapping[str, Any]) -> dict[str, float | None]:
    """A report's metrics; of a job that trains nothing, what it says of the mix. None for what is no number."""
    values = report.get("metrics")
    if values is None:
        values = {f"share/{name}": source["share"] for name, source in report.get("sources", {}).items()}
        values |= {name: report.get(name) for name in ("batches", "samples", "max_deviation", "samples_per_s")}
    numbers = {name: float(value) for name, value in values.items() if value is not None}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def plain_config(node: DictConfig) -> dict[str, Any]:
    """The configuration of a job as plain values, without what only says how it is run."""
    node = without_hydra(node)
    try:
        plain: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException:  # the job itself will say which key it is
        plain = OmegaConf.to_container(node, resolve=False)
    plain.pop("sweep", None)
    for key in ("resume", "curves"):
        (plain.get("train") or {}).pop(key, None)
    return dict(json.loads(json.dumps(plain, default=str)))


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], job: int, directory: Path) -> None:
    old, new = dict(leaves_of(before)), dict(leaves_of(now))
    if (key := next((key for key in [*new, *old] if old.get(key, ...) != new.get(key, ...)), None)) is not None:
        was, is_now = (repr(leaves[key]) if key in leaves else "not set" for leaves in (old, new))
        mend = "Resume a sweep with the command that it was begun with, or begin a new one in another hydra.sweep.dir."
        raise StateError(f"job {job} in {directory} was run with {was}, now it is {is_now}", key=key, hint=mend)
