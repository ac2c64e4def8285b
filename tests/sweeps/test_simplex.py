"""The ratios that `hydra/sweeper=simplex` tries."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.sweeps.simplex import PARTS, Simplex, draw, rounded

NAMES = ["a", "b", "c"]
ANY = dict.fromkeys(NAMES, PARTS)
SWEEP = ["-m", "job=plan", "source=digits+garments", "hydra/sweeper=simplex"]


def test_corners_equal_shares_and_the_prior_come_first():
    points = draw(Simplex(num_jobs=5, min=0.1, prior={"a": 2}), NAMES, ANY)
    assert points == [
        (8000, 1000, 1000),
        (1000, 8000, 1000),
        (1000, 1000, 8000),
        (3334, 3333, 3333),
        (4500, 2750, 2750),
    ]


@pytest.mark.parametrize("more", [{}, {"strength": 8.0, "prior": "7:2:1"}, {"min": 0.2}, {"seed": 3}])
def test_more_ratios_begin_with_the_same_ones_and_each_adds_up_to_1(more):
    many = draw(Simplex(num_jobs=300, **more), NAMES, ANY)
    assert draw(Simplex(num_jobs=40, **more), NAMES, ANY) == many[:40]
    assert len(set(many)) == 300
    assert {sum(point) for point in many} == {PARTS}
    assert min(map(min, many)) >= more.get("min", 0) * PARTS


def test_ratios_are_drawn_round_the_prior():
    for strength, spread in ((2.0, 0.2), (50.0, 0.05)):
        points = np.array(draw(Simplex(num_jobs=400, prior="7:2:1", strength=strength), NAMES, ANY)[5:]) / PARTS
        np.testing.assert_allclose(points.mean(0), [0.7, 0.2, 0.1], atol=0.02)
        assert points[:, 0].std() == pytest.approx(spread, rel=0.3)


def test_ratios_that_repeat_a_source_too_often_are_not_drawn():
    points = np.array(draw(Simplex(num_jobs=50), NAMES, {"a": 2000, "b": PARTS, "c": 5000}))
    assert points[:, 0].max() <= 2000
    assert points[:, 2].max() <= 5000


def test_rounded_shares_keep_their_sum():
    assert rounded(np.array([0.12345, 0.12345, 0.7531])) == [1235, 1234, 7531]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min": 0.4}, r"hydra.sweeper.min = 0.4; 3 sources leave less than that to each; it is below 0.3333."),
        ({"prior": {"a": 0}}, r"hydra.sweeper.prior.a = 0; every source needs a weight above 0."),
        ({"prior": {"d": 1}}, r"hydra.sweeper.prior.* 'd'"),
        ({"prior": "1:2"}, r"hydra.sweeper.prior = .*2 numbers, but there are 3 sources"),
    ],
)
def test_settings_that_leave_no_ratio_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        draw(Simplex(num_jobs=4, **settings), NAMES, ANY)


def test_bounds_that_hardly_any_ratio_keeps_to_are_refused():
    with pytest.raises(ConfigError, match=r"only \d+ ratios keep to min, max_epochs and steps of 0.0001"):
        draw(Simplex(num_jobs=4), NAMES, {"a": 1, "b": 3000, "c": 5000})


@pytest.mark.slow
def test_the_sweep_combines_ratios_with_what_else_is_swept_and_goes_on_with_more(call_datamix, tmp_path):
    sweep = [*SWEEP, "seed=0,1", "hydra.sweep.dir=s"]
    assert call_datamix(*sweep, "hydra.sweeper.num_jobs=3").code == 0
    more = call_datamix(*sweep, "hydra.sweeper.num_jobs=4", "sweep.resume=true")
    assert more.code == 0
    assert more.out.count("is done already") == 6
    rows = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert [row["seed"] for row in rows] == [0, 1] * 4
    shares = [[override for override in row["overrides"] if "share" in override] for row in rows[::2]]
    assert shares[:3] == [
        ["mix.share.digits=0.9900", "mix.share.garments=0.0100"],
        ["mix.share.digits=0.0100", "mix.share.garments=0.9900"],
        ["mix.share.digits=0.5000", "mix.share.garments=0.5000"],
    ]


@pytest.mark.slow
def test_ratios_of_ones_own_are_swept_within_the_cap_on_epochs(call_datamix, tmp_path):
    own = ["hydra.sweeper.ratios=['7:3','1:1']", "hydra.sweep.dir=own"]
    assert call_datamix(*SWEEP, *own).code == 0
    rows = json.loads((tmp_path / "own" / "sweep.json").read_bytes())
    assert [row["shares"]["digits"] for row in rows] == pytest.approx([0.7, 0.5], abs=0.001)
    capped = ["source.digits.limit=100", "hydra.sweeper.max_epochs=2", "hydra.sweeper.num_jobs=5"]
    done = call_datamix(*SWEEP, *capped, "stop=forever", "stop.samples=1000", "hydra.sweep.dir=capped")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "capped" / "sweep.json").read_bytes())
    assert 0.1 < max(row["shares"]["digits"] for row in rows) <= 0.2


@pytest.mark.slow
def test_each_source_by_itself(call_datamix, tmp_path):
    assert call_datamix(*SWEEP, "hydra.sweeper.ratios=alone", "hydra.sweep.dir=alone").code == 0
    rows = json.loads((tmp_path / "alone" / "sweep.json").read_bytes())
    assert [row["shares"] for row in rows] == [{"digits": 1, "garments": 0}, {"digits": 0, "garments": 1}]


@pytest.mark.parametrize(
    ("overrides", "mistake"),
    [
        (["hydra.sweeper.num_jobs=0"], "ConfigError: hydra.sweeper.num_jobs = 0; it is 1 or more."),
        (["hydra.sweeper.strength=much"], "ConfigError: hydra.sweeper.strength = 'much'; it is a number."),
        (["mix.share.digits=0.1,0.2"], "ConfigError: mix.share.digits: hydra/sweeper=simplex draws the shares "),
        (["hydra.sweeper.ratios=['1:0:2']"], "ConfigError: hydra.sweeper.ratios = '1:0:2'; it has 3 numbers, "),
        (["source=digits"], "ConfigError: hydra/sweeper = 'simplex'; it draws ratios, and digits is the only source."),
        (["hydra.sweeper.max_epochs=2"], "ConfigError: hydra.sweeper.max_epochs = 2.0; it needs a budget of records; "),
    ],
)
def test_a_mistake_is_one_line(call_datamix, overrides, mistake):
    assert call_datamix(*SWEEP, *overrides).mistake.startswith(mistake)
