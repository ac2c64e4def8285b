"""The results of the jobs of a sweep: read from their files, grouped over seeds, and compared."""

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
"""The file that each job of a sweep writes into its directory."""
SUGGESTION = "suggest.json"
MIXMIN = "mixmin.json"
ROUNDS = "rounds.json"
"""The file of the rounds that have continued a sweep."""

# mix.schedule is among them: it is null in jobs that get a suggestion, and the simplex sweeper refuses that key.
_RATIO_OR_SEED = re.compile(r"\+*(mix\.(share|ratio|weights|schedule)\b.*|seed|sweep\..*)")
_CLEARS = re.compile(r"\+*mix\.(ratio|weights|schedule)\b[^=]*=null")
_READS_FILES = ("--config", "experiment=", "mix=")  # the beginnings of arguments by which a file may set a ratio
_USUAL = ("accuracy/worst", "bits_per_byte/worst", "r2/worst", "mse/worst", "loss/worst")  # by task


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one job of a sweep.

    Attributes:
      sweep: The directory of the sweep if several are compared; otherwise empty.
      job: The number of the job.
      directory: The directory of the job.
      overrides: The overrides of its command line, by key.
      status: "done", "failed" or "interrupted".
      error: The text of the error that ended it; None if it is done.
      kind: The class of that error; None if it is done or was interrupted.
      metrics: The finite metrics, by name.
      config: The resolved configuration, without the parts of Hydra and of the sweep.
      sources: `share`, `target` and `provenance` of each source of its mix.
      seconds: How long it took; None if it has not ended.
      command: The arguments of its command line: the flags that find its configs, then the overrides as typed.
      launch: The overrides that choose how the jobs of its sweep are launched, and the least share.
      least_share: The least share of a source that its sweep tries by itself, `hydra.sweeper.min`; 0 for none.
      notes: The notes of its report.
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
    launch: tuple[str, ...] = ()
    least_share: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def seed(self) -> Any:
        """The seed of its configuration."""
        return self.config.get("seed")

    @property
    def why(self) -> str | None:
        """The error that ended it, with its kind; None if it is done."""
        return self.error and f"{self.kind or 'Interrupted'}: {self.error}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The results, one or more, of jobs that differ only in their seed."""

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """The first result that has the shares of the sources; if none has, the first one."""
        return next((result for result in self.results if result.sources), self.results[0])

    def values(self, metric: str) -> list[float]:
        """The known values of a metric, one per seed: a second run with one seed adds no information."""
        done = [each for each in self.results if each.status == "done" and metric in each.metrics]
        return [*{str(each.seed): each.metrics[metric] for each in done}.values()]

    def mean(self, metric: str) -> float | None:
        """The mean of a metric over the seeds; None if no job reports it."""
        return statistics.fmean(values) if (values := self.values(metric)) else None

    def deviation(self, metric: str) -> float:
        """The sample standard deviation of a metric over the seeds; 0 for fewer than two."""
        return statistics.stdev(values) if len(values := self.values(metric)) > 1 else 0.0


def read_sweeps(directories: Sequence[str]) -> dict[Path, list[Result]]:
    """Read the results of the sweeps that `sweep.dir` names, by directory.

    Raises:
      ConfigError: A directory does not exist, or has no results.
      DataError: A result file is damaged.
    """
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
    """Read the result files below the directory of a sweep, in the order of the jobs."""
    results = (read_result(path) for path in directory.rglob(RESULT) if path.is_file())
    return sorted(results, key=lambda result: result.job)


def read_result(path: Path) -> Result:
    """Read the result file of a job.

    Raises:
      DataError: The file is damaged.
    """
    try:
        plain = json.loads(path.read_bytes())
        done = plain["status"] == "done"
        metrics = {name: float(value) for name, value in plain["metrics"].items() if value is not None}
        return Result(
            job=int(plain["job"]),
            directory=path.parent,
            overrides=by_key(plain["overrides"]),
            # The status of a job that was killed is still "begun".
            status=plain["status"] if done or plain["status"] == "failed" else "interrupted",
            error=plain["error"] or (None if done else "it did not come to its end"),
            kind=plain["kind"],
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            config=dict(plain["config"]),
            sources=dict(plain["sources"]),
            seconds=plain["seconds"],
            command=tuple(map(str, [*plain.get("flags", ()), *plain["overrides"]])),
            launch=tuple(map(str, plain.get("launch", ()))),
            least_share=float(plain.get("least_share", 0)),
            notes=tuple(map(str, plain.get("notes") or ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        mend = "delete it, and sweep.resume=true runs its job again"
        raise DataError(f"{path} is damaged ({error!r}); {mend}.") from error


def written_rounds(directory: Path) -> tuple[int, list[dict[str, Any]]]:
    """Read the rounds that have continued a sweep.

    Returns:
      The number of the first job of the first round, and the rounds: `ratios`, `seeds`, the number of the job that has
      the same other settings (`like`), and whether a larger `num_jobs` has `asked` for the round. 0 and an empty list
      if there are no rounds.

    Raises:
      DataError: The file is damaged.
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
    """Whether an override sets neither the ratio, nor the seed, nor a key of `sweep`.

    >>> [sets_no_ratio(each) for each in ("mix.share.a=0.5", "mix.schedule=null", "seed=1", "mix.window=8")]
    [False, True, False, True]
    """
    return bool(_CLEARS.fullmatch(override)) or not _RATIO_OR_SEED.fullmatch(override.partition("=")[0])


def apart_from_ratio(command: Sequence[str], mix: Mapping[str, Any]) -> list[str]:
    """The arguments of a job that set neither ratio nor seed, and what clears the weights and ratios of its files.

    Shares can then be set, as a source has a weight or a share.

    Args:
      command: The arguments of the command line of the job.
      mix: The group `mix` of its configuration.

    >>> apart_from_ratio(["experiment=mine", "mix.weights.a=2", "seed=1"], {"weights": {"a": 2, "b": 3}})
    ['experiment=mine', 'mix.weights.a=null', 'mix.weights.b=null']
    """
    kept, reads_files = list(filter(sets_no_ratio, command)), any(each.startswith(_READS_FILES) for each in command)
    values = {"mix.ratio": mix.get("ratio")}
    values |= {f"mix.weights.{name}": weight for name, weight in (mix.get("weights") or {}).items()}
    # The weights of the members of a mix within the mix may stay.
    numbers = [key for key, value in values.items() if value is not None and not isinstance(value, Mapping)]
    return kept + [f"{key}=null" for key in numbers if reads_files or key not in by_key(command)]


def seed_groups(results: Sequence[Result]) -> list[Setting]:
    """Group results that differ only in their seed, in the order of their first jobs."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        rest = {key: value for key, value in result.config.items() if key != "seed"}
        groups.setdefault(json.dumps([result.sweep, rest], sort_keys=True), []).append(result)
    return [Setting(results=group) for group in groups.values()]


def swept(results: Sequence[Result]) -> list[str]:
    """The keys of the overrides that differ between jobs, without the seed; "sweep" comes first for several sweeps."""
    keys = dict.fromkeys(key for result in results for key in result.overrides)
    differ = [key for key in keys if len({result.overrides.get(key) for result in results}) > 1 and key != "seed"]
    return ["sweep"] * (len({result.sweep for result in results}) > 1) + differ


def swept_value(result: Result, key: str) -> str:
    """The value of a job for one of the keys of `swept`; empty if it does not set it."""
    return result.sweep if key == "sweep" else result.overrides.get(key, "")


def shown_value(result: Result, key: str) -> str:
    """The value of `swept_value` in readable form; the numbers of a search have four digits."""
    value = re.sub(r"\\(.)", r"\1", printable(swept_value(result, key)))  # Hydra's sweeper escapes a colon
    return f"{float(value):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", value) else value


def metric_of(asked: str, reported: Collection[str]) -> str:
    """The metric by which jobs are judged: the one that is asked for, or for "auto" that of the worst source.

    Args:
      asked: The setting `sweep.metric`.
      reported: The metrics that jobs report.

    >>> metric_of("auto", ["loss/mean", "bits_per_byte/worst"]), metric_of("loss/mean", [])
    ('bits_per_byte/worst', 'loss/mean')
    """
    return asked if asked != "auto" else next((name for name in _USUAL if name in reported), _USUAL[0])


def goal_of(metric: str, goal: str) -> str:
    """Whether a metric should be as large ("max") or as small ("min") as possible.

    Args:
      metric: The name of the metric.
      goal: The setting `sweep.goal`; "auto" decides by the name of the metric.

    >>> goal_of("accuracy/worst", "auto"), goal_of("loss/mean", "auto"), goal_of("loss/mean", "max")
    ('max', 'min', 'max')
    """
    if goal != "auto":
        return goal
    small = ("loss", "error", "max_deviation", "mse", "perplexity", "bits_per_byte")
    return "min" if metric.startswith(small) else "max"


def number(value: float, metric: str) -> str:
    """The value of a metric in readable form.

    >>> number(0.91234, "accuracy/mean"), number(0.91234, "loss/mean"), number(8000.0, "samples")
    ('91.23 %', '0.9123', '8,000')
    """
    if metric.startswith("accuracy"):
        return f"{value * 100:.2f} %"
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4f}"


def readable(metric: str) -> str:
    """The name of a metric in words.

    >>> [readable(name) for name in ("accuracy/worst", "bits_per_byte/docs", "loss/mean", "batches")]
    ["worst source's accuracy", 'bits per byte of docs', 'mean loss', 'batches']
    """
    family, _, source = metric.partition("/")
    family = family.replace("_", " ")
    whole = {"": family, "worst": f"worst source's {family}"}
    whole |= {each: f"{each} {family}" for each in ("mean", "weighted")}
    return whole.get(source, f"{family} of {source}")


def direction(metric: str, goal: str) -> str:
    """Whether more or less of a metric is better, in words."""
    return {"max": "more is better", "min": "less is better"}[goal_of(metric, goal)]


def best(groups: Sequence[Setting], metric: str, goal: str) -> Setting | None:
    """The setting whose mean of a metric over the seeds is best; None if no job reports the metric."""
    sign = 1 if goal_of(metric, goal) == "max" else -1
    measured = [group for group in groups if group.mean(metric) is not None]
    return max(measured, key=lambda group: sign * (group.mean(metric) or 0.0), default=None)


def as_good(groups: Sequence[Setting], chosen: Setting, metric: str) -> list[Setting]:
    """The settings whose mean of a metric over the seeds is that of the best one, without that one."""
    best_mean = chosen.mean(metric) or 0.0
    means = [(group, group.mean(metric)) for group in groups if group.results != chosen.results]
    return [group for group, mean in means if mean is not None and math.isclose(mean, best_mean, rel_tol=1e-9)]


def is_tie(groups: Sequence[Setting], chosen: Setting | None, metric: str) -> bool:
    """Whether several settings report a metric, and all of them have the same mean of it."""
    reporting = [group for group in groups if group.mean(metric) is not None]
    return chosen is not None and 0 < len(as_good(groups, chosen, metric)) == len(reporting) - 1


def related(results: Sequence[Result], metric: str) -> list[str]:
    """The metrics to show: the one that jobs are judged by, then its family, such as `accuracy/…`.

    If no job reports that metric, these are all metrics.
    """
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    if metric not in names:
        return names
    family = metric.partition("/")[0] + "/"
    return [metric, *(name for name in names if name.startswith(family) and name != metric)]


def complaints(results: Sequence[Result]) -> dict[str, list[int]]:
    """The numbers of the jobs that are not done, by the error that ended them."""
    jobs: dict[str, list[int]] = {}
    for result in results:
        if result.why:
            jobs.setdefault(result.why, []).append(result.job)
    return jobs


def stand_ins(results: Sequence[Result]) -> list[str]:
    """The sources that were built-in stand-ins and not real data, in any job."""
    sources = (item for result in results for item in result.sources.items())
    return list(dict.fromkeys(name for name, source in sources if source.get("provenance") == "stand-in"))
