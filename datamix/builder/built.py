"""Build a mix from a checked configuration, with everything that a job may need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from datamix import registry
from datamix.builder.adapt_settings import DEFAULTS
from datamix.builder.assembly import Assembly, Delivery, assemble
from datamix.builder.opening import Locations, check_data_dir, open_source, operations, shared
from datamix.builder.selecting import simulate
from datamix.config.schema import AdaptConfig, Config
from datamix.errors import prepare_hint
from datamix.mixing.groups import resolve
from datamix.mixing.plan_spec import PlanSpec


@dataclass(frozen=True, kw_only=True)
class Built(Assembly):
    """A mix that was built from a configuration, with that configuration and the locations of its data."""

    config: Config
    locations: Locations

    @property
    def notes(self) -> list[str]:
        """The notes on sources that a user must not overlook, such as stand-ins; one line each."""
        notes = [source.note for source in self.sources.values() if source.note]
        if notes:
            notes[-1] += f" For the real data, set data.dir=, or {prepare_hint()}."
        return notes

    def notes_on_records(self) -> list[str]:
        """See `Assembly`."""
        notes = super().notes_on_records()
        if self.config.adapt is not None and self.adapt is None:
            rule = self.config.adapt.rule
            notes.append(f"adapt={rule}: this is the mix as it begins; in job=train, the losses change its weights.")
        return notes

    @property
    def caution(self) -> str:
        """The part of the titles of figures and tables that names stand-ins; empty if there are none."""
        names = [name for name, source in self.sources.items() if source.provenance == "stand-in"]
        return f" — built-in stand-ins, not real data: {', '.join(names)}" if names else ""


def build(config: Config, memory: Mapping[str, Any] | None = None) -> Built:
    """Open the sources of a configuration, and lay out its plan and graph; see `assemble` for what is read.

    Args:
      config: The checked configuration.
      memory: Sources made in Python, by name.

    Raises:
      DatamixError: A setting is wrong, or a source cannot be opened.
    """
    _check_components(config)
    mix = config.mix
    # Checks the weights before any dataset is opened, which may take seconds.
    resolve([source.name for source in config.sources], ratio=mix.ratio, weights=mix.weights, share=mix.share)
    check_data_dir(config.data_dir)
    locations = Locations(memory=memory or {}, **shared(Locations, config))
    sources = [open_source(source, locations) for source in config.sources]
    if mix.simulate_budget is not None:
        sources = simulate(sources, config.budget, mix.simulate_budget)
    assembly = assemble(
        sources,
        PlanSpec(
            **shared(PlanSpec, mix, but=("stop",)),
            **shared(PlanSpec, config),
            stop={"rule": mix.stop, **mix.stop_settings} if mix.stop_settings else mix.stop,
        ),
        Delivery(**shared(Delivery, config)),
        operators=operations(config.operators),
        labels=config.labels,
        unit=mix.unit,
        loss_weight=mix.loss_weight,
        adapt=None if config.adapt is None else _settings(config.adapt),
    )
    if config.job not in ("", "train"):  # there are no losses that the weights could follow
        assembly = replace(assembly, adapt=None)
    return Built(config=config, locations=locations, **vars(assembly))


def _check_components(config: Config) -> None:
    """Check the settings of operators, policy, model, optimizer and schedule; unlike parsing, this imports them."""

    def check(where: str, kind: str, name: str, settings: Mapping[str, Any], beside: Collection[str] = ()) -> Any:
        component = registry.lookup(kind, name)
        registry.check_settings(where, component, settings, beside)
        return component

    chains = {f"source.{source.name}.operators": source.operators for source in config.sources}
    for where, chain in {**chains, "operators": config.operators}.items():
        for i, operator in enumerate(chain):
            check(f"{where}[{i}].{operator.name}", "operator", operator.name, operator.settings)
    if (adapt := config.adapt) is not None:
        check("adapt", "policy", adapt.rule, adapt.settings)
    if (train := config.train) is not None:
        check("model", "model", train.model, train.model_settings)
        beside = ("learning_rate", "schedule")
        optimizer = check("optimizer", "optimizer", train.optimizer, train.optimizer_settings, beside)
        optimizer(train.learning_rate, **train.optimizer_settings)  # it checks the values itself
        settings = train.schedule_settings
        schedule = check(f"optimizer.schedule.{train.schedule}", "schedule", train.schedule, settings)
        if train.steps is not None and train.tokens is None:  # otherwise the mix decides the number of steps
            schedule(train.steps, **settings)


def _settings(adapt: AdaptConfig) -> dict[str, Any]:
    """The settings of `adapt` as `assemble` takes them."""
    return {**adapt.settings, **{key: getattr(adapt, key) for key in ("rule", *DEFAULTS)}}
