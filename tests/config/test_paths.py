"""Relative paths mean the directory in which the command was typed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from datamix.config.paths import with_absolute_paths

HERE = Path("/here")


def test_paths_by_their_names() -> None:
    node = {
        "source": {
            "a": {"_target_": "arrays", "path": "a.npz", "split": "train", "name": "a/b"},
            "b": {"files": ["x", "/y", "~/z", "gs://w"], "data_dir": "d", "inner": {"c": {"path": "c"}}},
        },
        "data": {"dir": "data", "cache": None, "stand_in": True},
        "sweep": {"dir": ["s", "t"], "metric": "accuracy/worst"},
        "job": {"path": "left"},
    }
    moved = OmegaConf.to_container(with_absolute_paths(OmegaConf.create(node), HERE))
    assert moved == {
        "source": {
            "a": {"_target_": "arrays", "path": "/here/a.npz", "split": "train", "name": "a/b"},
            "b": {
                "files": ["/here/x", "/y", "~/z", "gs://w"],
                "data_dir": "/here/d",
                "inner": {"c": {"path": "/here/c"}},
            },
        },
        "data": {"dir": "/here/data", "cache": None, "stand_in": True},
        "sweep": {"dir": ["/here/s", "/here/t"], "metric": "accuracy/worst"},
        "job": {"path": "left"},
    }


def test_the_configuration_itself_stays_as_it_is() -> None:
    node = OmegaConf.create({"source": {"a": {"path": "${vars.file}"}}, "vars": {"file": "a.npz"}})
    assert with_absolute_paths(node, HERE).source.a.path == "/here/a.npz"
    assert node.source.a.path == "a.npz"


def test_what_cannot_be_resolved_is_left_to_the_job() -> None:
    node = OmegaConf.create({"source": {"a": {"path": "${nowhere}"}, "b": {"path": "???"}}, "data": {"dir": ""}})
    moved = with_absolute_paths(node, HERE)
    assert OmegaConf.to_container(moved) == OmegaConf.to_container(node)
