from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.sources.splits import resolve_split, steps_of

SIZES = {"train": 800, "test": 100}


def resolve(text: str, sizes: dict[str, int] = SIZES) -> list[tuple[str, int, int]]:
    return resolve_split(text, sizes, where="split")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("train", ("train", 0, 800)),
        ("train[:]", ("train", 0, 800)),
        ("train[10:20]", ("train", 10, 20)),
        ("train[10:]", ("train", 10, 800)),
        ("train[:1_0]", ("train", 0, 10)),
        ("train[-5:]", ("train", 795, 800)),
        ("train[:-5]", ("train", 0, 795)),
        ("train[-20:-10]", ("train", 780, 790)),
        ("test[10%:90%]", ("test", 10, 90)),
        ("train[-25%:]", ("train", 600, 800)),
        ("train[:12.5%]", ("train", 0, 100)),
        (" train [ 1 : 2 ] ", ("train", 1, 2)),
    ],
)
def test_one_part(text: str, want: tuple[str, int, int]) -> None:
    assert resolve(text) == [want]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("train[:2000]", ("train", 0, 800)),
        ("train[-2000:]", ("train", 0, 800)),
        ("train[2000:]", ("train", 800, 800)),
        ("train[:-2000]", ("train", 0, 0)),
        ("train[5:3]", ("train", 5, 5)),
        ("train[-3:-5]", ("train", 797, 797)),
    ],
)
def test_a_slice_past_the_end_holds_what_there_is(text: str, want: tuple[str, int, int]) -> None:
    assert resolve(text) == [want]


@pytest.mark.parametrize("text", ["train[:200%]", "train[-200%:]", "test+train[10%:100.5%]"])
def test_more_than_all_of_a_split_is_refused_as_tfds_does(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^split = '.*'; a share of a split is 100 % at most\.$"):
        resolve(text)


@pytest.mark.parametrize(
    ("percent", "size", "stop"),
    [(50, 1, 0), (50, 3, 2), (50, 5, 2), (50, 7, 4), (33, 10, 3), (35, 10, 4), (25, 10, 2), (1, 49, 0), (1, 51, 1)],
)
def test_percent_round_to_the_nearest_record_half_to_even(percent: int, size: int, stop: int) -> None:
    assert resolve(f"train[:{percent}%]", {"train": size}) == [("train", 0, stop)]
    assert resolve(f"train[{percent}%:]", {"train": size}) == [("train", stop, size)]


@pytest.mark.parametrize("text", ["train[10:20%]", "train[10%:20]", "train[10%:20%]"])
def test_one_percent_sign_is_for_both_ends(text: str) -> None:
    assert resolve(text) == [("train", 80, 160)]


def test_parts_are_joined_in_order() -> None:
    assert resolve("test + train[:5]+test[:1]") == [("test", 0, 100), ("train", 0, 5), ("test", 0, 1)]


def test_all() -> None:
    assert resolve("all") == [("train", 0, 800), ("test", 0, 100)]
    assert resolve("all[:10%]+test") == [("train", 0, 80), ("test", 0, 10), ("test", 0, 100)]
    assert resolve("all", {"all": 3, "train": 5}) == [("all", 0, 3)]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("train+", ""),
        ("train[5]", "train[5]"),
        ("train[]", "train[]"),
        ("train[1:2:3]", "train[1:2:3]"),
        ("train[:5", "train[:5"),
        ("train[a:]", "train[a:]"),
        ("train[--1:]", "train[--1:]"),
        ("train[1.5:]", "train[1.5:]"),
        ("train[1__0:]", "train[1__0:]"),
        ("train[:2shard]", "train[:2shard]"),
        ("test+train[%:]", "train[%:]"),
        ("train test", "train test"),
    ],
)
def test_bad_syntax(text: str, part: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^source\.a\.split = .* is not a split. Write train, train\[:2000\]"
    ) as error:
        resolve_split(text, SIZES, where="source.a.split")
    assert str(error.value).startswith(f"source.a.split = {text!r}; {part!r} is not")


def test_unknown_split() -> None:
    message = r"^split = 'test\+trian\[:5\]'; there is no split 'trian'\. Did you mean 'train'\? Known: test, train\.$"
    with pytest.raises(ConfigError, match=message):
        resolve("test+trian[:5]")


@st.composite
def specs_in_range(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """A spec whose slices do not reach past the end, which TFDS refuses."""
    sizes = {"train": draw(st.integers(0, 3_000)), "test": draw(st.integers(0, 300))}

    def part() -> str:
        name = draw(st.sampled_from(["train", "test", "all"]))
        if name == "all" or draw(st.booleans()):
            return name
        unit = draw(st.sampled_from(["", "%"]))
        one = st.decimals(-100, 100, places=draw(st.integers(0, 2))) if unit else st.integers(-sizes[name], sizes[name])
        start, stop = (f"{draw(one)}{unit}" if draw(st.booleans()) else "" for _ in range(2))
        if start and stop and draw(st.booleans()):
            start = start.removesuffix(unit)  # the other end's unit is for both
        return f"{name}[{start}:{stop}]" if start or stop else name

    return "+".join(part() for _ in range(draw(st.integers(1, 3)))), sizes


@settings(deadline=None, max_examples=300)
@given(specs_in_range())
def test_as_tfds_reads_it(case: tuple[str, dict[str, int]]) -> None:
    import tensorflow_datasets as tfds

    spec, sizes = case
    infos = {name: SimpleNamespace(num_examples=size) for name, size in sizes.items()}
    want = []
    for instruction in tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos):
        size = sizes[instruction.splitname]
        start, stop = instruction.from_ or 0, size if instruction.to is None else instruction.to
        want.append((instruction.splitname, start, max(start, stop)))  # TFDS leaves 5:3 as it is, and reads nothing
    assert resolve_split(spec, sizes, where="split") == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("train[::2]", [("train[:]", 2)]),
        ("train[1::2]", [("train[1:]", 2)]),
        ("train[:1000:3]", [("train[:1000]", 3)]),
        (" train [ 10% : 90% : 1_0 ] ", [(" train [ 10% : 90% ]", 10)]),
        ("train[::]", [("train[:]", 1)]),
        ("train[-5::3]+test+all[:4]", [("train[-5:]", 3), ("test", 1), ("all[:4]", 1)]),
    ],
)
def test_steps(text: str, want: list[tuple[str, int]]) -> None:
    assert steps_of(text, where="split") == want
    for part, _ in want:
        assert resolve(part)


@pytest.mark.parametrize("part", ["train[::0]", "train[::-1]", "train[::2%]", "train[::x]", "train[::1.5]"])
def test_steps_that_are_none(part: str) -> None:
    with pytest.raises(ConfigError) as error:
        steps_of(f"test+{part}", where="split")
    assert str(error.value) == (
        f"split = 'test+{part}'; {part!r} is not a split. Write train, train[:2000], train[10%:90%], train[::2] or "
        "several joined by +."
    )


@pytest.mark.parametrize("text", ["train[::2]", "train[1:2:3:4]", "train[::2]x"])
def test_a_split_without_steps_has_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r" is not a split. Write train"):
        resolve(text)
