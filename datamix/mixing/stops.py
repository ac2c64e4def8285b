"""Stops, the rules by which a mix ends: those that are built in, and how to add your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from datamix import registry
from datamix.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The rule by which a mix ends. A source is exhausted when all its records have been given, `epochs` times.

    Attributes:
      waits_for: How many sources have to be exhausted for the mix to end: "any" or "all" of them; None for a mix that
        never ends.
      drops: Whether an exhausted source drops out and the others continue in their ratio, until none is left.
      repeats: Whether a source may give a record more than `epochs` times before the mix ends. If not, the mix ends
        right before the first record that would be given too often; otherwise right after the last record it waits for.
      sources: The names of the sources that the mix waits for; the others may then repeat. If none is named, or none of
        them has a share, the mix waits for all sources that have one.
      epochs: The number of epochs after which a source is exhausted, by name; one for a source not named. A user's
        `stop.epochs` takes precedence.

    Raises:
      ConfigError: The attributes contradict each other.
    """

    waits_for: Literal["any", "all"] | None
    drops: bool = False
    repeats: bool = False
    sources: tuple[str, ...] = ()
    epochs: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.drops and (self.repeats or self.waits_for != "any"):
            raise ConfigError("a stop under which sources drop out waits for any of them and repeats nothing.")
        if self.waits_for != "any" and not self.repeats:
            waits = f"a stop that waits for {self.waits_for or 'no'} source{'s' * (self.waits_for == 'all')}"
            raise ConfigError(f"{waits} repeats records; set repeats=True, or waits_for='any'.")
        if self.sources and not (self.repeats and self.waits_for):
            raise ConfigError("a stop that waits for some sources alone lets the others repeat; set repeats=True.")

    @property
    def ends_before_repeat(self) -> bool:
        """Whether the mix ends right before a record would be given too often."""
        return not self.drops and not self.repeats


def stop(function: Callable[..., Stop]) -> Callable[..., Stop]:
    """Register a function as a stop, under its own name.

    The function takes the keyword settings of the stop's YAML file and returns a `Stop`.

    Raises:
      RegistryError: The name is taken, or a setting has the name of one that all stops have.

    >>> @stop
    ... def once_for_doctest(*, source: str = "b") -> Stop:
    ...     return Stop(waits_for="all", sources=(source,), repeats=True)
    >>> from datamix.mixing.plan import Plan
    >>> Plan({"a": 2, "b": 4}, stop="once_for_doctest").length
    8
    """
    registry.register("stop", function.__name__, function)
    return function


@stop
def first_exhausted() -> Stop:
    """End right before a record would be given a second time."""
    return Stop(waits_for="any")


@stop
def all_exhausted() -> Stop:
    """Let an exhausted source start its next epoch; end when every source has been exhausted."""
    return Stop(waits_for="all", repeats=True)


@stop
def exhaust_once() -> Stop:
    """Let an exhausted source drop out and the rest keep their relative weights: every record exactly once."""
    return Stop(waits_for="any", drops=True)


@stop
def forever() -> Stop:
    """Repeat epochs without end."""
    return Stop(waits_for=None, repeats=True)
