"""From a checked configuration to all that a job may need."""

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
from datamix.errors import install_hint
from datamix.mixing.groups import resolve
from datamix.mixing.plan_spec import PlanSpec


@dataclass(frozen=True, kw_only=True)
class Built(Assembly):
    """A mix that was put together from a configuration, and where its data was looked for."""

    config: Config
    locations: Locations

    @property
    def notes(self) -> list[str]:
        """The lines that a user must not overlook, about the sources."""
        notes = [source.note for source in self.sources.values() if source.note]
        if notes:
            notes[-1] += f" For the real data, set data.dir=, or {install_hint('prepare')} and run with a network."
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
        """What the titles of figures and tables say of stand-ins; empty where there are none."""
        names = [name for name, source in self.sources.items() if source.provenance == "stand-in"]
        return f" — built-in stand-ins, not real data: {', '.join(names)}" if names else ""


def build(config: Config, memory: Mapping[str, Any] | None = None) -> Built:
    """Open the sources of a configuration, and lay out its plan and graph; no record is read.

    `memory` holds sources made in Python, by name.
    """
    _check_components(config)
    mix = config.mix
    # Before any dataset is looked for, which may take seconds.
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
    if config.job not in ("", "train"):  # without losses, the weights stay as they are
        assembly = replace(assembly, adapt=None)
    return Built(config=config, locations=locations, **vars(assembly))


def _check_components(config: Config) -> None:
    """Check the settings of operators, policy, model, optimizer and schedule, which imports them, unlike parsing."""

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
        optimizer(train.learning_rate, **train.optimizer_settings)  # it refuses values itself
        settings = train.schedule_settings
        schedule = check(f"optimizer.schedule.{train.schedule}", "schedule", train.schedule, settings)
        if train.steps is not None and train.tokens is None:  # otherwise known once the mix is
            schedule(train.steps, **settings)


def _settings(adapt: AdaptConfig) -> dict[str, Any]:
    """What `assemble` takes."""
    return {**adapt.settings, **{key: getattr(adapt, key) for key in ("rule", *DEFAULTS)}}
