"""The results of a sweep's jobs: read from their files, grouped over seeds, compared."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamix.errors import ConfigError, DataError, printable

RESULT = "result.json"
"""What each job of a sweep leaves in its directory."""
SUGGESTION = "suggest.json"
MIXMIN = "mixmin.json"
ROUNDS = "rounds.json"
"""The rounds by which a sweep has gone on."""

# Ratios are proposed to jobs whose mix.schedule is null, and the sweeper that tries them takes no such key.
_RATIO_OR_SEED = re.compile(r"\+*(mix\.(share|ratio|weights|schedule)\b.*|seed|sweep\..*)")
_USUAL = ("accuracy/worst", "bits_per_byte/worst", "r2/worst", "mse/worst", "loss/worst")  # by task


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one job of a sweep.

    Attributes:
      sweep: The name of the sweep's directory, where several are compared; else empty.
      overrides: The overrides of its command line, by key.
      command: The same, as they were given, after the flags that Hydra needs to find what they name.
      notes: What its report says that a user must not overlook.
      status: "done", "failed" or "interrupted".
      metrics: Finite numbers, by name.
      config: The resolved configuration, without the parts of Hydra and of the sweep.
      sources: `share`, `target` and `provenance` of each source that it mixed.
    """

    sweep: str = ""
    job: int
    directory: Path
    overrides: Mapping[str, str]
    status: str
    error: str | None
    kind: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float | None = None
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def why(self) -> str | None:
        return self.error and f"{self.kind or 'Interrupted'}: {self.error}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The results, one or more, of jobs that differ in their seed alone."""

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """A result with the sources' shares, if there is one."""
        return next((result for result in self.results if result.sources), self.results[0])

    def values(self, metric: str) -> list[float]:
        """Those that are known, one a seed: a seed that was run twice says nothing more."""
        done = [each for each in self.results if each.status == "done" and metric in each.metrics]
        return [*{str(each.seed): each.metrics[metric] for each in done}.values()]

    def mean(self, metric: str) -> float | None:
        """Over the seeds; None where no job reports it."""
        return statistics.fmean(values) if (values := self.values(metric)) else None

    def deviation(self, metric: str) -> float:
        """Sample standard deviation over the seeds; 0 of one alone."""
        return statistics.stdev(values) if len(values := self.values(metric)) > 1 else 0.0


def read_sweeps(directories: Sequence[str]) -> dict[Path, list[Result]]:
    """The results of the sweeps that `sweep.dir` names, by directory."""
    if not directories:
        text = "it is the directory of a sweep, or a list of them: sweep.dir=[A,B]"
        raise ConfigError(text, key="sweep.dir", value=None)
    sweeps = {}
    for name in directories:
        if not Path(name).is_dir():
            raise ConfigError(
                "there is no such folder; it is the hydra.sweep.dir of a sweep", key="sweep.dir", value=name
            )
        if not (results := read_results(Path(name))):
            raise ConfigError(f"no job of a sweep has left its result in {name}", key="sweep.dir")
        sweeps[Path(name)] = results
    return sweeps


def read_results(directory: Path) -> list[Result]:
    """Read the result files below a sweep's directory, in the order of the jobs."""
    results = (read_result(path) for path in directory.rglob(RESULT) if path.is_file())
    return sorted(results, key=lambda result: result.job)


def read_result(path: Path) -> Result:
    """Read one job's result file; a damaged one is a `DataError`."""
    try:
        plain = json.loads(path.read_bytes())
        done = plain["status"] == "done"
        metrics = {name: float(value) for name, value in plain["metrics"].items() if value is not None}
        return Result(
            job=int(plain["job"]),
            directory=path.parent,
            overrides=by_key(plain["overrides"]),
            # A job that has begun and not ended was killed.
            status=plain["status"] if done or plain["status"] == "failed" else "interrupted",
            error=plain["error"] or (None if done else "it did not come to its end"),
            kind=plain["kind"],
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            config=dict(plain["config"]),
            sources=dict(plain["sources"]),
            seconds=plain["seconds"],
            command=tuple(map(str, [*plain.get("flags", ()), *plain["overrides"]])),
            notes=tuple(map(str, plain.get("notes") or ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        mend = "delete it, and sweep.resume=true runs its job again"
        raise DataError(f"{path} is damaged ({error!r}); {mend}.") from error


def written_rounds(directory: Path) -> tuple[int, list[dict[str, Any]]]:
    """The rounds by which a sweep has gone on: `ratios`, `seeds`, the job that they are `like`, and whether more
    `num_jobs` were `asked` for; and the number of the first one's first job. Without any, there are 0 and none.
    """
    path = directory / ROUNDS
    if not path.is_file():
        return 0, []
    try:
        plain = json.loads(path.read_bytes())
        return int(plain["first"]), [
            {
                "ratios": [str(ratio) for ratio in each["ratios"]],
                "seeds": [str(int(seed)) for seed in each["seeds"]],
                "like": int(each["like"]),
                "asked": bool(each["asked"]),
            }
            for each in plain["rounds"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        mend = "delete it, and the rounds are chosen anew"
        raise DataError(f"{path} is damaged ({error!r}); {mend}.") from error


def by_key(overrides: Sequence[str]) -> dict[str, str]:
    """The values of overrides by their keys.

    >>> by_key(["+mix.share.mnist=0.5", "source=a+b"])
    {'mix.share.mnist': '0.5', 'source': 'a+b'}
    """
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+"): value for key, _, value in pairs}


def sets_no_ratio(override: str) -> bool:
    """Whether an override sets neither the ratio nor the seed, nor how a sweep is judged and run.

    >>> [sets_no_ratio(each) for each in ("mix.share.a=0.5", "mix.schedule=null", "seed=1", "mix.window=8")]
    [False, False, False, True]
    """
    return not _RATIO_OR_SEED.fullmatch(override.partition("=")[0])


def seed_groups(results: Sequence[Result]) -> list[Setting]:
    """Group results that differ in their seed alone, in the order of their first jobs."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        rest = {key: value for key, value in result.config.items() if key != "seed"}
        groups.setdefault(json.dumps([result.sweep, rest], sort_keys=True), []).append(result)
    return [Setting(results=group) for group in groups.values()]


def swept(results: Sequence[Result]) -> list[str]:
    """The keys of the overrides that differ from job to job, the seed not among them."""
    keys = dict.fromkeys(key for result in results for key in result.overrides)
    differ = [key for key in keys if len({result.overrides.get(key) for result in results}) > 1 and key != "seed"]
    return ["sweep"] * (len({result.sweep for result in results}) > 1) + differ


def swept_value(result: Result, key: str) -> str:
    """The value that a job has for one of the keys of `swept`."""
    return result.sweep if key == "sweep" else result.overrides.get(key, "")


def shown_value(result: Result, key: str) -> str:
    """The same for people to read: a number that a search has found with four digits."""
    value = re.sub(r"\\(.)", r"\1", printable(swept_value(result, key)))  # Hydra's sweeper escapes a colon
    return f"{float(value):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", value) else value


def metric_of(asked: str, reported: Collection[str]) -> str:
    """The metric by which jobs are judged: the one that was asked for, or for "auto" that of the worst source.

    >>> metric_of("auto", ["loss/mean", "bits_per_byte/worst"]), metric_of("loss/mean", [])
    ('bits_per_byte/worst', 'loss/mean')
    """
    return asked if asked != "auto" else next((name for name in _USUAL if name in reported), _USUAL[0])


def goal_of(metric: str, goal: str) -> str:
    """Whether a metric is to be as large ("max") or as small ("min") as can be.

    >>> goal_of("accuracy/worst", "auto"), goal_of("loss/mean", "auto"), goal_of("loss/mean", "max")
    ('max', 'min', 'max')
    """
    if goal != "auto":
        return goal
    small = ("loss", "error", "max_deviation", "mse", "perplexity", "bits_per_byte")
    return "min" if metric.startswith(small) else "max"


def number(value: float, metric: str) -> str:
    """A metric for people to read.

    >>> number(0.91234, "accuracy/mean"), number(0.91234, "loss/mean"), number(8000.0, "samples")
    ('91.23 %', '0.9123', '8,000')
    """
    if metric.startswith("accuracy"):
        return f"{value * 100:.2f} %"
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4f}"


def readable(metric: str) -> str:
    """A metric in words.

    >>> [readable(name) for name in ("accuracy/worst", "bits_per_byte/docs", "loss/mean", "batches")]
    ["worst source's accuracy", 'bits per byte of docs', 'mean loss', 'batches']
    """
    family, _, of = metric.partition("/")
    family = family.replace("_", " ")
    whole = {"": family, "worst": f"worst source's {family}"}
    whole |= {each: f"{each} {family}" for each in ("mean", "weighted")}
    return whole.get(of, f"{family} of {of}")


def direction(metric: str, goal: str) -> str:
    """Which way a metric is better, in words."""
    return {"max": "more is better", "min": "less is better"}[goal_of(metric, goal)]


def best(groups: Sequence[Setting], metric: str, goal: str) -> Setting | None:
    """The setting whose mean over the seeds is best; None where no job reports the metric."""
    sign = 1 if goal_of(metric, goal) == "max" else -1
    measured = [group for group in groups if group.mean(metric) is not None]
    return max(measured, key=lambda group: sign * (group.mean(metric) or 0.0), default=None)


def related(results: Sequence[Result], metric: str) -> list[str]:
    """The metrics to show: that by which jobs are judged, then its family, as `accuracy/…`; else all."""
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    if metric not in names:
        return names
    family = metric.partition("/")[0] + "/"
    return [metric, *(name for name in names if name.startswith(family) and name != metric)]


def complaints(results: Sequence[Result]) -> dict[str, list[int]]:
    """The numbers of the jobs that are not done, by what ended them."""
    jobs: dict[str, list[int]] = {}
    for result in results:
        if result.why:
            jobs.setdefault(result.why, []).append(result.job)
    return jobs


def stand_ins(results: Sequence[Result]) -> list[str]:
    """The sources that were not real data but stand-ins, in any job."""
    sources = (item for result in results for item in result.sources.items())
    return list(dict.fromkeys(name for name, source in sources if source.get("provenance") == "stand-in"))
