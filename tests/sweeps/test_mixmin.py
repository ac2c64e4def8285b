"""MixMin: the convex problem, which runs count, and what comes of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from datamix.errors import DataError
from datamix.sweeps.mixmin import least, loss, mixmin
from datamix.sweeps.results import read_results
from datamix.sweeps.suggesting import weighted
from datamix.sweeps.watching import ResultFile

# The distributions of three sources over four values, and the mixture of them that the target is.
SOURCES = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.05, 0.15, 0.2, 0.6]])
SHARES = np.array([0.2, 0.5, 0.3])


def test_the_mixture_that_has_made_the_records_is_found():
    weights = SHARES @ SOURCES  # of each value, as often as it comes
    assert least(np.log(SOURCES), weights) == pytest.approx(SHARES, abs=5e-3)
    assert loss(np.log(SOURCES), weights, SHARES) == pytest.approx(-(weights * np.log(weights)).sum())


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0], ids=["classes", "sentences", "documents"])
def test_no_mixture_is_better(scale):
    draw = np.random.default_rng(0)
    logs = scale * np.log(draw.dirichlet(np.ones(5), size=(3, 40))[..., 0])
    weights = draw.random(40)
    found = least(logs, weights)
    assert found.sum() == pytest.approx(1)
    others = [loss(logs, weights, each) for each in draw.dirichlet(np.full(3, 0.7), 3000)]
    assert loss(logs, weights, found) <= min(others) + 1e-4 * weights.sum()
    assert least(logs, weights, draw.dirichlet(np.ones(3))) == pytest.approx(found, abs=1e-2)


@pytest.fixture
def leave(tmp_path):
    """Leaves a run of each source alone, that knows its distribution, over two seeds; `target` is not trained on."""

    def left(name="sweep", num_records=4000, extra=0):
        records = np.random.default_rng(1).choice(4, num_records, p=SHARES @ SOURCES)
        for job, (place, seed) in enumerate((place, seed) for place in range(3) for seed in (0, 1)):
            directory = tmp_path / name / str(job)
            directory.mkdir(parents=True)
            shares = {source: float(source == "abc"[place]) for source in ("a", "b", "c", "target")}
            ratio = [f"mix.share.{source}={share}" for source, share in shares.items()]
            config = {"seed": seed, "mix": {"share": shares}, "source": {key: {} for key in shares}}
            file = ResultFile(directory, job=job, overrides=["job=train", *ratio, f"seed={seed}"], config=config)
            probability = SOURCES[place] + 0.02 * np.random.default_rng(seed).random(4)
            rows = np.stack([np.log(probability / probability.sum())[records], np.ones(num_records)])
            own = rows[:, : 50 + extra * job]
            np.savez(directory / "predictions.npz", target=rows, a=own, b=own, c=own)
            metrics = {f"loss/{source}": 1.0 for source in shares} | {"loss/mean": 1.0, "loss/worst": 1.0}
            sources = {source: {"target": share, "share": share} for source, share in shares.items()}
            file.end_well({"metrics": metrics, "sources": sources})
        return tmp_path / name

    return left


def mixture_of(directory, metric="loss/target", weights=None):
    return mixmin(*weighted(read_results(directory), metric, "auto", weights or {}))


def test_a_source_that_is_only_tested_is_the_target(leave, tmp_path):
    mixture = mixture_of(leave())
    plain = mixture.write(tmp_path)
    assert json.loads((tmp_path / "mixmin.json").read_bytes()) == plain
    assert (plain["target"], plain["seeds"], plain["verdict"], plain["grid"]) == ({"target": 1}, 2, "clear", None)
    assert list(plain["best"]) == ["a", "b", "c"]
    assert [*plain["best"].values()] == pytest.approx(SHARES, abs=0.06)
    for name, share in zip("abc", SHARES, strict=True):
        low, high = plain["interval"][name]
        assert low <= plain["best"][name] <= high
        assert low - 0.03 <= share <= high + 0.03
    assert plain["predicted"] < min(plain["alone"].values())
    assert plain["gain"] < 0
    assert plain["commands"] == [f"datamix job=train {plain['next'][0]}"]
    assert re.match(r"MixMin, .*: a \d.* % .* on target 100.0 %, −.* against equal shares\.$", mixture.words())


def test_weights_make_a_target_of_several_sources(leave):
    directory = leave()
    assert mixture_of(directory, "loss/mean").target == dict.fromkeys(["a", "b", "c", "target"], 0.25)
    mixture = mixture_of(directory, "loss/mean", {"a": 1, "target": 3})
    assert mixture.target == {"a": 0.25, "target": 0.75}
    assert mixture.loss == pytest.approx(0.25 * mixture_of(directory, "loss/a").loss + 0.75 * 1.35, abs=0.2)


def test_one_source_or_runs_of_mixes_lead_to_none(leave):
    results = read_results(leave())
    assert mixmin(*weighted(results[:2], "loss/mean", "auto", {})) is None
    (results[0].directory / "predictions.npz").unlink()
    kept = mixmin(*weighted(read_results(results[0].directory.parent), "loss/target", "auto", {}))
    assert kept.num_seeds == 1
    assert kept.words().endswith("With one seed, the intervals know of the test records alone.")


def test_a_seed_that_was_run_twice_is_one_seed(leave):
    first = [result for result in read_results(leave()) if result.seed == 0]
    mixture = mixmin(*weighted(first * 2, "loss/target", "auto", {}))
    assert mixture.num_seeds == 1


def test_runs_that_were_tested_on_other_records_are_refused(leave):
    with pytest.raises(DataError, match="the runs of one source each were not tested on the same records; begin "):
        mixture_of(leave(extra=1), "loss/mean")


@pytest.mark.slow
def test_the_experiment_and_a_grid_beside_it(call_datamix, tmp_path):
    small = ["source=digits+garments", "model=linear", "train.steps=40", "train.eval_every=40", "seed=0,1"]
    small += ["source.digits.limit=2000", "source.garments.limit=2000", "sweep.goal_weights.digits=3"]
    small += ["sweep.goal_weights.garments=1", "sweep.metric=loss/mean"]
    ended = call_datamix("experiment=mixmin", *small, "hydra.sweep.dir=alone")
    assert (ended.code, ended.err) == (0, "")
    assert "4 jobs in one program" in ended.out
    plain = json.loads((tmp_path / "alone" / "mixmin.json").read_bytes())
    assert plain["best"]["digits"] == pytest.approx(0.75, abs=0.05)  # no model of one source gives the other's classes
    assert not (tmp_path / "alone" / "suggest.json").exists()
    assert "MixMin, from the predictions" in (tmp_path / "alone" / "sweep.html").read_text()

    ratios = 'hydra.sweeper.ratios=["1:4","1:1","4:1"]'
    grid = call_datamix("-m", "job=train", "hydra/sweeper=simplex", ratios, *small, "hydra.sweep.dir=grid")
    assert grid.code == 0
    ended = call_datamix("job=suggest", "sweep.dir=[grid,alone]", *small[-3:], "hydra.run.dir=answer")
    plain = json.loads((tmp_path / "answer" / "mixmin.json").read_bytes())["grid"]
    low, high = plain["here"][1:]
    assert (plain["metric"], low <= plain["here"][0] <= high) == ("loss/weighted", True)
    assert "There the sweep predicts weighted loss of " in ended.out
