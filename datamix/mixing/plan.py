"""The plan of a mix: from a position to (source, epoch, record), without data, operators or JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from html import escape
from inspect import Parameter, Signature, signature
from typing import Any

from datamix.errors import ConfigError
from datamix.mixing import plan_report
from datamix.mixing.locating import Locator, Selection
from datamix.mixing.plan_report import PlanReport
from datamix.mixing.plan_spec import PlanSpec, ResolvedSpec, resolve_spec
from datamix.mixing.stages import Stage, cut
from datamix.mixing.weights import Number

__all__ = ["Plan", "Selection"]

_INPUTS = {field.name for field in fields(PlanSpec)} - {"sizes", "weights", "settings"}


def _signature() -> Signature:
    """The signature that `help` and notebooks show: the keywords of `PlanSpec`, and the settings of the order."""
    inputs = dict(signature(PlanSpec).parameters)
    inputs["sizes"] = inputs["sizes"].replace(kind=Parameter.POSITIONAL_OR_KEYWORD, default=Parameter.empty)
    inputs["weights"] = inputs["weights"].replace(kind=Parameter.POSITIONAL_OR_KEYWORD)
    del inputs["settings"]
    return Signature([*inputs.values(), Parameter("settings", Parameter.VAR_KEYWORD, annotation=Any)])


class Plan(Locator):
    """A mix as a pure function of (configuration, seed, position).

    The inputs are resolved and the mix is cut into stages once, when the plan is made.

    Args:
      sizes: The number of records of each source, by name, in order.
      weights: The relative weights of sources and groups; one not named has 1.
      inputs: The other attributes of `PlanSpec` and the settings of the order, as keywords.

    Attributes:
      spec: The inputs. The other attributes are those of `datamix.mixing.locating.Locator`.

    Raises:
      ConfigError: The names, numbers or rules do not make a mix.

    >>> plan = Plan(sizes={"a": 5, "b": 3}, weights={"a": 2, "b": 1}, stop="all_exhausted", shuffle=False)
    >>> plan.length
    8
    >>> plan.take(0, 8).source.tolist()
    [0, 1, 0, 0, 1, 0, 0, 1]
    >>> plan.take(0, 8).record.tolist()
    [0, 0, 1, 2, 1, 3, 4, 2]
    """

    __signature__ = _signature()

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, Any] | None = None, **inputs: Any) -> None:
        of_spec = {key: inputs.pop(key) for key in _INPUTS & inputs.keys()}
        self.spec = PlanSpec(sizes=sizes, weights=weights, **of_spec, settings=inputs)
        mix = resolve_spec(self.spec)
        stages = _stages(mix)
        tokens = self.spec.tokens
        if tokens is not None and (end := Locator(mix, stages).records_until(tokens)) is not None:
            mix = replace(mix, samples=end)
            stages = _stages(mix)
        super().__init__(mix, stages)

    @classmethod
    def of(cls, spec: PlanSpec) -> Plan:
        """The plan for the given inputs."""
        inputs = dict(vars(spec))
        return cls(**inputs.pop("settings"), **inputs)

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {float(share):.4g}" for name, share in zip(self.names, self.targets, strict=True))
        return f"<Plan: {shares}; {'without end' if self.length is None else f'{self.length:,} records'}>"

    def _repr_html_(self) -> str:
        """The sources as a table, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{size:,}</td><td>{100 * float(share):.4g} %</td></tr>"
            for name, size, share in zip(self.names, self.sizes, self.targets, strict=True)
        )
        length = "without end" if self.length is None else f"{self.length:,} records"
        return f"<table><tr><th>source</th><th>records</th><th>share</th></tr>{rows}</table><p>The mix: {length}.</p>"

    def with_weights(self, weights: Mapping[str, Number]) -> Plan:
        """The same mix in another ratio, which is constant from the first step to the last.

        Args:
          weights: The relative weights of sources and groups; one not named has 1, or the weight that its group gives
            it.

        Raises:
          ConfigError: A source is unknown, or the numbers do not make a mix.
        """
        spec = replace(self.spec, weights=weights, ratio=None, share=None, weighting="equal", schedule=None)
        return Plan.of(spec)

    def report(self) -> PlanReport:
        """Report realised shares, epochs, exhaustion, the largest deviation, and warnings."""
        return plan_report.report(self)

    def unseen(self) -> list[str]:
        """Name the sources that have no share, or some of whose records are never given though the stop promises all.

        Returns:
          A sentence for each of these sources.
        """
        return plan_report.unseen(self)

    def left_behind(self) -> str:
        """Say where a source deviates from the summed shares of a schedule by 1 % and more than two slots; else empty.

        >>> schedule = [{"until": 64, "ramp": "linear", "weights": {"a": 1.2}}]
        >>> Plan(dict.fromkeys("abcd", 100), batch_size=3, schedule=schedule, stop="forever").left_behind()
        ''
        """
        return plan_report.left_behind(self)

    def never_shown(self) -> str:
        """Say how many records the stop never shows, and what showing all would repeat; empty where it shows all.

        It is also empty where `samples`, `tokens` or `max_epochs` limit the mix on purpose.

        >>> Plan({"a": 9, "b": 2}).never_shown()
        '6 of 11 records are never shown (a 6); stop=all_exhausted shows all and gives b 4.0 times.'
        """
        if self.spec.samples is not None or self.spec.tokens is not None or self.spec.max_epochs:
            return ""
        return plan_report.never_shown(self, lambda: Plan.of(replace(self.spec, stop="all_exhausted")))

    def capped(self, position: int | None = None) -> list[str]:
        """Say where sources reach their largest number of epochs, and whether they then leave the mix or end it.

        Args:
          position: The position before which they leave, in records; None for the whole mix, with the error at its end.

        >>> plan = Plan({"a": 8, "b": 100}, stop="forever", batch_size=4, max_epochs={"a": 2})
        >>> plan.capped(31), plan.capped(32)
        ([], ['a leaves the mix in batch 7, as mix.max_epochs says.'])
        """
        return plan_report.capped(self, position)

    def drawn(self) -> list[str]:
        """Describe how records are drawn, a sentence for each source with a sampling."""
        return plan_report.drawn(self)

    def max_deviation(self, records: int | None = None) -> tuple[float, int]:
        """The largest deviation of a source from the sum of its exact shares, at the end of a slot.

        Args:
          records: The number of records to examine, from the first; by default, and at most, those of the first 2^20
            slots.

        Returns:
          The largest deviation, in records (or in the unit of their lengths), and the number of records examined.
        """
        return plan_report.max_deviation(self, records)

    def long_run_share(self, source: int) -> float:
        """The share that a source gets over a whole cycle of the last stage, in [0, 1].

        Args:
          source: The index of the source.
        """
        return plan_report.realised(self, self.stages[-1])[source]


def _stages(mix: ResolvedSpec) -> list[Stage]:
    begin = mix.begin, mix.base
    stages = cut(mix.stop, mix.order, mix.phases, mix.demand, mix.limit, begin, mix.caps, drops_at_cap=mix.drops_at_cap)
    if not stages:
        position = mix.begin * mix.demand.slot_records
        text = f"it ends the mix before record {position:,}, where it is to go on"
        raise ConfigError(text, key="stop", hint="Choose one that ends later, as forever.")
    return stages
