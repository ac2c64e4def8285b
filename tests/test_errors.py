from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import datamix
from datamix import errors
from datamix.errors import ConfigError, DataError, DatamixError, RegistryError, SpecError, StateError, hint


@pytest.mark.parametrize(
    ("name", "known", "want"),
    [
        ("rotat", ["rotate", "crop"], "Did you mean 'rotate'? Known: crop, rotate."),
        ("mnits", ["fashion", "mnist", "emnist"], "Did you mean 'mnist'? Known: emnist, fashion, mnist."),
        ("x", ["rotate", "crop"], "Known: crop, rotate."),
        ("", ["crop"], "Known: crop."),
        ("crop", [], "There are none."),
    ],
)
def test_hint(name: str, known: list[str], want: str) -> None:
    assert hint(name, known) == want
    assert hint(name, iter(known)) == want


@given(st.lists(st.text("abcxyz", min_size=3, max_size=8), min_size=1, max_size=5, unique=True), st.data())
def test_a_name_with_one_letter_too_many_is_found(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    start, rest = hint(f"{name}_", known).split("? Known: ")
    near = start.removeprefix("Did you mean ").strip("'")
    # Another may be as near only if it is the name but for a letter.
    assert near == name or abs(len(near) - len(name)) <= 1
    assert near in known
    assert rest == f"{', '.join(sorted(known))}."


def test_one_except_catches_all_of_them() -> None:
    kinds = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert kinds == {DatamixError, ConfigError, RegistryError, SpecError, DataError, StateError}
    for kind in kinds:
        assert issubclass(kind, DatamixError)
        assert kind is getattr(datamix, kind.__name__, DatamixError)
    # A user's mistake must not pass for Python's own errors, nor hide one of ours.
    assert not issubclass(DatamixError, ValueError | LookupError | OSError)
