"""What determines a sequence of batches: by the key that sets it, digested, and in what two configurations differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Protocol

_RECORDS = ": records"  # no setting ends so
_LONG, _LONGEST = 300, 4096  # characters of a value that is kept, and of all
_MOST_NAMED = 6


class _Group(Protocol):
    def leaf_shares(self) -> tuple[Fraction, ...]: ...


class _Plan(Protocol):
    """The part of `datamix.Plan` that counts: its phases, each with the slot it lasts until and its shares."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def phases(self) -> Sequence[tuple[int | None, _Group]]: ...


def settings_of(identity: Mapping[str, object], plan: _Plan, batch_size: int, remainder: str) -> dict[str, object]:
    """What is configured and determines the sequence, by the key that sets it."""
    phases = [
        (until, {name: str(share) for name, share in zip(plan.names, group.leaf_shares(), strict=True) if share})
        for until, group in plan.phases
    ]
    mix = {"mix.schedule": phases} if len(phases) > 1 else {"mix.weights": phases[0][1]}
    return {**identity, **mix, "batch.size": batch_size, "batch.remainder": remainder}


def shortened(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings in JSON's types to be kept and shown, with the digest of what is long in place of it.

    >>> shortened({"seed": 0, "mix.schedule": ["long"] * 99})
    {'seed': 0, 'mix.schedule': '#05536531881da420'}
    """
    texts = {key: json.dumps(value, sort_keys=True, default=str) for key, value in settings.items()}
    if sum(map(len, texts.values())) > _LONGEST:
        texts = {key: text for key, text in texts.items() if not key.startswith("source.")}
    return {key: json.loads(text) if len(text) <= _LONG else f"#{digest(settings[key])}" for key, text in texts.items()}


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The settings that differ between two configurations: what each was and is, None where it is not set.

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
    """Changed settings in words.

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


# The settings, by what they have determined of a sequence: those that come first are blamed before the others.
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
    """Those of the changed settings that have changed some parts of what determines a sequence.

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
    """Say in what two sequences differ.

    Args:
      parts: What has determined them, and is not the same.
      changed: The settings that are not.

    >>> difference(["mix", "source.a"], {"seed": (0, 7)})
    'under another configuration: seed was 0 and is 7'
    >>> difference([records_key("a")], {})
    "over other records of source 'a' than are here"
    """
    parts = list(parts)
    if blamed := causes(parts, changed):
        return f"under another configuration: {in_words(blamed)}"
    if others := sorted(part for part in parts if not part.endswith(_RECORDS)):
        return f"under another configuration: {', '.join(others)} differ"
    sources = ", ".join(repr(part.removeprefix("source.").removesuffix(_RECORDS)) for part in sorted(parts))
    return f"over other records of source {sources} than are here"


def records_key(source: str) -> str:
    """The key under which the digest of a source's records stands among what determines a sequence."""
    return f"source.{source}{_RECORDS}"


def digest(value: object) -> str:
    """Digest a value of JSON's types.

    >>> digest({"seed": 0, "stop": "forever"}) == digest({"stop": "forever", "seed": 0})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
