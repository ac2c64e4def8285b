"""What weights that follow training need of a mix, and the line in which it is said where it is not so."""

from __future__ import annotations

import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, RegistryError

SOURCES = {name: {"label": np.arange(9)} for name in ("a", "b", "c")}


def mixed(*, sources=SOURCES, stop="forever", adapt="odm", **settings):
    return datamix.mix(sources, stop=stop, batch_size=4, adapt=adapt, **settings)


def test_settings_are_those_of_every_policy_and_its_own():
    adapt = mixed(adapt={"rule": "loss_temperature", "every": 3, "temperature": 2.0, "reference": {"b": 1}}).adapt
    assert (adapt.rule, adapt.every, adapt.floor, adapt.warmup, adapt.max_epochs) == (
        "loss_temperature",
        3,
        0.01,
        0,
        None,
    )
    assert (adapt.policy.temperature, adapt.policy.reference) == (2.0, (0.0, 1.0, 0.0))
    assert mixed().adapt == mixed().adapt
    assert datamix.mix(SOURCES).adapt is None


def test_settings_are_part_of_the_fingerprint():
    pipelines = [mixed(), mixed(adapt={"rule": "odm", "every": 5}), mixed(adapt="ado"), mixed(adapt=None)]
    assert len({pipeline.fingerprint for pipeline in pipelines}) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "random"}, r"^order = 'random'; it does not go with adapt=odm: it orders records itself; use mix="),
        ({"window": 4}, r"^window = 4; it does not go with adapt=odm: it orders records itself\. Leave one of"),
        ({"stratify": True}, r"^stratify = True; it does not go with adapt=odm"),
        ({"schedule": [{"ratio": "1:1:1"}]}, r"^schedule = .*; it does not go with adapt=odm: the policy says"),
        ({"unit": "label"}, r"^unit = 'label'; it does not go with adapt=odm: its weights are those of records"),
        ({"stop": "exhaust_once"}, r"^stop = 'exhaust_once'; it does not go with adapt=odm: when it ends depends on the"
         r" losses\. Set stop='forever', and train\.steps or batches\.$"),
        ({"max_epochs": {"a": 2}}, r"^max_epochs = .*; it does not go with adapt=odm: adapt\.max_epochs is the"),
        ({"skip": [[1, 2]]}, r"^skip = .*; it does not go with adapt=odm: what comes after them depends on their"),
        ({"loss_weight": "inverse_share"}, r"^loss_weight = 'inverse_share'; it does not go with adapt=odm: sha"),
        ({"samples": 9, "remainder": "keep"}, r"^remainder = 'keep'; it does not go with adapt=odm"),
        ({"weights": {"a": 0}}, r"^weights\['a'\] = 0; adapt=odm would give it a share all the same; leave it out of"),
        ({"sources": {"a": SOURCES["a"]}}, r"^source = 'a'; adapt=odm needs two sources or more\.$"),
        ({"adapt": {"every": 3}}, r"^adapt = .*; it is the name of a policy, or one under 'rule' and its settings\.$"),
        ({"adapt": {"rule": "odm", "every": 0}}, r"^adapt\.every = 0; it is a whole number, 1 or more\.$"),
        ({"adapt": {"rule": "odm", "floor": "low"}}, r"^adapt\.floor = 'low'; it is a number, 0 or more\.$"),
        ({"adapt": {"rule": "odm", "floor": 0.5}}, r"^adapt\.floor = 0\.5; it is at most 1 / 3, for each of 3 sources"),
        ({"adapt": {"rule": "odm", "smooth": 1}}, r"^adapt\.smooth: there is no such setting\. Did you mean 'smooth"),
        ({"adapt": {"rule": "loss_temperature", "reference": {"d": 1}}},
         r"^adapt\.reference\.d: there is no source 'd' in this mix\. Known: a, b, c\.$"),
        ({"adapt": {"rule": "loss_temperature", "reference": {"a": "x"}}},
         r"^adapt\.reference\.a = 'x'; it is a number\.$"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        mixed(**settings)


def test_a_policy_that_nobody_knows():
    with pytest.raises(RegistryError, match=r"^no policy 'exp4'\. "):
        mixed(adapt="exp4")


def test_tokens_that_would_end_the_mix_are_refused():
    tokens = {name: {"num_tokens": np.arange(1, 9)} for name in ("a", "b")}
    with pytest.raises(ConfigError, match=r"^tokens = 9; it does not go with adapt=odm: how many records"):
        mixed(sources=tokens, tokens=9)
