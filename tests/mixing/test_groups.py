from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.groups import Group, groups_of, resolve
from datamix.mixing.plan import Plan

NAMES = ["all.vision.mnist", "all.vision.fashion", "all.text", "audio"]
SIZES = dict.fromkeys(NAMES, 1000)
CHECK = settings(derandomize=True, deadline=None, max_examples=40)


def shares(names: list[str] = NAMES, **rules: object) -> list[str]:
    return [str(share) for share in resolve(names, **rules).leaf_shares()]  # type: ignore[arg-type]


def test_a_group_counts_as_one_source() -> None:
    assert shares() == ["1/8", "1/8", "1/4", "1/2"]
    assert shares(ratio="3:1") == ["3/16", "3/16", "3/8", "1/4"]
    assert shares(weights={"all": {"vision": {"mnist": 3}}}) == ["3/16", "1/16", "1/4", "1/2"]
    assert shares(weights={"all.vision": 2, "all.vision.mnist": 3}) == ["1/4", "1/12", "1/6", "1/2"]
    assert shares(share={"all": 0.8, "all.vision.fashion": 0.1}) == ["9/25", "1/25", "2/5", "1/5"]


def test_a_source_is_no_group_as_well() -> None:
    for names in (["a", "a.b"], ["a.b.c", "x", "a.b"]):
        with pytest.raises(
            ConfigError, match=r"^'(a|a\.b)' is a source, and '.*' a source within a mix of that name; ren"
        ):
            Plan(dict.fromkeys(names, 5))


def test_what_a_group_says_of_itself_comes_after_what_the_user_says() -> None:
    chosen = {"all.vision.mnist": 7, "all.vision.fashion": 3}
    assert shares(group_weights=chosen) == ["7/40", "3/40", "1/4", "1/2"]
    assert shares(group_weights=chosen, weights={"all.vision.fashion": 7}) == ["1/8", "1/8", "1/4", "1/2"]


def test_a_rule_sees_a_group_as_large_as_its_sources_together() -> None:
    sizes = {"all.vision.mnist": 60, "all.vision.fashion": 20, "all.text": 20, "audio": 100}
    assert shares(sizes=sizes, rule=lambda sizes: sizes) == ["3/10", "1/10", "1/10", "1/2"]


def test_a_group_of_which_nothing_takes_part_takes_none() -> None:
    none = {"all.vision.mnist": 0, "all.vision.fashion": 0}
    assert shares(weights=none) == ["0", "0", "1/2", "1/2"]
    plan = Plan(SIZES, none, stop="forever")
    assert np.bincount(plan.take(0, 100).source).tolist() == [0, 0, 50, 50]
    with pytest.raises(ConfigError, match=r"^mix: all\.vision has a share, but all weights in it are 0; "):
        shares(weights=none, share={"all.vision": 0.5})
    with pytest.raises(ConfigError, match=r"^mix\.weights: all are 0; at least one source needs one above 0\.$"):
        shares(weights={"all": 0, "audio": 0})


@pytest.mark.parametrize("path", ["al", "all.visoin", "mnist", "all.vision.mnits"])
def test_a_path_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mix\.weights\.{path}: there is no source '{path}' in this mix\. "):
        shares(weights={path: 1})


def test_numbers_without_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^\[7, 3\] names no sources: numbers are given by source, as in {'a': 2};"):
        Plan({"a": 4, "b": 4}, weights=[7, 3])


def test_groups_by_path() -> None:
    assert groups_of(NAMES) == {"all": [0, 1, 2], "all.vision": [0, 1]}
    assert groups_of(["a", "b"]) == {}


def test_a_source_that_drops_out_leaves_its_share_to_its_group() -> None:
    group = resolve(NAMES)
    assert group.depth == 3
    for dropped, left in (
        ({0}, ["0", "1/4", "1/4", "1/2"]),
        ({0, 1}, ["0", "0", "1/2", "1/2"]),
        ({3}, ["1/4", "1/4", "1/2", "0"]),
    ):
        kept = group.without(dropped)
        assert kept is not None
        assert [str(share) for share in kept.leaf_shares()] == left
    assert group.without({0, 1, 2, 3}) is None


def test_exact_turns() -> None:
    plan = Plan({"v.a": 9, "v.b": 9, "c": 9}, {"v": 2, "v.a": 2}, stop="forever", shuffle=False)
    assert plan.take(0, 12).source.tolist() == [0, 2, 1, 0, 2, 0, 1, 2, 0, 0, 2, 1]
    plan = Plan({"v.a": 9, "v.b": 9, "c": 9}, order="round_robin", stop="forever", shuffle=False)
    assert plan.take(0, 8).source.tolist() == [0, 2, 1, 2, 0, 2, 1, 2]


numbers = st.integers(1, 30)


@CHECK
@given(top=st.tuples(numbers, numbers), middle=st.tuples(numbers, numbers), bottom=st.tuples(numbers, numbers, numbers))
def test_every_level_keeps_its_bound(top: tuple[int, int], middle: tuple[int, int], bottom: tuple[int, ...]) -> None:
    names = ["g.h.a", "g.h.b", "g.h.c", "g.d", "e"]
    weights = dict(zip(["g", "e", "g.h", "g.d", "g.h.a", "g.h.b", "g.h.c"], [*top, *middle, *bottom], strict=True))
    plan = Plan(dict.fromkeys(names, 10**6), weights, stop="forever", shuffle=False)
    source = plan.take(0, 3000).source
    in_g, in_h = source < 4, source < 3
    for chosen, among, share, members in (
        (in_g, np.ones_like(in_g), Fraction(top[0], sum(top)), 2),
        (in_h, in_g, Fraction(middle[0], sum(middle)), 2),
        *((source == i, in_h, Fraction(weight, sum(bottom)), 3) for i, weight in enumerate(bottom)),
    ):
        slots, got = np.cumsum(among), np.cumsum(chosen)
        assert np.abs(got - float(share) * slots).max() <= 1 - 1 / (2 * members - 2) + 1e-9


def test_a_period_of_groups_too_long_for_the_table_is_cut_where_the_counts_are_closest() -> None:
    names = ["g.h.a", "g.h.b", "g.d", "e"]
    plan = Plan(dict.fromkeys(names, 10**6), {"g.h.a": 997, "g.h.b": 991, "g.d": 0.9973, "e": 1.0007}, stop="forever")
    for i, share in enumerate(plan.shares):
        assert abs(plan.long_run_share(i) / float(share) - 1) < 1e-3


def test_between_two_groups() -> None:
    before, after = resolve(NAMES, ratio="1:3"), resolve(NAMES, weights={"all.vision.mnist": 3})
    half = before.between(after, lambda old, new: [(a + b) / 2 for a, b in zip(old, new, strict=True)])
    assert half.shares == (Fraction(3, 8), Fraction(5, 8))
    inner = half.members[0]
    assert isinstance(inner, Group)
    assert inner.members[0] == Group((0, 1), (Fraction(5, 8), Fraction(3, 8)))
