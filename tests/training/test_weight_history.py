"""Runs whose weights follow training: cut short and resumed, together, from the host, and again as a schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamix import registry
from datamix.errors import ConfigError, StateError
from datamix.pipeline.lookup.credit import TOTAL
from datamix.pipeline.policies import Odm, policy
from datamix.training.runs import fit
from datamix.training.weight_history import check_export, counts, deviation, summary, write_schedule

WINDOWS = {0: ([TOTAL // 2, TOTAL // 2], [8, 8]), 2: ([TOTAL // 4, 3 * TOTAL // 4], [5, 11])}
ADAPT = ("adapt=loss_temperature", "adapt.every=2", "adapt.temperature=0.05")


def test_what_windows_say():
    assert counts(WINDOWS) == [13, 19]
    assert summary("odm", ["a", "b"], WINDOWS) == {
        "rule": "odm",
        "steps": [0, 2],
        "weights": {"a": [0.5, 0.25], "b": [0.5, 0.75]},
        "shares": {"a": [0.5, 5 / 16], "b": [0.5, 11 / 16]},
        "mean": {"a": 0.375, "b": 0.625},
    }
    assert deviation(WINDOWS) == 1
    assert deviation(WINDOWS, [0.5, 0.5]) == 3


def test_the_schedule_of_windows(tmp_path):
    windows = {0: WINDOWS[0], 2: WINDOWS[0], 4: WINDOWS[2]}
    path = write_schedule(tmp_path, "again", ["a", "b"], windows, 5)
    assert path == tmp_path / "mix" / "again.yaml"
    equal, last = {"a": TOTAL // 2, "b": TOTAL // 2}, {"a": TOTAL // 4, "b": 3 * TOTAL // 4}
    assert OmegaConf.to_container(OmegaConf.load(path)) == {
        "_target_": "largest_credit",
        "schedule": [{"until": 4, "weights": equal}, {"until": 5, "weights": last}, {"weights": last}],
    }


@pytest.mark.slow
def test_a_checkpoint_of_another_policy_or_without_one_is_refused(make, trained):
    trained(make(*ADAPT))
    for overrides in (["adapt=odm"], [*ADAPT, "adapt.floor=0.1"], [*ADAPT, "batch.size=4"], []):
        with pytest.raises(StateError, match=r"checkpoints/6: this state was taken "):
            make(*overrides, "train.resume=true")
    with pytest.raises(ConfigError, match=r"^adapt = 'loss_temperature'; a mix that follows losses cannot be changed "):
        make(*ADAPT, "train.resume=changed")


def adapted(run):
    assert run.learner.adapt is not None
    return {step: (weights, given) for step, (weights, given) in run.adapted.items()}


@pytest.mark.slow
def test_a_run_adapts_and_counts_what_it_gave(make, trained):
    run = trained(make(*ADAPT, "train.eval_every=3"))
    assert list(run.adapted) == [0, 2, 4]
    weights = [row for row, _ in run.adapted.values()]
    assert weights[0] == [TOTAL // 2] * 2
    assert weights[1] != weights[0]
    assert {sum(row) for row in weights} == {TOTAL}
    assert {sum(given) for _, given in run.adapted.values()} == {16}
    assert deviation(run.adapted) <= 1 + np.log(2)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["loss_temperature", "odm", "ado", "doremi"])
def test_resuming_at_every_checkpoint_ends_the_same(make, trained, numbers, rule):
    overrides = (f"adapt={rule}", "adapt.every=3")
    expected = trained(make(*overrides, directory="whole"))
    for stop in (2, 4):
        trained(make(*overrides, f"train.steps={stop}", directory=f"cut{stop}"))
        resumed = trained(make(*overrides, "train.resume=true", directory=f"cut{stop}"))
        assert resumed.note == f"train.resume: the run goes on after step {stop} of 6."
        assert adapted(resumed) == adapted(expected)
        for name, values in numbers(expected).items():
            np.testing.assert_array_equal(numbers(resumed)[name], values)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["threads", "vmap"])
def test_runs_together_are_as_runs_alone(make, trained, execution):
    each = ["seed=1", "mix.share.across=0.2"]
    alone = [trained(make(*ADAPT, override, directory=f"alone{i}")) for i, override in enumerate(each)]
    first = make(*ADAPT, each[0], directory="0")
    runs = [first, make(*ADAPT, each[1], directory="1", like=first)]
    fit(runs, lambda _: None, execution)
    for run, other in zip(runs, alone, strict=True):
        for step, (weights, given) in other.adapted.items():
            np.testing.assert_allclose(run.adapted[step][0], weights, atol=1e-4 * TOTAL)
            np.testing.assert_allclose(run.adapted[step][1], given, atol=execution == "vmap")


@pytest.mark.slow
def test_records_read_on_the_host_train_the_same_model(make, trained, numbers):
    resident, fed = (trained(make(*ADAPT, f"data.placement={place}", directory=place)) for place in ("device", "host"))
    assert adapted(fed) == adapted(resident)
    for name, values in numbers(resident).items():
        np.testing.assert_array_equal(numbers(fed)[name], values)


@pytest.mark.slow
def test_an_exported_schedule_gives_the_same_records(make, trained, tmp_path, numbers):
    run = trained(make(*ADAPT))
    (tmp_path / "mix").mkdir()
    write_schedule(tmp_path, "again", ["across", "down"], run.adapted, run.steps)
    again = trained(make("mix=again", directory="again"))
    of_mix = [name for name in numbers(again) if not name.startswith(".adapt")]
    for name in of_mix:
        np.testing.assert_array_equal(numbers(again)[name], numbers(run)[name])
    assert again.metrics.lines == run.metrics.lines
    assert again.data.pipeline.plan.counts(48) == counts(run.adapted)


@pytest.mark.slow
def test_a_policy_of_ones_own_whose_weights_become_no_numbers_ends_its_run(make, tmp_path):
    class Broken:
        def init(self, num_sources):
            return np.zeros(num_sources, np.float32)

        def update(self, state, loss, count):
            return state + 1

        def weights(self, state):
            return 2.5 - state  # -0.5 each at the third update

    with registry.registered():
        policy(Broken)
        (tmp_path / "adapt").mkdir()
        (tmp_path / "adapt" / "broken.yaml").write_text("_target_: broken\nevery: 1\n")
        run = make("adapt=broken", "train.steps=8", "train.eval_every=4")
        fit([run], lambda _: None)
    assert (
        str(run.error)
        == "adapt = 'broken'; at step 3 it gives weights that are no numbers of 0 or more with one above 0."
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapt.max_epochs=1", "train.steps=20"], r"^adapt\.max_epochs = 1; 20 steps of 8 need some 162 records, and "
         r"all sources have 120 an epoch\. Make it 2 or more, or train\.steps smaller\.$"),
        (["adapt.export=a/b"], r"^adapt\.export = 'a/b'; it is a name of letters, digits, _ and -\.$"),
    ],
)  # fmt: skip
def test_mistakes_before_the_first_step(make, overrides, message):
    with pytest.raises(ConfigError, match=message):
        make(*ADAPT, *overrides)


def test_weights_of_losses_are_no_schedule(make):
    adapt = make("adapt=doremi").learner.adapt
    assert adapt is not None
    check_export(None, adapt, ["a.b"])
    with pytest.raises(ConfigError, match=r"^adapt\.export = 'x'; adapt=doremi weighs losses, not records, which no"):
        check_export("x", adapt, ["a"])
    with pytest.raises(
        ConfigError, match=r"^adapt\.export = 'x'; a schedule of its weights has no place for sources of"
    ):
        check_export("x", replace(adapt, policy=Odm()), ["a.b", "c"])
