"""The schema is the reference of the configuration: every field is a key of the YAML and says what it means."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from omegaconf import OmegaConf

from datamix.config.check import keys_of
from datamix.config.compose import compose
from datamix.config.schema import Config, MixConfig, OperatorConfig, SourceConfig, SweepConfig, TrainConfig

SCHEMAS = [Config, MixConfig, OperatorConfig, SourceConfig, SweepConfig, TrainConfig]
# What parsing makes, which stands under no key of its own.
MADE = {"sources", "mix", "sweep", "train", "group_weights", "schedule_settings"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_field_is_explained(schema: Any) -> None:
    attributes = re.findall(r"^  +(\w+): [A-Z].*\S$", schema.__doc__, re.MULTILINE)
    assert attributes == [field.name for field in fields(schema)]


@pytest.mark.parametrize("schema", [Config, MixConfig, SweepConfig, TrainConfig])
def test_every_key_is_in_the_shipped_configs(schema: Any) -> None:
    node = compose(["job=train"])
    for name, key in keys_of(schema).items():
        if name not in MADE:
            group, _, last = key.path.rpartition(".")
            parent = OmegaConf.select(node, group) if group else node
            assert last == "*" or last in parent, key.path


def test_it_is_frozen() -> None:
    mix = MixConfig(order="random", stop="forever")
    with pytest.raises(FrozenInstanceError):
        mix.order = "concat"  # type: ignore[misc]
    assert mix.weighting == {"rule": "equal"}
