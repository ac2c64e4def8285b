"""Turn ratios, weights and shares into one exact share per source."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

from datamix.errors import ConfigError, check_sources

_LARGEST = 10**400  # beyond the range of floats
_DENOMINATOR = 10_000  # a float that equals a fraction this simple is read as that fraction

Number: TypeAlias = int | float | str | Fraction


def as_fraction(value: object, where: str, name: str | None = None) -> Fraction:
    """Read a weight as it was meant: 0.7 is 7/10, and 1 / 3 is a third, not the nearest binary number.

    Args:
      value: A number or text.
      where: The key of the weight, for error messages.
      name: The source that has the weight; by default, the last part of the key.

    Raises:
      ConfigError: The value is not a number, or is negative, infinite or NaN.

    >>> as_fraction(0.7, "mix.share.mnist")
    Fraction(7, 10)
    """
    try:
        if isinstance(value, bool) or (not isinstance(value, Number | Sequence) and not hasattr(value, "__float__")):
            raise ValueError
        if isinstance(value, float) or not isinstance(value, int | str | Fraction):
            value = float(value)
            simple = Fraction(value).limit_denominator(_DENOMINATOR)
            value = simple if float(simple) == value else repr(value)
        number = Fraction(value)
        if max(abs(number.numerator), number.denominator) >= _LARGEST:
            raise ValueError
    except (TypeError, ValueError, ArithmeticError):
        percent = re.fullmatch(r"(\d+(?:\.\d+)?) *%", value) if isinstance(value, str) else None
        mend = f"Write {float(percent[1]) / (1 if where.endswith('ratio') else 100):g}." if percent else ""
        if isinstance(value, str) and value.count(":") >= (1 if where.endswith("ratio") else 2):
            several = "1:1,2:1" if where.endswith("ratio") else "0.1,0.5"
            mend = f"Several, to be compared, are -m {where}={several} without brackets."
        raise ConfigError("a weight is a number, 0 or more", key=where, value=value, hint=mend) from None
    if number < 0:
        mend = f"To drop {name or where.rpartition('.')[2]}, set it to 0."
        raise ConfigError("a weight is 0 or more", key=where, value=_plain(number), hint=mend)
    return number


def _plain(number: Fraction) -> int | float:
    """A number as a user writes it."""
    return int(number) if number.denominator == 1 else float(number)


def parse_ratio(ratio: object, names: Sequence[str], where: str = "mix.ratio") -> dict[str, Fraction]:
    """Parse a ratio such as "7:3" or [7, 3], with one number per source, in their order.

    Raises:
      ConfigError: It is not a ratio, or does not have one number per source.

    >>> parse_ratio("7:3", ["mnist", "fashion"])
    {'mnist': Fraction(7, 1), 'fashion': Fraction(3, 1)}
    """
    if isinstance(ratio, str):
        parts: Sequence[object] = [part.strip() for part in ratio.split(":")]
    elif isinstance(ratio, Sequence) and None not in ratio:
        parts = ratio
    else:
        mend = "Write '7:3' or [7, 3]. In YAML it needs the quotes: unquoted, 7:3 is the number 423."
        raise ConfigError("it is no ratio", key=where, value=ratio, hint=mend)
    if isinstance(ratio, str) and not re.search(r"\d", ratio):
        raise ConfigError("it is no ratio", key=where, value=ratio, hint="Write one number a source, as in 7:3.")
    if len(parts) != len(names):
        numbers = f"{len(parts)} number{'s' * (len(parts) != 1)}"
        text = f"it has {numbers}, but there are {len(names)} sources ({', '.join(names)})"
        other = re.sub(r"\s*[/;|\s-]\s*", ":", ratio.strip()) if isinstance(ratio, str) else ""
        mend = f"Write {other}." if other.count(":") == len(names) - 1 else "Give one each, as in 7:3."
        raise ConfigError(text, key=where, value=ratio, hint=mend)
    return {name: as_fraction(part, where, name) for name, part in zip(names, parts, strict=True)}


def resolve_shares(
    names: Sequence[str],
    *,
    ratio: object = None,
    weights: Mapping[str, object] | None = None,
    share: Mapping[str, object] | None = None,
    default: Mapping[str, Number] | None = None,
    where: str = "mix",
    may_be_empty: bool = False,
) -> dict[str, Fraction]:
    """Turn a user's ratio, weights and shares into the exact share of every source.

    Args:
      names: The names of the sources, in order.
      ratio: The ratio of all sources, see `parse_ratio`.
      weights: The relative weights; a source not named, or with None, has 1.
      share: The absolute shares, in [0, 1]; the other sources divide the rest by their weights.
      default: The weights of sources that are not named, in place of 1.
      where: The key of these settings in error messages.
      may_be_empty: Whether all weights may be 0, in which case all shares are.

    Returns:
      The share of each source, in order; they add up to 1, or are all 0 if `may_be_empty`.

    Raises:
      ConfigError: A source is unknown or has two rules, or the numbers do not make a mix.

    >>> resolve_shares(["a", "b", "c"], share={"a": 0.5}, weights={"b": 3})
    {'a': Fraction(1, 2), 'b': Fraction(3, 8), 'c': Fraction(1, 8)}
    """
    weight_by_name = {key: value for key, value in (weights or {}).items() if value is not None}
    share_by_name = {key: value for key, value in (share or {}).items() if value is not None}
    check_sources(weight_by_name, names, f"{where}.weights")
    check_sources(share_by_name, names, f"{where}.share")
    if ratio is not None and (weight_by_name or share_by_name):
        keys = [f"{where}.weights.{name}" for name in weight_by_name]
        other = (keys + [f"{where}.share.{name}" for name in share_by_name])[0]
        text = f"it and {other} both say how much of each source"
        raise ConfigError(text, key=f"{where}.ratio", value=ratio, hint="Give one of them.")
    for name, weight in weight_by_name.items():
        if name in share_by_name:
            text = f"it and {where}.share.{name} both say how much of {name}"
            raise ConfigError(text, key=f"{where}.weights.{name}", value=weight, hint="Give one of them.")

    shares = {name: as_fraction(value, f"{where}.share.{name}") for name, value in share_by_name.items()}
    total = sum(shares.values(), Fraction(0))
    for name, value in shares.items():
        if value > 1:
            advice = f"For a relative weight, set {where}.weights.{name}."
            raise ConfigError("a share lies in [0, 1]", key=f"{where}.share.{name}", value=_plain(value), hint=advice)
    if total > 1:
        listed = " + ".join(f"{float(value):g}" for value in shares.values())
        raise ConfigError(f"{listed} = {float(total):g}; shares may add up to 1 at most", key=f"{where}.share")

    relative = (
        parse_ratio(ratio, names, f"{where}.ratio")
        if ratio is not None
        else {
            name: as_fraction(weight_by_name.get(name, (default or {}).get(name, 1)), f"{where}.weights.{name}")
            for name in names
            if name not in shares
        }
    )
    whole = sum(relative.values(), Fraction(0))
    if whole == 0 and total < 1:
        if not shares and may_be_empty:
            return relative
        if not shares:
            raise ConfigError("all are 0; at least one source needs one above 0", key=f"{where}.weights")
        text = f"it adds up to {float(total):g} and no other source has a weight to take the rest"
        mend = "Make the shares add up to 1, or give another source a weight."
        raise ConfigError(text, key=f"{where}.share", hint=mend)
    rest = 1 - total
    return {name: shares[name] if name in shares else relative[name] * rest / (whole or 1) for name in names}


def integer_weights(shares: Sequence[Fraction]) -> list[int]:
    """The smallest integers in the ratio of the shares.

    >>> integer_weights([Fraction(7, 10), Fraction(3, 10)])
    [7, 3]
    """
    scaled, _ = over_common(shares)
    divisor = math.gcd(*scaled)
    return [value // divisor for value in scaled]


def over_common(numbers: Sequence[Fraction]) -> tuple[list[int], int]:
    """The numerators of some numbers over their least common denominator, and that denominator.

    This form makes arithmetic on many numbers fast: every operation on a `Fraction` takes a microsecond or more.

    >>> over_common([Fraction(1, 2), Fraction(1, 3)])
    ([3, 2], 6)
    """
    unit = math.lcm(*(number.denominator for number in numbers))
    return [number.numerator * (unit // number.denominator) for number in numbers], unit
