"""Compare weights that follow training with fixed weights: a table of every policy and of static shares.

    python scripts/adapt_study.py images data.dir=DIR
    python scripts/adapt_study.py text +vars.corpora=DIR

Each policy begins at equal shares. The policies are compared with equal shares, with shares in proportion to the number
of records, and with a small grid of shares, the best of which is the one to beat; its result is slightly optimistic, as
it was selected by this result. All runs have the same steps and seeds. Differences from equal shares are taken per
seed, with Student's intervals of 90 %. Further arguments are overrides of all runs, such as seed=5,6,7.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

POLICIES = "adapt=none,loss_temperature,odm,ado,doremi"
IMAGES = ["experiment=adapt_study"]
TEXT = ["source=code+docs+scripture", "job=train", "model=transformer", "model.width=64", "model.layers=2",
        "model.hidden=192", "optimizer.learning_rate=0.003", "optimizer.schedule=cosine", "batch.size=8",
        "train.steps=400", "train.eval_every=200", "hydra/launcher=vmap", "source.code.test_split=test[:5]",
        "source.docs.test_split=test[:7]", "source.scripture.test_split=test[:20]",
        "sweep.metric=bits_per_byte/worst"]  # fmt: skip
SWEPT = ("mix.share.mnist", "mix.ratio", "weighting", "adapt")
STUDIES = {
    "images": (IMAGES, "accuracy/worst", True, "mix.share.mnist=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"),
    "text": (TEXT, "bits_per_byte/worst", False, "mix.ratio=4:1:1,1:4:1,1:1:4,2:2:1,2:1:2,1:2:2"),
}
"""What all runs have, the metric, whether more of it is better, and the grid."""


def results(overrides: Sequence[str], directory: Path) -> list[dict[str, Any]]:
    """Run a sweep, and return those of its jobs that are done."""
    subprocess.run([sys.executable, "-m", "datamix", "-m", *overrides, f"hydra.sweep.dir={directory}"], check=True)
    return [job for job in json.loads((directory / "sweep.json").read_text()) if job["status"] == "done"]


def by_setting(jobs: Sequence[dict[str, Any]], metric: str) -> dict[str, dict[str, float]]:
    """The metric of each seed, by the setting of the other swept keys."""
    settings: dict[str, dict[str, float]] = {}
    for job in jobs:
        choices = dict(each.split("=", 1) for each in job["overrides"])
        seed = choices.pop("seed")
        name = next((f"{key}={choices[key]}" for key in SWEPT if key in choices), "")
        settings.setdefault(name, {})[seed] = job["metrics"][metric]
    return settings


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the half width of Student's interval of 90 %."""
    half = t.ppf(0.95, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


def main() -> None:
    study, *overrides = sys.argv[1:] or ["images"]
    common, metric, more_is_better, grid = STUDIES[study]
    seeds = next((each for each in overrides if each.startswith("seed=")), "seed=0,1,2,3,4")
    overrides = [*common, *(each for each in overrides if each != seeds), seeds]
    settings: dict[str, dict[str, float]] = {}
    directory = Path(tempfile.mkdtemp(prefix="adapt_study_"))
    for i, swept in enumerate((POLICIES, "weighting=size adapt=none", f"{grid} adapt=none")):
        settings |= by_setting(results([*overrides, *swept.split()], directory / str(i)), metric)
    print(f"All runs: {directory}")
    equal = settings.pop("adapt=none")
    choose = max if more_is_better else min
    best = choose(
        (name for name in settings if name.startswith("mix.")),
        key=lambda name: statistics.mean(settings[name].values()),
    )
    shown = {name: values for name, values in settings.items() if not name.startswith("mix.") or name == best}
    goal = statistics.mean(settings[best].values())
    print(f"| {study}, {len(equal)} seeds | {metric} | against equal shares | against the grid's best |")
    print("|---|---|---|---|")
    for name, values in {"equal shares": equal, **shown}.items():
        mean, half = interval(list(values.values()))
        gain, of_gain = interval([value - equal[seed] for seed, value in values.items()])
        against = "" if values is equal else f"{gain:+.4f} ± {of_gain:.4f}"
        print(f"| {name} | {mean:.4f} ± {half:.4f} | {against} | {mean - goal:+.4f} |")


if __name__ == "__main__":
    main()
