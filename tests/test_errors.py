from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import datamix
from datamix import errors
from datamix.errors import ConfigError, DataError, DatamixError, RegistryError, SpecError, StateError, hint, of_kind


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


def test_a_hint_does_not_list_thousands_of_names() -> None:
    assert hint("x", map(str, range(5000))).endswith(", … (5,000 in all).")


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
    ours = {DatamixError, ConfigError, RegistryError, SpecError, DataError, StateError}
    assert kinds == ours | {datamix.InstallationError, datamix.PluginError, datamix.ResourceError}
    for kind in kinds:
        assert issubclass(kind, DatamixError)
        assert kind is getattr(datamix, kind.__name__, DatamixError)
    # A user's mistake must not pass for Python's own errors, nor hide one of ours.
    assert not issubclass(DatamixError, ValueError | LookupError | OSError)


@pytest.mark.parametrize(
    ("text", "fields", "sentence"),
    [
        ("all weights are 0; give one.", {}, "all weights are 0; give one."),
        ("it is 1 or more", {"key": "mix.window", "value": 0}, "mix.window = 0; it is 1 or more."),
        ("it is 1 or more.", {"key": "mix.window", "value": 0}, "mix.window = 0; it is 1 or more."),
        ("it is text", {"key": "data.dir", "value": None}, "data.dir is missing; it is text."),
        ("it is text", {"key": "data.dir", "value": ["a"]}, "data.dir = ['a']; it is text."),
        ("", {"key": "labels", "value": "kep", "hint": "Known: keep."}, "labels = 'kep'. Known: keep."),
        ("no job 'x'", {"key": "job", "hint": "Known: plan."}, "job: no job 'x'. Known: plan."),
        ("no job 'x'", {"hint": "Known: plan."}, "no job 'x'. Known: plan."),
        ("it is text", {"key": "k", "value": 1, "hint": "Quote it."}, "k = 1; it is text. Quote it."),
    ],
)
def test_the_sentence_is_made_of_the_fields(text: str, fields: dict[str, object], sentence: str) -> None:
    error = ConfigError(text, **fields)  # type: ignore[arg-type]
    assert str(error) == sentence
    assert (error.key, error.value, error.hint) == (fields.get("key"), fields.get("value"), fields.get("hint", ""))


@pytest.mark.parametrize("kind", [ConfigError, RegistryError, SpecError, DataError, StateError])
def test_an_error_goes_between_processes_with_its_fields(kind: type[DatamixError]) -> None:
    error = kind("it is 1 or more", key="mix.window", value=0, hint="Or leave it out.")
    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(other) is kind
        assert str(other) == str(error) == "mix.window = 0; it is 1 or more. Or leave it out."
        assert (other.key, other.value, other.hint) == ("mix.window", 0, "Or leave it out.")


def test_a_value_is_shown_on_one_line_of_bounded_length() -> None:
    error = ConfigError("it is short", key="key", value=["a\nb"] * 1000)
    assert len(str(error)) < 300
    assert "\n" not in str(error)
    assert error.value == ["a\nb"] * 1000


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\udcff"])
def test_what_a_terminal_would_obey_is_shown(character: str) -> None:
    shown = errors.printable(f"ä{character}[31mred\n\té")
    assert shown == f"ä{character.encode('unicode_escape').decode()}[31mred\n\té"
    shown.encode()  # a surrogate would fail


def test_a_home_that_is_nobodys_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^~nobody-of-this-name/x: there is no such home; write the whole path\.$"):
        errors.expanded("~nobody-of-this-name/x")


def test_a_notebook_shows_the_users_line_and_the_sentence() -> None:
    with pytest.raises(ConfigError) as caught:
        datamix.Plan({"a": 3}, {"b": 1})
    lines = caught.value._render_traceback_()
    assert len(lines) == 2
    assert 'datamix.Plan({"a": 3}, {"b": 1})' in lines[0]
    assert lines[1].startswith("ConfigError: mix.weights.b: there is no source 'b' in this mix.")


def test_an_error_is_read_again_from_its_kind_and_its_sentence() -> None:
    class OwnError(DataError):
        """A kind that another module derives."""

    assert OwnError("source 'a' is empty.").kind == "DataError"
    again = of_kind("DataError", "source 'a' is empty.")
    assert type(again) is DataError
    assert str(again) == "source 'a' is empty."
    assert of_kind("Path", "no error at all") is None
    assert of_kind("NoSuchError", "") is None
