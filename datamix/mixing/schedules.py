"""Weights as a function of the step: a schedule becomes phases of fixed shares, which the plan cuts into stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from datamix.errors import ConfigError, check_choice, hint
from datamix.mixing.groups import Group

RAMPS = ("linear", "cosine", "exponential")
RAMP_PHASES = 64
"""The number of phases, of about equal length, that approximate a ramp; a shorter ramp has one phase per step."""

_KEYS = ("until", "ratio", "weights", "share", "ramp")
# The shares of a phase of a ramp are multiples of one part in one of these, the first that gives the smallest share 50
# parts: the cycle is then exact, and short.
_PARTS = (2**12, 2**16, 2**20)

Phase = tuple[int | None, Group]
"""The step, or slot, at which a phase ends, None for never, and the shares until then."""


def phases(schedule: object, start: Group, has_weights: bool, resolve: Callable[..., Group]) -> list[Phase]:
    """Turn a schedule into phases of fixed shares.

    Args:
      schedule: The entries in order of time. Each has the step `until` which it lasts (the last may have none),
        `ratio`, `weights` or `share` as the mix itself has, and optionally a `ramp` from the entry before: "linear",
        "cosine" (along half a wave) or "exponential" (by the same factor every step), as Optax's schedules.
      start: The shares of the mix itself, from which a first ramp begins.
      has_weights: Whether a user chose the weights of `start`.
      resolve: A function from the ratio, weights and share of an entry, and its key, to a group.

    Returns:
      The phases, of which the last has no end and keeps the shares of the last entry. A ramp becomes up to 64 phases,
      each with the shares at its middle.

    Raises:
      ConfigError: An entry is wrong; the message names its key.
    """
    if not isinstance(schedule, Sequence) or isinstance(schedule, str) or not schedule:
        example = "[{until: 1000, weights: {mnist: 9}}, {weights: {mnist: 1}}]"
        raise ConfigError(f"it is a list such as {example}", key="mix.schedule", value=schedule)
    phases: list[Phase] = []
    begun, before = 0, start
    for i, entry in enumerate(schedule):
        where = f"mix.schedule[{i}]"
        until, ramp = _checked(entry, where, begun, last=i == len(schedule) - 1)
        if i == 0 and has_weights and ramp is None:
            text = "it sets the weights from the first step, and those of the mix itself would count for nothing"
            mend = f"Leave these out, or let them be where a ramp begins: {where}.ramp=linear."
            raise ConfigError(text, key=where, hint=mend)
        target = resolve(**{key: entry.get(key) for key in ("ratio", "weights", "share")}, where=where)
        if ramp is not None and until is not None:
            phases += _ramp(ramp, where, (begun, until), before, target)
        if ramp is None or i == len(schedule) - 1:
            phases.append((None if i == len(schedule) - 1 else until, target))
        begun, before = until or begun, target
    return phases


def _checked(entry: Any, where: str, begun: int, *, last: bool) -> tuple[int | None, str | None]:
    """Check an entry that begins at the step `begun`, and return its end and its ramp."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"it is a group of keys: {', '.join(_KEYS)}", key=where, value=entry)
    for key in entry:
        if key not in _KEYS:
            raise ConfigError("there is no such key", key=f"{where}.{key}", hint=hint(str(key), _KEYS))
    for key in ("weights", "share"):
        if not isinstance(entry.get(key) or {}, Mapping):
            raise ConfigError("it is a group of keys, one number a source", key=f"{where}.{key}", value=entry[key])
    until, ramp = entry.get("until"), entry.get("ramp")
    if ramp is not None:
        check_choice(ramp, RAMPS, f"{where}.ramp")
    if until is None and (ramp is not None or not last):
        text = "it is the step at which the entry ends, and only the last may go on"
        raise ConfigError(text, key=f"{where}.until", value=None)
    if until is not None and (isinstance(until, bool) or not isinstance(until, int) or until <= begun):
        text = f"it is a whole number of steps, after {begun}, where the entry begins"
        raise ConfigError(text, key=f"{where}.until", value=until)
    return until, ramp


def _ramp(ramp: str, where: str, steps: tuple[int, int], before: Group, target: Group) -> list[Phase]:
    """The phases of a ramp from one group to another over the steps [begin, end)."""
    begin, end = steps
    num_phases = min(RAMP_PHASES, end - begin)
    ends = [begin + (end - begin) * (i + 1) // num_phases for i in range(num_phases)]
    middles = [(a + b) / 2 - begin for a, b in zip([begin, *ends[:-1]], ends, strict=True)]
    if ramp == "exponential" and not _alike(before, target):
        text = "it reaches no share of 0; leave the source out, or choose linear"
        raise ConfigError(text, key=f"{where}.ramp", value=ramp)
    passed = _passed(ramp, end - begin, np.asarray(middles))
    remainders: dict[int, np.ndarray] = {}
    return [
        (until, before.between(target, _Blend(ramp, part, remainders)))
        for until, part in zip(ends, passed.tolist(), strict=True)
    ]


def _alike(one: Group, other: Group) -> bool:
    """Whether the same sources take part in both."""
    return [bool(share) for share in one.leaf_shares()] == [bool(share) for share in other.leaf_shares()]


def _passed(ramp: str, num_steps: int, steps: np.ndarray) -> np.ndarray:
    """The progress of a ramp at some steps, float [count] in [0, 1]: of the shares, or of their logarithms."""
    import optax

    if ramp == "linear":
        return np.asarray(optax.linear_schedule(0.0, 1.0, num_steps)(steps))
    if ramp == "cosine":
        return 1 - np.asarray(optax.cosine_decay_schedule(1.0, num_steps)(steps))
    logarithm: np.ndarray = np.log(np.asarray(optax.exponential_decay(1.0, num_steps, math.exp(-1))(steps)))
    return -logarithm


@dataclass
class _Blend:
    """The shares at one point of a ramp between two groups, level by level.

    The shares are rounded to multiples of one part in a number that makes a short cycle. The remainders carry over to
    the next point of the ramp, so that rounding errors do not accumulate along it.

    Attributes:
      ramp: "linear", "cosine" or "exponential".
      passed: The progress of the ramp, in [0, 1].
      remainders: The remainders of the rounding so far, by level; shared by all points of the ramp.
      level: The number of levels that have been blended.
    """

    ramp: str
    passed: float
    remainders: dict[int, np.ndarray]
    level: int = 0

    def __call__(self, before: Sequence[Fraction], target: Sequence[Fraction]) -> list[Fraction]:
        self.level += 1
        pairs = zip(before, target, strict=True)
        values = np.asarray([_between(self.ramp, self.passed, float(old), float(new)) for old, new in pairs])
        if not values.any():
            return [Fraction(0)] * len(values)
        values /= values.sum()
        least = values[values > 0].min()
        parts = next((n for n in _PARTS if least * n >= 50), _PARTS[-1])
        wanted = np.where(values > 0, (values + self.remainders.get(self.level, 0)) * parts, 0)
        shares = np.maximum(np.floor(wanted), 0).astype(np.int64)
        over = np.where(values > 0, wanted - shares, -np.inf)
        shares[np.argsort(-over, kind="stable")[: max(parts - int(shares.sum()), 0)]] += 1
        self.remainders[self.level] = wanted / parts - shares / shares.sum()
        return [Fraction(int(share), int(shares.sum())) for share in shares]


def _between(ramp: str, passed: float, old: float, new: float) -> float:
    """The share at some progress of a ramp from an old one to a new one."""
    return float(old ** (1 - passed) * new**passed) if ramp == "exponential" and old else old + (new - old) * passed
