"""Run a sweep from start to end: the result of each job, what is resumed, and the report on all jobs.

Hydra skips `on_multirun_end` if a job has failed, and some launchers run callbacks in their workers; so a sweep is
watched from outside, whatever sweeper and launcher run it. Importing this module imports neither JAX nor Matplotlib.
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
from datamix.config.compose import load_plugins, typed_text
from datamix.config.parse import without_hydra
from datamix.errors import ConfigError, DatamixError, ResourceError, StateError, hint, of_kind, unknown_source
from datamix.report.files import write_text
from datamix.sweeps.preparing import (
    check_directories,
    config_flags,
    grid,
    is_search,
    launch_overrides,
    least_share,
    shared_directory,
    sweep_overrides,
)
from datamix.sweeps.results import RESULT, Result, by_key, complaints, metric_of, number, read_result, read_results

_HOW_IT_RUNS = ("sweep.", "train.resume=", "train.curves=")
"""The beginnings of overrides that determine how a sweep is run, not what its jobs compute."""


class JobsFailed(SystemExit):
    """Raised when a sweep has ended and some of its jobs have failed."""


def run_watched(config: DictConfig, loader: ConfigLoaderImpl, start: Callable[[], object]) -> None:
    """Run a sweep, and report on the results of its jobs, however it ends.

    Args:
      config: The configuration of the sweep.
      loader: Hydra's loader of configs.
      start: The function that runs the jobs, by Hydra's sweeper.

    Raises:
      ConfigError: A setting of the sweep is wrong, or its report cannot be written.
      StateError: The directory has an earlier sweep that this one does not resume.
      JobsFailed: All jobs have ended, and some have failed; their errors are printed.
      SystemExit: Some jobs have not ended.
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
                command = f"job=report {typed_text('sweep.dir', str(directory))}"
                print(f"{text}; {command} draws what the jobs have left.", file=sys.stderr)
                stopped = error
        _end(results, stopped, directory)


def _gather(results: list[Result], directory: Path, config: DictConfig) -> None:
    # It imports Matplotlib, which would delay the start of the command line.
    from datamix.sweeps.gathering import gather

    goal: Any = {key: config.sweep[key] for key in ("metric", "goal")}
    goal |= {"goal_weights": config.sweep.get("goal_weights") or {}, "num_next": config.sweep.get("num_next", 3)}
    goal["rounds"] = config.sweep.get("auto") or 0
    try:
        gather({directory: results}, directory, **goal)
    except OSError as error:
        text = f"{error.filename or directory} cannot be written: {error.strerror}; once it can, job=report"
        mend = f"{typed_text('sweep.dir', str(directory))} draws what the jobs have left"
        raise ConfigError(f"{text} {mend}", key="hydra.sweep.dir") from error


def _end(results: list[Result], stopped: BaseException | None, directory: Path) -> None:
    bad = [result for result in results if result.status != "done"]
    mistakes = bool(bad) and all(of_kind(result.kind or "", "") for result in bad)
    if isinstance(stopped, Exception) and not bad:
        raise stopped
    for why, jobs in complaints(bad).items():
        print(f"{why} (job{'s' * (len(jobs) > 1)} {', '.join(map(str, jobs))})", file=sys.stderr)
    if bad and (not mistakes or any(map(_is_cut_short, bad))):
        more = f"sweep.resume=true {typed_text('hydra.sweep.dir', str(directory))}"
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
        overrides = jobs.get(result.job)
        if overrides is not None and (result.status == "done" or _would_lose(result, overrides)):
            node = loader.load_sweep_config(config, overrides)
            _require_same(result, plain_config(node))


def _would_lose(result: Result, overrides: Sequence[str]) -> bool:
    """Whether a job that was cut short has checkpoints, which other settings would remove without being asked to."""
    return _is_cut_short(result) and not _says_resume(overrides) and any(result.directory.glob("checkpoints/*"))


def _says_resume(overrides: Sequence[str]) -> bool:
    """Whether overrides say themselves whether a job goes on from its checkpoint."""
    return "train.resume" in by_key(overrides)


def _with_the_rest(results: list[Result], jobs: Mapping[int, list[str]], directory: Path) -> list[Result]:
    """The results of a sweep, including one for each job that has not begun."""
    begun = {result.job: result for result in results}
    for job, overrides in jobs.items():
        varied = by_key([override for override in overrides if not override.startswith(_HOW_IT_RUNS)])
        missing: Any = {"status": "interrupted", "error": "it had not begun", "overrides": varied, "config": varied}
        begun.setdefault(job, Result(job=job, directory=directory / str(job), **missing))
    return [begun[job] for job in sorted(begun)]


def run_recorded(node: DictConfig, work: Callable[[DictConfig], Mapping[str, Any]]) -> float | None:
    """Run one job of a sweep and write its result into its directory, however it ends.

    A finished job of a resumed sweep is not run again.

    Args:
      node: The composed configuration of the job.
      work: The function that runs the job and returns its report.

    Returns:
      The metric that the sweep is judged by; None if the job does not report it, or has failed in a grid.

    Raises:
      StateError: The finished job had another configuration.
      Exception: The error that ended the job, in a search; a grid continues with its other jobs.
      SystemExit: The jobs of a search do not report the metric that it is judged by.
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
    # A search must know its metric and its direction before the first job.
    metric = metric_of(node.sweep.metric, () if searches else metrics)
    reached = f"{metric} {number(value, metric)}" if (value := metrics.get(metric)) is not None else "done"
    print(f"#{hydra.job.num} {_shortened(result_file.overrides)}: {reached}, {result_file.seconds:.1f} s", flush=True)
    interruption.check()
    if searches and metric not in metrics:
        why = f"job={hydra.runtime.choices.get('job')} gives no such number to search by"
        result_file.end_badly(ConfigError(why, key="sweep.metric", value=metric, hint=hint(metric, metrics)))
        raise SystemExit(2)  # no other job would report it, either; an error would only count as one failed trial
    return metrics.get(metric)


def begin(node: DictConfig, hydra: Any, config: Mapping[str, Any], directory: Path) -> ResultFile:
    """Begin the result file of a job; in a resumed sweep, a job that was cut short continues from its checkpoint.

    Args:
      node: The composed configuration; its `train.resume` is set to true for a job that was cut short, unless an
        override sets it.
      hydra: Hydra's part of the configuration.
      config: The configuration as `plain_config` returns it.
      directory: The directory of the job.

    Raises:
      ConfigError: Another job of the sweep has written to that directory.
    """
    earlier, job = _earlier(directory), hydra.job.num
    if earlier is not None and earlier.job != job:
        raise shared_directory(str(hydra.sweep.subdir), earlier.job, job)
    overrides = list(hydra.overrides.task)
    command = {"flags": config_flags(hydra), "launch": launch_overrides(hydra), "least_share": least_share(hydra)}
    goes_on = node.sweep.resume and "train" in node and not _says_resume(overrides)
    if goes_on and earlier and _is_cut_short(earlier) and earlier.config == config:
        node.train.resume = True
    return ResultFile(directory, job=job, overrides=overrides, config=config, **command)


@contextmanager
def _output(directory: Path, *, verbose: bool) -> Iterator[None]:
    """Redirect the output of a job to a file in its directory, unless `verbose`."""
    if verbose:
        yield
        return
    with (directory / "output.txt").open("w", encoding="utf-8") as file, redirect_stdout(file):
        yield


# The keys whose values differ between the jobs of the sweep that this process runs; empty in a launcher's worker.
_VARIED: set[str] = set()


def _varied(jobs: Sequence[Sequence[str]]) -> set[str]:
    """The keys of overrides that have more than one value over all jobs."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in by_key(job).items():
            values.setdefault(key, set()).add(value)
    return {key for key, each in values.items() if len(each) > 1}


def _searched(config: DictConfig, loader: ConfigLoaderImpl) -> set[str]:
    """The keys that a search varies."""
    swept = [each for each in sweep_overrides(config, loader) if each.is_sweep_override()]
    return {str(each.key_or_group) for each in swept} | {*(config.hydra.sweeper.get("search_space") or {})}


def _shortened(overrides: Sequence[str], length: int = 90) -> str:
    """Overrides without Hydra's escapes; if long, only those in which jobs differ, or if not known, the end."""
    text = " ".join(overrides).replace("\\", "")
    if len(text) > length and _VARIED:
        text = " ".join(each for each in overrides if {*by_key([each])} <= _VARIED).replace("\\", "")
        return text if len(text) <= length else f"{text[:length]}…"
    return text if len(text) <= length else f"…{text[-length:]}"


def finished(node: DictConfig, config: Mapping[str, Any], directory: Path, job: int) -> Result | None:
    """The result of a job that an earlier run of its resumed sweep has finished; None if there is none.

    Args:
      node: The composed configuration of the job.
      config: The configuration as `plain_config` returns it.
      directory: The directory of the job.
      job: The number of the job.

    Raises:
      StateError: The finished job had another configuration.
    """
    result = _earlier(directory) if node.sweep.resume else None
    if result is None or result.status != "done":
        return None
    _require_same(result, config)
    print(f"Job {job} is done already: {directory}")
    return result


def _is_cut_short(result: Result) -> bool:
    """Whether a job was ended from outside: by a signal, by the machine, or for lack of memory or another resource."""
    return result.status == "interrupted" or result.kind == ResourceError.__name__


def _earlier(directory: Path) -> Result | None:
    return read_result(directory / RESULT) if (directory / RESULT).is_file() else None


class ResultFile:
    """The file `result.json` of a job of a sweep, written when the job begins, and again when it ends.

    Args:
      directory: The directory of the job.
      job: The number of the job.
      overrides: The overrides of its command line.
      config: The configuration as `plain_config` returns it.
      command: The other parts of its command line: `flags`, `launch` and `least_share`, see `Result`.
    """

    def __init__(
        self, directory: Path, *, job: int, overrides: list[str], config: Mapping[str, Any], **command: Any
    ) -> None:
        self._directory, self._begun, self._reported_s = directory, time.perf_counter(), 0.0
        self.overrides = [override for override in overrides if not override.startswith(_HOW_IT_RUNS)]
        self._beginning: dict[str, Any] = {"job": job, **command, "overrides": self.overrides, "config": config}
        self._write("begun")

    @property
    def seconds(self) -> float:
        """The seconds that the job has taken: the time since it began, or the time that its report states if longer."""
        return max(time.perf_counter() - self._begun, self._reported_s)

    def end_well(self, report: Mapping[str, Any]) -> dict[str, float | None]:
        """Write the results of a job; returns its metrics, None for those that are not finite."""
        metrics, self._reported_s = _metrics(report), float(report.get("seconds") or 0)
        sources = {
            name: {key: source.get(key) for key in ("share", "target", "provenance", "samples")}
            for name, source in report.get("sources", {}).items()
        }
        notes = list(report.get("notes") or ())
        self._write("done", metrics=metrics, sources=sources, figure=report.get("figure"), notes=notes)
        return metrics

    def end_badly(self, error: BaseException) -> None:
        """Write the error that ended a job; an error that is not a user's mistake is printed with its traceback."""
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
    """The metrics of a report, or for a job that trains no model, numbers about its mix; None for those not finite."""
    values = report.get("metrics")
    if values is None:
        values = {f"share/{name}": source["share"] for name, source in report.get("sources", {}).items()}
        values |= {name: report.get(name) for name in ("batches", "samples", "max_deviation", "samples_per_s")}
    numbers = {name: float(value) for name, value in values.items() if value is not None}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def plain_config(node: DictConfig) -> dict[str, Any]:
    """The configuration of a job as plain values, without keys that only determine how it is run."""
    node = without_hydra(node)
    try:
        plain: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException:  # the job itself will report the key
        plain = OmegaConf.to_container(node, resolve=False)
    plain.pop("sweep", None)
    for key in ("resume", "curves"):
        (plain.get("train") or {}).pop(key, None)
    return dict(json.loads(json.dumps(plain, default=str)))


def _require_same(result: Result, now: Mapping[str, Any]) -> None:
    """Refuse to go on with a job under another configuration than that of its result."""
    old, new = dict(leaves_of(result.config)), dict(leaves_of(now))
    if (key := next((key for key in [*new, *old] if old.get(key, ...) != new.get(key, ...)), None)) is not None:
        was, is_now = (repr(leaves[key]) if key in leaves else "not set" for leaves in (old, new))
        mend = "Resume a sweep with the command that it was begun with, or begin a new one in another hydra.sweep.dir"
        mend += f"; once {result.directory}/checkpoints is deleted, it begins afresh" * (result.status != "done")
        text = f"job {result.job} in {result.directory} was run with {was}, now it is {is_now}"
        raise StateError(text, key=key, hint=f"{mend}.")
