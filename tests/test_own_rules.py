"""Orders, stops and weightings of a user's own: a module and a YAML file each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix import registry
from datamix.errors import ConfigError, RegistryError
from datamix.mixing.demand import Demand
from datamix.mixing.periods import Period, Runs, Table
from datamix.mixing.plan import Plan
from datamix.mixing.stops import Stop
from datamix.mixing.weights import Number

MODULE = """
import numpy as np

import datamix
from datamix.mixing.demand import Demand
from datamix.mixing.periods import Table
from datamix.mixing.stops import Stop


@datamix.order
def blocks(demand: Demand, *, times: int = 2) -> Table:
    return Table.of(np.repeat(demand.active, times), demand.num_sources)


@datamix.stop
def after(*, source: str, times: int = 1) -> Stop:
    return Stop(waits_for="all", sources=(source,), epochs={source: times}, repeats=True)


@datamix.weighting
def root(sizes, *, power: float = 0.5):
    return {name: size**power for name, size in sizes.items()}
"""
FILES = {
    "mix/blocks.yaml": "_target_: blocks\ntimes: 3\n",
    "stop/after.yaml": "_target_: after\nsource: ???\ntimes: 1\n",
    "weighting/root.yaml": "_target_: root\npower: 0.5\n",
}


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Takes back the modules that registered something, so that the next test imports them again."""
    yield
    for name in [name for name in sys.modules if name.startswith("own_rules")]:
        del sys.modules[name]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A directory of configs, beside a module."""
    (tmp_path / "own_rules.py").write_text(MODULE)
    for name, text in FILES.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "own"


def module(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(configs.parent)
    registry.load_plugins(["own_rules"])


def test_on_the_command_line(configs: Path, call_datamix: Callable[..., Any]) -> None:
    arguments = ["--config-dir", "own", "plugins=[own_rules]", "job=plan", "source=digits+garments"]
    limits = ["source.digits.limit=60", "source.garments.limit=240"]
    ended = call_datamix(*arguments, *limits, "mix=blocks", "stop=after", "stop.source=digits", "stop.times=3")
    # Three of digits, three of garments, … until 180 of digits; five records fill no batch.
    assert ended.report["plan"]["length"] == 180 + 177
    assert {name: row["samples"] for name, row in ended.report["sources"].items()} == {"digits": 177, "garments": 175}
    assert "blocks, after: 352 records in 22 batches of 16" in ended.out.splitlines()
    weighed = call_datamix(*arguments, *limits, "weighting=root")
    assert [row["target"] for row in weighed.report["sources"].values()] == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stop.source=digit", "stop: it waits for source 'digit', which is not in this mix. Did you mean 'digits'?"),
        ("stop.time=2", "stop.time"),
        ("mix.time=2", "mix.time"),
        ("mix.times=x", "mix.times = 'x'; it is a whole number."),
    ],
)
def test_mistakes_are_one_line(configs: Path, call_datamix: Callable[..., Any], setting: str, message: str) -> None:
    arguments = ["--config-dir", "own", "plugins=[own_rules]", "job=plan", "source=digits+garments", "mix=blocks"]
    ended = call_datamix(*arguments, "stop=after", *(["stop.source=digits"] * ("source" not in setting)), setting)
    (line,) = ended.err.strip().splitlines()[-1:]
    assert ended.code == 2
    assert message in line


def test_in_a_plan(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistryError, match=r"^no order 'blocks'\. "):
        Plan({"a": 4, "b": 9}, order="blocks")
    module(configs, monkeypatch)
    plan = Plan({"a": 4, "b": 9}, order="blocks", stop={"rule": "after", "source": "a", "times": 2}, shuffle=False)
    assert plan.take(0, 100).source.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert plan.with_weights({"a": 1}).length == plan.length == 14
    assert Plan({"a": 4, "b": 9}, order="blocks", times=1).take(0, 4).source.tolist() == [0, 1, 0, 1]
    weighed = Plan({"a": 400, "b": 100}, weighting={"rule": "root", "power": 1})
    assert [str(share) for share in weighed.shares] == ["4/5", "1/5"]


def test_a_stop_goes_with_every_order() -> None:
    @datamix.stop
    def after(*, source: str) -> Stop:
        return Stop(waits_for="any", sources=(source,), repeats=True)

    sizes = {"a": 5, "b": 3, "c": 40}
    for order in ("proportional", "round_robin", "random", "concat"):
        plan = Plan(sizes, order=order, stop={"rule": "after", "source": "b"})
        endless = Plan(sizes, order=order, stop="forever").take(0, 100).source
        assert plan.length == int(np.flatnonzero(endless == 1)[2]) + 1
    scheduled = [{"until": 10, "ratio": "1:0:1"}, {"ratio": "1:1:0"}]
    plan = Plan(sizes, stop={"rule": "after", "source": "b"}, schedule=scheduled)
    assert plan.counts(plan.length or 0)[1] == 3
    scheduled = [{"until": 2, "weights": {}}, {"ratio": "1:0:0"}]
    plan = Plan(sizes, stop={"rule": "after", "source": "b"}, schedule=scheduled)
    assert plan.length == 2  # b is not mixed any more, and not waited for
    without = Plan(sizes, {"b": 0}, stop={"rule": "after", "source": "b"}, order="round_robin")
    assert without.length == 9  # it waits for a and c, and a has five records


def test_a_stop_itself() -> None:
    plan = Plan({"a": 5, "b": 3}, stop=Stop(waits_for="any", repeats=True), order="round_robin")
    assert plan.length == 6  # right after the last record of b, where first_exhausted takes one more of a
    assert Plan({"a": 5, "b": 3}, stop="first_exhausted", order="round_robin").length == 7
    epochs = Stop(waits_for="any", repeats=True, epochs={"b": 2})
    assert Plan({"a": 5, "b": 3}, stop=epochs, order="round_robin").length == 9  # right after the last record of a
    assert Plan({"a": 5, "b": 3}, stop=epochs, epochs={"b": 1}, order="round_robin").length == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"waits_for": "all"},
            r"^a stop that waits for all sources repeats records; set repeats=True",
        ),
        ({"waits_for": None}, r"^a stop that waits for no source repeats records; set repeats=True"),
        ({"waits_for": "any", "drops": True, "repeats": True}, r"^a stop under which sources drop out waits for any"),
        ({"waits_for": "any", "sources": ("a",)}, r"^a stop that waits for some sources alone lets the others repeat"),
    ],
)
def test_what_is_no_stop(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Stop(**settings)


def test_what_does_not_keep_the_contract() -> None:
    @datamix.order
    def listed(demand: Demand) -> Any:
        return [0, 1]

    @datamix.order
    def first_only(demand: Demand) -> Period:
        return Table.of([0], demand.num_sources)

    @datamix.stop
    def never() -> Any:
        return "never"

    @datamix.weighting
    def some(sizes: Mapping[str, int]) -> Mapping[str, Number]:
        return {"a": 1}

    sizes = {"a": 5, "b": 3}
    with pytest.raises(ConfigError, match=r"^an order gives a period, such as .*\.Table, not \[0, 1\]\.$"):
        Plan(sizes, order="listed")
    with pytest.raises(ConfigError, match=r"^the order gives source 'b' no slot, though it has a share; "):
        Plan(sizes, order="first_only", stop="all_exhausted")
    with pytest.raises(
        ConfigError, match=r"^stop = 'never'; it gives 'never'; a stop gives a datamix\.mixing\.stops\.Stop\.$"
    ):
        Plan(sizes, stop="never")
    with pytest.raises(
        ConfigError, match=r"^weighting = 'some'; it gives \{'a': 1\} and not one weight for each of a, b\.$"
    ):
        Plan(sizes, weighting="some")
    with pytest.raises(ConfigError, match=r"^stop: it waits for source 'c', which is not in this mix\. Known: a, b\.$"):
        Plan(sizes, stop=Stop(waits_for="any", sources=("c",), repeats=True))


def test_a_kind_of_period_says_itself_what_reports_ask_of_it() -> None:
    """A kind of one's own, with runs that do not decide the shares, is reported like any other."""

    class Other(Runs):
        sets_shares = False  # type: ignore[assignment]

    @datamix.order
    def other(demand: Demand) -> Period:
        return Other((2, 2))

    plan = Plan({"a": 6, "b": 3}, {"a": 2}, order="other")
    assert [str(share) for share in plan.targets] == ["2/3", "1/3"]
    assert plan.long_run_share(0) == 0.5
    assert plan.max_deviation() == (pytest.approx(2 / 3), 7)
