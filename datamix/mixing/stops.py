"""Stops, which say when a mix ends: those that are built in, and how to add your own."""

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
      waits_for: How many sources have to be exhausted: "any" or "all" of them; None for a mix that never ends.
      drops: Whether an exhausted source drops out and the rest go on in their ratio, until none is left.
      repeats: Whether a source may give a record more often than `epochs` says before the mix ends. Where none may, the
        mix ends right before the first record that would be; elsewhere right after the last record that it waited for.
      sources: The names of the sources that it waits for; the others may then repeat. Where none of them has a share,
        or none is named, it waits for all that have one.
      epochs: How often a source has to be gone through, by name; one not named, once. A user's `stop.epochs` comes
        first.

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
      RegistryError: The name is taken, or a setting has the name of one that every stop has.

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
    """Let a finished source start its next epoch; end when every source has finished once."""
    return Stop(waits_for="all", repeats=True)


@stop
def exhaust_once() -> Stop:
    """Let a finished source drop out and the rest keep their relative weights: every record exactly once."""
    return Stop(waits_for="any", drops=True)


@stop
def forever() -> Stop:
    """Go on with epochs without end."""
    return Stop(waits_for=None, repeats=True)
