"""What determines a sequence of batches: settings by key, their digests, and differences between configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Protocol

_RECORDS = ": records"  # no setting ends like this
_LONG, _LONGEST = 300, 4096  # most characters kept of one value, and of all together
_MOST_NAMED = 6


class _Group(Protocol):
    def leaf_shares(self) -> tuple[Fraction, ...]: ...


class _Plan(Protocol):
    """The part of `datamix.Plan` used here: its phases, each with the slot at which it ends and its shares."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def phases(self) -> Sequence[tuple[int | None, _Group]]: ...


def settings_of(identity: Mapping[str, object], plan: _Plan, batch_size: int, remainder: str) -> dict[str, object]:
    """The settings that determine the sequence, by key."""
    phases = [
        (until, {name: str(share) for name, share in zip(plan.names, group.leaf_shares(), strict=True) if share})
        for until, group in plan.phases
    ]
    mix = {"mix.schedule": phases} if len(phases) > 1 else {"mix.weights": phases[0][1]}
    return {**identity, **mix, "batch.size": batch_size, "batch.remainder": remainder}


def shortened(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings as JSON values to store and show, with the digest of a long value in its place.

    If all of them are too long together, the settings of sources are left out.

    >>> shortened({"seed": 0, "mix.schedule": ["long"] * 99})
    {'seed': 0, 'mix.schedule': '#05536531881da420'}
    """
    texts = {key: json.dumps(value, sort_keys=True, default=str) for key, value in settings.items()}
    if sum(map(len, texts.values())) > _LONGEST:
        texts = {key: text for key, text in texts.items() if not key.startswith("source.")}
    return {key: json.loads(text) if len(text) <= _LONG else f"#{digest(settings[key])}" for key, text in texts.items()}


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The settings that differ between two configurations: old and new value, None where one is not set.

    >>> changes({"mix.weights": {"a": "1/2", "b": "1/2"}}, {"mix.weights": {"a": "1"}, "seed": 1})
    {'mix.weights.a': ('1/2', '1'), 'mix.weights.b': ('1/2', None), 'seed': (None, 1)}
    """
    was, now_is = dict(_flat(before)), dict(_flat(now))
    keys = [*was, *(key for key in now_is if key not in was)]
    return {key: (was.get(key), now_is.get(key)) for key in keys if was.get(key) != now_is.get(key)}


def _flat(settings: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", part) for name, part in value.items())
        else:
            yield key, value


def in_words(changed: Mapping[str, tuple[object, object]]) -> str:
    """Describe changed settings in words.

    >>> in_words({"seed": (0, 7), "mix.weights.b": ("1/2", None), "mix.schedule": ("#1", "#2")})
    'seed was 0 and is 7, mix.weights.b was 1/2 and is not set, mix.schedule differs'
    """

    def shown(value: object) -> str:
        return "not set" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)

    texts = [
        f"{key} differs" if str(was).startswith("#") or str(now).startswith("#") else
        f"{key} was {shown(was)} and is {shown(now)}"
        for key, (was, now) in islice(changed.items(), _MOST_NAMED)
    ]  # fmt: skip
    return ", ".join(texts) + (f", and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else "")


# For each part of a sequence, groups of the settings that determine it; only the first group with a change is blamed.
_CAUSES = {
    "mix": (
        ("mix.",),
        ("seed",),
        ("stop", "stop.", "source", "batch.size", "shuffle"),
    ),
    "batch.shuffle": (("batch.shuffle", "batch.size"), ("seed",)),
    "batch.pairs": (("operators",), ("batch.size",), ("seed",)),
    "skip": (("skip",), ("batch.size",)),
    "adapt": (("adapt.",), ("batch.size",)),
}


def causes(parts: Iterable[str], changed: Mapping[str, tuple[object, object]]) -> dict[str, tuple[object, object]]:
    """The changed settings that explain why parts of what determines a sequence differ.

    >>> causes(["source.a", records_key("a")], {"source.a.limit": (None, 3), "stop": ("forever", "mine")})
    {'source.a.limit': (None, 3)}
    """
    blamed: dict[str, tuple[object, object]] = {}
    for part in parts:
        own = f"{part.removesuffix(_RECORDS)}."
        for keys in _CAUSES.get(part, ((own,), ("source", "seed", "shuffle", "labels", "operators", "JAX_ENABLE_X64"))):
            hits = {
                key: change
                for key, change in changed.items()
                if any(key == each or (each.endswith(".") and key.startswith(each)) for each in keys)
            }
            blamed |= hits
            if hits:
                break
    return blamed


def difference(parts: Iterable[str], changed: Mapping[str, tuple[object, object]]) -> str:
    """Describe how two sequences differ.

    Args:
      parts: The differing parts of what determines them.
      changed: The settings that differ, with their old and new values.

    >>> difference(["mix", "source.a"], {"seed": (0, 7)})
    'under another configuration: seed was 0 and is 7'
    >>> difference([records_key("a")], {})
    "over other records of source 'a' than are here"
    """
    parts = list(parts)
    if blamed := causes(parts, changed):
        return f"under another configuration: {in_words(blamed)}"
    if unexplained := sorted(part for part in parts if not part.endswith(_RECORDS)):
        return f"under another configuration: {', '.join(unexplained)} differ"
    sources = ", ".join(repr(part.removeprefix("source.").removesuffix(_RECORDS)) for part in sorted(parts))
    return f"over other records of source {sources} than are here"


def records_key(source: str) -> str:
    """The key of the digest of a source's records among the parts of what determines a sequence."""
    return f"source.{source}{_RECORDS}"


def digest(value: object) -> str:
    """The digest of a JSON value, 16 hexadecimal digits.

    >>> digest({"seed": 0, "stop": "forever"}) == digest({"stop": "forever", "seed": 0})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
