"""`source=a+b`: what it stands for, before anything is composed."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

from datamix.config.plus import in_memory, joined
from datamix.errors import ConfigError


def test_joined_names_are_defaults_in_their_order() -> None:
    node = OmegaConf.to_container(joined("mnist+my_npz"))
    assert node == {
        "defaults": ["_self_", {"/dataset@source.mnist": "mnist"}, {"/dataset@source.my_npz": "my_npz"}],
        "source": {},
        "mix": {"weights": {}, "share": {}},
        "stop": {"epochs": {}},
    }


def test_nodes_with_a_key_a_source_stay_open_where_the_rest_is_closed() -> None:
    node = joined("mnist")
    OmegaConf.set_struct(node, True)
    for key in ("source.mnist", "mix.weights.mnist", "mix.share.mnist", "stop.epochs.mnist"):
        OmegaConf.update(node, key, 2)
        assert OmegaConf.select(node, key) == 2
    with pytest.raises(ConfigKeyError, match="wieghts"):
        OmegaConf.update(node, "mix.wieghts.mnist", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^source: '' is not the name of a dataset; write source=mnist\+fashion\.$"),
        ("mnist+", r"^source: '' is not the name of a dataset"),
        ("mnist+../x", r"^source: '\.\./x' is not the name of a dataset"),
        ("7up", r"^source: '7up' is not the name of a dataset"),
        ("a+b+a", r"^source: 'a' is named twice; give its second use a YAML file of its own name\.$"),
    ],
)
def test_what_is_no_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        joined(text)


def test_arrays_in_memory_name_no_file() -> None:
    assert OmegaConf.to_container(in_memory()) == {"_target_": "arrays"}
