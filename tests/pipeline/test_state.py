"""States that live on: accepted exactly where the sequence so far is the same; mixes that are changed on purpose."""

from __future__ import annotations

import itertools
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError, DatamixError, StateError
from datamix.pipeline.batching import Batching

SIZES = {"a": 17, "b": 11, "c": 29}
ARRAYS = {
    name: {"number": np.arange(1000 * i, 1000 * i + size, dtype=np.int32)}
    for i, (name, size) in enumerate(SIZES.items())
}


def mix(names: str = "ab", **keywords: Any) -> datamix.Pipeline:
    settings = {"stop": "forever", "batch_size": 4, "labels": "keep", **keywords}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of sources without a share
        return datamix.mix({name: ARRAYS[name] for name in names}, **settings)


def numbers(batches: Iterator[Any], count: int) -> list[int]:
    return [int(n) for batch in itertools.islice(batches, count) for n in batch["number"]]


def saved(state: Any) -> Any:
    return json.loads(json.dumps(state))


# Each is one change of the first, or two. Records are the same in all: whether those so far are, a digest cannot say.
VARIANTS: list[dict[str, Any]] = [
    {},
    {"seed": 1},
    {"shuffle": "none"},
    {"shuffle": "none", "seed": 1},
    {"shuffle": "window(5)"},
    {"batch_size": 2},
    {"batch_size": 6},
    {"batch_size": 8},
    {"batch_size": 2, "shuffle_rows": True},
    {"shuffle_rows": True},
    {"weights": {"a": 2}},
    {"weights": {"a": 2}, "shuffle": "none"},
    {"weights": {"a": 4, "b": 4}},
    {"names": "abc", "weights": {"c": 0}},
    {"names": "abc"},
    {"names": "cab", "weights": {"c": 0}},
    {"names": "ba"},
    {"names": "a"},
    {"stop": "first_exhausted"},
    {"stop": "all_exhausted", "remainder": "keep"},
    {"stop": "exhaust_once"},
    {"stop": "exhaust_once", "epochs": {"b": 2}},
    {"samples": 20},
    {"samples": 21, "remainder": "keep"},
    {"schedule": [{"until": 3, "ratio": "1:1"}, {"ratio": "1:3"}]},
    {"schedule": [{"until": 5, "ratio": "1:1"}, {"ratio": "1:3"}]},
    {"schedule": [{"until": 3, "ratio": "1:1"}, {"until": 5, "ratio": "1:3"}, {"ratio": "3:1"}]},
    {"order": "random"},
    {"order": "random", "stop": "all_exhausted"},
    {"order": "random", "replacement": True},
    {"order": "round_robin"},
    {"order": "concat"},
    {"granularity": "batch"},
    {"granularity": "batch", "batch_size": 8},
    {"window": 4},
    {"operators": ["scale_numbers"]},
    {"skip": [[2, 3]]},
    {"skip": [[4, 6]]},
    {"skip": [[1, 3]], "batch_size": 8},
    {"placement": "host"},
]


@cache
def pipeline(variant: int) -> datamix.Pipeline:
    keywords = dict(VARIANTS[variant])
    if keywords.pop("operators", None):
        keywords["operators"] = [scale_numbers]
    return mix(**keywords)


def scale_numbers(record: Any) -> Any:
    return record | {"number": record["number"] * 2}


@cache
def given_records(variant: int) -> list[tuple[int, Any]]:
    """The position and the leaves of the first records that an iterator gives."""
    iterator, records = pipeline(variant).iterator(), []
    size = pipeline(variant).batch_size
    while iterator.step * size < 80 and (step := iterator.step) >= 0 and (batch := next(iterator, None)) is not None:
        rows = zip(*(values.tolist() for _, values in sorted(batch.items())), strict=True)
        records += [(step * size + row, leaves) for row, leaves in enumerate(rows)]
    return records


def check_restore(before: int, after: int, step: int) -> bool:
    """Whether a state of one mix is accepted by another, which has to be right."""
    one, other = pipeline(before), pipeline(after)
    iterator = one.iterator()
    for _ in range(step):
        next(iterator, None)
    state, resumed = saved(iterator.state()), other.iterator()
    position = state["position"]
    first, second = ([each for each in given_records(i) if each[0] < position] for i in (before, after))
    is_same = first == second and (position % other.batch_size == 0 or position == other.plan.length)
    refusal = ""
    try:
        resumed.restore(state)
    except StateError as error:
        refusal = str(error)
    assert is_same == (not refusal), (VARIANTS[before], VARIANTS[after], position, refusal)
    if refusal:
        return False
    rest = [leaves for at, leaves in given_records(after) if at >= position]
    batch = next(resumed, None)
    assert (batch is None) == (not rest)
    if batch is not None:
        rows = list(zip(*(values.tolist() for _, values in sorted(batch.items())), strict=True))
        assert rows == rest[: len(rows)]
    return True


def test_states_are_accepted_where_the_sequence_so_far_is_the_same() -> None:
    for after in range(0, len(VARIANTS), 6):
        check_restore(0, after, 2)
    assert check_restore(0, VARIANTS.index({"names": "abc", "weights": {"c": 0}}), 3)
    assert check_restore(0, VARIANTS.index({"batch_size": 6}), 3)
    assert not check_restore(0, VARIANTS.index({"batch_size": 6}), 2)
    assert not check_restore(0, VARIANTS.index({"seed": 1}), 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_hundreds_of_restores_over_changes_of_the_configuration(seed: int) -> None:
    pairs = list(itertools.product(range(len(VARIANTS)), repeat=2))
    chance = random.Random(seed)
    near = [(0, each) for each in range(len(VARIANTS))] + [(each, 0) for each in range(len(VARIANTS))]
    accepted = [check_restore(*pair, chance.randrange(8)) for pair in [*near, *chance.sample(pairs, 120)]]
    assert 20 < sum(accepted) < len(accepted) - 20


def test_a_refusal_names_the_key_both_values_and_how_to_insist() -> None:
    state = mix(weights={"a": 3}).iterator(5).state()
    with pytest.raises(StateError) as caught:
        mix(weights={"b": 3}).iterator().restore(state)
    assert str(caught.value) == (
        "this state was taken under another configuration: mix.weights.a was 3/4 and is 1/4, mix.weights.b was 1/4 and "
        "is 3/4; restore it under the same, go on under this one on purpose with changed='mix' (train.resume=changed), "
        "or start afresh."
    )
    with pytest.raises(
        StateError, match=r"^batch\.size = 8; no batch begins at record 20, where .* divides it, as 4\."
    ):
        mix(weights={"a": 3}, batch_size=8).iterator().restore(state)
    with pytest.raises(StateError, match=r'source was \["a", "b"\] and is \["a"\]; restore'):
        mix("a").iterator().restore(state)
    for changed in ("all", True):
        with pytest.raises(ConfigError, match=rf"^changed = {changed!r}; it is 'mix', or None for nothing"):
            mix().iterator().restore(state, changed=changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ({"samples": 40}, {"samples": 8}, r"stop\.samples was 40 and is 8"),
        ({"adapt": "odm"}, {"adapt": "odm", "weights": {"a": 3}}, r"mix\.weights\.a was 1/2 and is 3/4, .* is 1/4"),
        ({"adapt": "odm"}, {"adapt": "odm", "batch_size": 6}, r"batch\.size was 4 and is 6"),
        ({"skip": [[1, 2]]}, {"skip": [[1, 2]], "batch_size": 6}, r"batch\.size was 4 and is 6"),
    ],
    ids=str,
)
def test_a_refusal_advises_nothing_that_is_refused(one: Any, other: Any, text: str) -> None:
    iterator = mix(**one).iterator()
    numbers(iterator, 3)
    with pytest.raises(StateError, match=rf"configuration: {text}; restore it under the same, or start afresh\.$"):
        mix(**other).iterator().restore(saved(iterator.state()))


CHANGED: list[dict[str, Any]] = [
    {"weights": {"a": 1, "b": 3}},
    {"names": "abc", "weights": {"c": 2}},
    {"names": "bc"},
    {"order": "random"},
    {"order": "round_robin"},
    {"schedule": [{"until": 9, "ratio": "1:5"}, {"ratio": "5:1"}]},
    {"weights": {"a": 5}, "batch_size": 2},
    {"weights": {"a": 5}, "placement": "host"},
    {"stop": "exhaust_once", "epochs": {"a": 4, "b": 4}},
]


@cache
def changed_mix(index: int) -> datamix.Pipeline:
    return mix(**CHANGED[index])


def follows(taken: Sequence[int]) -> None:
    """Every source is gone through in its own order, nothing repeated or left out."""
    for i, (name, size) in enumerate(SIZES.items()):
        mine = [number for number in taken if number // 1000 == i]
        if mine:
            assert mine == numbers(alone(name), -(-len(mine) // size) * size)[: len(mine)]


@cache
def source_alone(name: str) -> datamix.Pipeline:
    return mix(name, batch_size=1)


def alone(name: str) -> Iterator[Any]:
    return iter(source_alone(name))


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, len(CHANGED) - 1), st.integers(0, 4)), max_size=3))
@settings(max_examples=6, deadline=None)
def test_a_changed_mix_goes_on_where_each_source_was(steps: int, changes: list[tuple[int, int]]) -> None:
    iterator = pipeline(0).iterator()
    taken = numbers(iterator, steps)
    for index, more in changes:
        state, before, iterator = saved(iterator.state()), iterator, changed_mix(index).iterator()
        iterator.restore(state, changed="mix")
        assert iterator.state()["position"] == before.state()["position"] == len(taken)
        taken += numbers(iterator, 2 * more)
    follows(taken)
    later = saved(iterator.state())
    assert later["position"] == sum(later["counts"].values()) == len(taken)
    resumed = (changed_mix(changes[-1][0]) if changes else pipeline(0)).iterator()
    resumed.restore(later)  # without insisting: the history is known
    assert resumed.state() == later
    assert numbers(resumed, 3) == numbers(iterator, 3)


def test_a_state_says_when_what_was_changed() -> None:
    first = pipeline(0).iterator(3)
    second, third = changed_mix(0).iterator(), changed_mix(1).iterator()
    second.restore(saved(first.state()), changed="mix")
    next(second)
    third.restore(saved(second.state()), changed="mix")
    assert saved(third.state())["history"] == [
        {
            "step": 3,
            "position": 12,
            "counts": {"a": 6, "b": 6},
            "changes": {"mix.weights.a": ["1/2", "1/4"], "mix.weights.b": ["1/2", "3/4"]},
        },
        {
            "step": 4,
            "position": 16,
            "counts": {"a": 7, "b": 9},
            "changes": {"mix.weights.b": ["3/4", "1/4"], "mix.weights.c": [None, "1/2"]},
        },
    ]
    next(third)
    with pytest.raises(StateError, match=r"mix\.weights\.b was 1/4 and is 1/2"):
        pipeline(0).iterator().restore(third.state())
    same = pipeline(0).iterator()
    same.restore(first.state(), changed="mix")  # where nothing was
    assert same.state()["history"] == []


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"seed": 1}, r"seed was 0 and is 1; restore it under the same, or start afresh"),
        ({"names": "ba"}, r"^$"),
        ({"stop": "first_exhausted"}, r"^stop: it ends the mix before record 100, where it is to go on\. Choose one"),
        ({"granularity": "batch", "batch_size": 5}, r"^$"),
        ({"granularity": "batch"}, r"^mix\.granularity = 'batch'; it cannot begin at record 100, where a source has"),
        ({"weights": {"a": 2}, "batch_size": 8}, r"^batch\.size = 8; no batch begins at record 100"),
    ],
    ids=str,
)
def test_what_cannot_go_on_says_so(keywords: dict[str, Any], message: str) -> None:
    iterator = mix(**keywords).iterator()
    if message == "^$":
        iterator.restore(saved(pipeline(0).iterator(25).state()), changed="mix")
        assert iterator.state()["position"] == 100
        return
    with pytest.raises(DatamixError, match=message):
        iterator.restore(saved(pipeline(0).iterator(25).state()), changed="mix")


def test_a_changed_pipeline_knows_nothing_of_what_was_before() -> None:
    changed, step = changed_mix(0).restored(pipeline(0).state(3), "mix")
    assert (step, changed.plan.begin) == (3, 12)
    iterator = changed.iterator(3)
    expected = changed_mix(0).iterator()
    expected.restore(pipeline(0).state(3), changed="mix")
    assert numbers(iterator, 4) == numbers(expected, 4) == [int(n) for k in range(3, 7) for n in changed[k]["number"]]
    assert changed.fingerprint != changed_mix(0).fingerprint
    with pytest.raises(IndexError, match="there is no batch 2 in a mix that goes on with another one from record 12"):
        changed[2]
    with pytest.raises(ConfigError, match="start = 2; it is 3 or more, where this mix goes on with another one"):
        changed.iterator(2)
    with pytest.raises(ValueError, match="this plan begins at 12"):
        changed.plan.take(0, 20)


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("ends", [{}, {"stop": "all_exhausted", "remainder": "keep"}], ids=["endless", "short"])
def test_skipped_steps_keep_their_numbers(placement: str, ends: dict[str, Any]) -> None:
    skip = [[0, 1], [3, 5], [5, 6]]
    whole = mix(placement=placement, **ends)
    cut = mix(placement=placement, skip=skip, **ends)
    count = 11 if whole.plan.length is None else len(whole)
    steps = [step for step in range(count) if step not in (0, 3, 4, 5)]
    assert numbers(iter(cut), len(steps)) == [int(n) for step in steps for n in whole[step]["number"]]
    assert cut[4]["number"].tolist() == whole[4]["number"].tolist()
    iterator = cut.iterator()
    assert [(iterator.step, next(iterator))[0] for _ in steps] == steps
    for start, first in ((0, 1), (3, 6), (4, 6), (7, 7)):
        assert cut.iterator(start).step == first
    for shard in ((0, 3), (2, 3)):
        mine, theirs = cut.iterator(shard=shard), whole.iterator(shard=shard)
        expected = [next(theirs)["number"].tolist() for _ in range(count)]
        assert [next(mine)["number"].tolist() for _ in steps] == [expected[step] for step in steps]
    for workers in (2, 3):
        turns = [cut.iterator(cut.batching.after(0, worker), stride=workers) for worker in range(workers)]
        batches = [next(turns[i % workers])["number"].tolist() for i in range(len(steps))]
        assert batches == [whole[step]["number"].tolist() for step in steps]


def test_one_reader_then_three_then_two_are_one_that_goes_on() -> None:
    whole = mix(weights={"a": 2}, skip=[[4, 6]], stop="all_exhausted", remainder="keep")
    expected = list(whole)
    state, batches = whole.iterator().state(), []
    for count, steps in ((1, 2), (3, 4), (2, 99)):
        ranks = [whole.iterator(shard=(rank, count)) for rank in range(count)]
        for rank in ranks:
            rank.restore(saved(state))
        for shards in itertools.islice(zip(*ranks, strict=False), steps):
            batches.append({leaf: np.concatenate([each[leaf] for each in shards]) for leaf in shards[0]})
        state = ranks[-1].state()
    assert len(batches) == len(expected) == whole.batching.num_kept
    for batch, other in zip(batches, expected, strict=True):
        assert {leaf: rows.tobytes() for leaf, rows in batch.items()} == {k: v.tobytes() for k, v in other.items()}


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 20), st.integers(0, 10))
def test_kept_steps(lengths: list[int], step: int, count: int) -> None:
    borders = list(itertools.accumulate(lengths[: len(lengths) // 2 * 2]))
    skip = tuple(zip(borders[::2], borders[1::2], strict=True))
    batching = Batching(length=None, batch_size=4, skip=skip)
    kept = [each for each in range(100) if not any(first <= each < end for first, end in skip)]
    assert batching.after(step, count) == [each for each in kept if each >= step][count]
    runs = batching.kept_runs(step, step + count)
    assert [each for run in runs for each in range(*run)] == [each for each in kept if step <= each < step + count]


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        (3, r"^skip = 3; it is a list of ranges of steps, as in \[\[100, 110\]\]\."),
        ([3, 4], r"^skip\[0\] = 3; it is two whole numbers, the first step that is left out and the first that is not"),
        ([[1, 2, 3]], r"^skip\[0\] = \[1, 2, 3\]; it is two whole"),
        ([[True, 2]], r"^skip\[0\] = \[True, 2\]; it is two whole"),
        ([[2, 2]], r"^skip\[0\] = \[2, 2\]; it begins at 0 or later, and ends after it begins"),
        (
            [[3, 5], [4, 6]],
            r"^skip\[1\] = \[4, 6\]; it begins at 5 or later, where the range before ends, and ends after",
        ),
        ([[0, 5]], r"^skip = \[\[0, 5\]\]; it leaves none of the 5 batches of the mix"),
    ],
)
def test_ranges_that_are_none(skip: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mix(samples=20, skip=skip)


def test_a_state_far_on_is_as_quick_and_as_exact() -> None:
    one, other = mix(weights={"a": 3}), mix(weights={"a": 3}, stop="all_exhausted", epochs={"a": 10**9})
    for step in (10**6, 10**8):
        state = saved(one.iterator(step).state())
        other.iterator().restore(state)
        with pytest.raises(StateError, match=r"mix\.weights\.a"):
            mix(weights={"a": 300001, "b": 100000}).iterator().restore(state)


def test_with_many_sources_a_state_leaves_out_what_only_names_them() -> None:
    names = [f"source_{i}" for i in range(60)]
    many = datamix.mix(dict.fromkeys(names, ARRAYS["a"]), labels="keep", stop="forever", batch_size=60)
    state = saved(many.iterator(1).state())
    assert not any(key.startswith("source.") for key in state["settings"])
    assert state["settings"]["mix.weights"].startswith("#")
    many.iterator().restore(state)
    with pytest.raises(StateError, match=r"mix\.weights differs; restore"):
        many.with_weights({names[0]: 9}).iterator().restore(state)


def test_records_that_are_drawn_are_not_counted() -> None:
    drawn = mix(order="random", replacement=True)
    state = saved(drawn.iterator(2).state())
    assert state["counts"] == {}
    other = mix().iterator()
    with pytest.raises(StateError, match=r"mix\.order was random and is proportional"):
        other.restore(state)
    other.restore(state, changed="mix")
    follows(numbers(other, 9))  # from the first record of each on
    back = drawn.iterator()
    back.restore(saved(mix().iterator(2).state()), changed="mix")
    assert numbers(back, 3) == numbers(drawn.iterator(2), 3)


def test_the_weights_in_the_loss_change_no_sequence() -> None:
    one, other = (mix(weights={"a": weight}, loss_weight="inverse_share") for weight in (1, 3))
    state = saved(one.iterator(3).state())
    one.iterator().restore(state)
    changed = other.iterator()
    with pytest.raises(StateError, match=r"mix\.weights\.a was 1/2 and is 3/4"):
        changed.restore(state)
    changed.restore(state, changed="mix")
    batch, expected = next(changed), other[0]
    of_a = {float(each["loss_weight"][each["source_id"] == 0][0]) for each in (batch, expected)}
    assert len(of_a) == 1
    for rule in ({"a": 2}, {"b": 3}, None):
        plain = mix(loss_weight=rule)
        plain.iterator().restore(state)
        one.iterator().restore(saved(plain.iterator(2).state()))


def test_an_end_of_epochs_that_has_not_come_yet_changes_no_state() -> None:
    ends: list[dict[str, Any]] = [{}, {"max_epochs": {"a": 5}}, {"max_epochs": {"a": 2}, "at_max_epochs": "error"}]
    plain, *_ = pipelines = [mix(**end) for end in ends]
    for one, other in itertools.permutations(pipelines, 2):
        resumed = other.iterator()
        resumed.restore(saved(one.iterator(8).state()))  # a's second epoch ends with record 68
        assert numbers(resumed, 1) == numbers(plain.iterator(8), 1)
    late = saved(plain.iterator(20).state())
    mix(max_epochs={"a": 5}).iterator().restore(late)
    with pytest.raises(StateError, match=r"mix\.max_epochs was not set and is \[\{\"a\": 1\}, \"drop\"\]"):
        mix(max_epochs={"a": 1}).iterator().restore(late)


def test_a_state_is_of_all_records_of_a_source_given_or_not() -> None:
    late = next(number for number in numbers(mix().iterator(3), 1) if number >= 1000)
    values = np.where(ARRAYS["b"]["number"] == late, -1, ARRAYS["b"]["number"])
    other = datamix.mix({"a": ARRAYS["a"], "b": {"number": values}}, stop="forever", batch_size=4, labels="keep")
    state = saved(mix().iterator(1).state())
    for insists in (None, "mix"):
        with pytest.raises(StateError, match="over other records of source 'b' than are here; restore"):
            other.iterator().restore(state, changed=insists)
