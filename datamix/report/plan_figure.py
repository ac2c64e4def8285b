"""`datamix.plot`, which draws the plan of a mix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.plan_report import over_time
from datamix.report import figures
from datamix.report.console import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 5  # sources in the title


def plot(plan: Plan, path: Path | None = None, caution: str = "") -> Figure:
    """Draw the shares and epochs of each source over the batches of a mix.

    Args:
      plan: The plan of the mix.
      path: Where the figure is written; None for nowhere.
      caution: A text to append to the title.

    Raises:
      ConfigError: `plan` is not a plan.

    >>> import datamix
    >>> figure = datamix.plot(datamix.Plan({"a": 70, "b": 30}, ratio="7:3", batch_size=10))
    >>> figure.get_suptitle().splitlines()[0]
    'a 70.0 % + b 30.0 %'
    """
    if not isinstance(plan, Plan):
        raise ConfigError("it is a plan, such as pipeline.plan", key="plan", value=plan)
    shown, spec = over_time(plan), plan.spec
    ends = [[*map(percent, map(float, row))] for row in shown.planned[[0, -1]]]
    shares = (first if first == last else f"{first} → {last}" for first, last in zip(*ends, strict=True))
    names = [f"{name} {share}" for name, share in zip(plan.names, shares, strict=True)]
    mixed = " + ".join(names if len(names) <= _NAMED else [*names[: _NAMED - 1], "…"])
    stop = spec.stop["rule"] if isinstance(spec.stop, Mapping) else spec.stop
    title = f"{mixed}\n{spec.order}, {stop}, batches of {spec.batch_size}{caution}"
    drawn = shown.positions / spec.batch_size, shown.planned, shown.realised, shown.epochs
    return figures.plan(path, plan.names, *drawn, title)
