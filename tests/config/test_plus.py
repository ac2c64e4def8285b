"""`source=a+b`: what it stands for, before anything is composed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

import datamix
from datamix.config.plus import in_memory, joined
from datamix.errors import ConfigError


def test_joined_names_are_defaults_in_their_order() -> None:
    node = OmegaConf.to_container(joined("mnist+my_npz"))
    assert node == {
        "defaults": ["_self_", {"/dataset@source.mnist": "mnist"}, {"/dataset@source.my_npz": "my_npz"}],
        "source": {},
        "mix": {"weights": {}, "share": {}, "loss_weight": {}, "max_epochs": {}},
        "stop": {"epochs": {}},
        "adapt": {"reference": {}},
        "sweep": {"goal_weights": {}},
    }


def test_sources_in_memory_need_no_defaults() -> None:
    node = OmegaConf.to_container(joined("few+few@again", ["few", "other"]))
    assert "defaults" not in node
    assert node["source"] == {"few": {"_target_": "arrays"}, "again": {"_target_": "arrays"}}
    assert "defaults" in joined("few+mnist", ["few"])


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_name_longer_than_that_of_a_file_joins_as_well(in_memory: bool) -> None:
    few = {"image": np.zeros((3, 4, 4, 1), np.uint8), "label": np.arange(3)}
    names = [f"source_{i}" for i in range(40)]
    if in_memory:
        pipeline = datamix.load(
            "batch.size=4", "stop=forever", "source.source_7.limit=2", sources=dict.fromkeys(names, few)
        )
    else:
        parts = [f"digits@{name}" for name in names]
        pipeline = datamix.load(f"source={'+'.join(parts)}", "batch.size=4", "stop=forever", "source.source_7.limit=2")
    assert pipeline.plan.names == tuple(names)
    assert pipeline.plan.sizes[7] == 2


def test_nodes_with_a_key_a_source_stay_open_where_the_rest_is_closed() -> None:
    node = joined("mnist")
    OmegaConf.set_struct(node, True)
    for key in (
        "source.mnist",
        "mix.weights.mnist",
        "mix.share.mnist",
        "mix.loss_weight.mnist",
        "mix.max_epochs.mnist",
        "stop.epochs.mnist",
    ):
        OmegaConf.update(node, key, 2)
        assert OmegaConf.select(node, key) == 2
    with pytest.raises(ConfigKeyError, match="wieghts"):
        OmegaConf.update(node, "mix.wieghts.mnist", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^source: '' is not the name of a dataset; write source=mnist\+fashion, as names have letters, "),
        ("mnist+", r"^source: '' is not the name of a dataset"),
        ("mnist+../x", r"^source: '\.\./x' is not the name of a dataset"),
        ("my-own", r"^source: 'my-own' is not the name of a dataset; .*, as names have letters, digits and _\.$"),
        ("7up", r"^source: '7up' is not the name of a dataset"),
        ("a+b+a", r"^source: 'a' is named twice; give its second use a name of its own, as in source=a\+a@again\.$"),
        ("a+b@a", r"^source: 'a' is named twice; give its second use a name of its own, as in source=b\+b@again\.$"),
        ("a@", r"^source: '' is not the name of a dataset"),
        ("a@b@c", r"^source: 'b@c' is not the name of a dataset"),
    ],
)
def test_what_is_no_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        joined(text)


def test_a_dataset_may_be_several_sources(shared_data: Path, tmp_path: Path) -> None:
    pipeline = datamix.load(
        *("source=mnist+mnist@easy", "source.easy.split=train[:100]", "source.easy.seed=3", "mix.weights.easy=3"),
        *("labels=keep", "batch.size=8", f"data.dir={shared_data}/tensorflow_datasets", f"data.cache={tmp_path}"),
    )
    assert (pipeline.plan.names, pipeline.plan.sizes) == (("mnist", "easy"), (8000, 100))
    assert np.bincount(pipeline[0]["source_id"]).tolist() == [2, 6]
    few = {"label": np.arange(8)}
    again = datamix.load("source=few+few@again", "source.again.limit=4", "batch.size=4", sources={"few": few})
    assert (again.plan.names, again.plan.sizes) == (("few", "again"), (8, 4))


def test_arrays_in_memory_name_no_file() -> None:
    assert OmegaConf.to_container(in_memory()) == {"_target_": "arrays"}
