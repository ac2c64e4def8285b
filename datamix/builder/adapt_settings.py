"""The settings of `adapt`, by which the weights of a mix follow training, and the checks that the mix allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from datamix import registry
from datamix.config.schema import AdaptConfig
from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.plan_spec import PlanSpec

if TYPE_CHECKING:
    from datamix.pipeline.adapt import Adapt

_LEAST = {"every": (int, 1), "floor": (float, 0), "warmup": (int, 0), "max_epochs": (int, 1)}
"""The settings of every policy: the type and the least value of each."""
DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(AdaptConfig) if each.name in _LEAST}
"""The defaults of these settings."""


def adapt_of(
    settings: Mapping[str, Any], plan: Plan, mix: PlanSpec, unit: str, remainder: str, loss_weight: object, skip: object
) -> Adapt:
    """Check the settings of a policy, and build the `Adapt` by which the weights of a mix follow training.

    Args:
      settings: The policy's name under "rule", the keys of `DEFAULTS`, and the policy's own settings.
      plan: The plan with the weights at which the mix begins.
      mix: The inputs of that plan.
      unit: What follows the ratio: "record", or a leaf.
      remainder: "drop" or "keep" the records at the end of the mix that do not fill a batch.
      loss_weight: The weights of the sources in the loss, or the rule for them.
      skip: The steps that iterators leave out.

    Raises:
      ConfigError: A setting of the mix conflicts with the policy, or a setting of the policy is wrong.
    """
    rule, of_every_policy = settings.get("rule"), {key: settings.get(key, default) for key, default in DEFAULTS.items()}
    if not isinstance(rule, str):
        text = "it is the name of a policy, or one under 'rule' and its settings"
        raise ConfigError(text, key="adapt", value=settings)
    for key, (kind, least) in _LEAST.items():
        value = of_every_policy[key]
        if value != DEFAULTS[key] and not (registry.is_kind(value, kind) and value >= least):
            raise ConfigError(f"it is {registry.KINDS[kind]}, {least} or more", key=f"adapt.{key}", value=value)
    refused = {
        "mix.schedule": (mix.schedule, "the policy says how weights change"),
        "mix": (mix.order if mix.order != "proportional" else None, "it orders records itself; use mix=proportional"),
        "mix.window": (mix.settings.get("window"), "it orders records itself"),
        "mix.stratify": (mix.settings.get("stratify"), "it orders records itself"),
        "mix.unit": (unit if unit != "record" else None, "its weights are those of records"),
        "mix.max_epochs": (mix.max_epochs, "adapt.max_epochs is the cap of all sources"),
        "mix.loss_weight": (loss_weight if isinstance(loss_weight, str) else None, "shares change on the way"),
        "skip": (skip, "what comes after them depends on their losses"),
        "batch.remainder": (remainder if remainder != "drop" else None, "all its batches are whole"),
        "stop.tokens": (mix.tokens, "how many records hold so many depends on the losses"),
        "stop": (plan.stages[-1].length and mix.samples is None and mix.stop, "when it ends depends on the losses"),
    }
    for key, (value, why) in refused.items():
        if value:
            mend = "Set stop=forever, and train.steps or stop.batches." if key == "stop" else "Leave one of them out."
            raise ConfigError(f"it does not go with adapt={rule}: {why}", key=key, value=value, hint=mend)
    if len(plan.stages) > 1 or plan.max_stages > 1:
        raise ConfigError(f"it does not go with adapt={rule}; set stop=forever", key="stop", value=mix.stop)
    for name, share in zip(plan.names, plan.shares, strict=True):
        if not share:
            text = f"adapt={rule} would give it a share all the same; leave it out of source="
            raise ConfigError(text, key=f"mix.weights.{name}", value=0)
    if len(plan.names) < 2:
        raise ConfigError(f"adapt={rule} needs two sources or more", key="source", value=plan.names[0])
    from datamix.pipeline.adapt import Adapt

    of_policy = {key: value for key, value in settings.items() if key not in {"rule", *DEFAULTS}}
    return Adapt.of(rule, of_policy, plan.names, batch_size=mix.batch_size, **of_every_policy)
