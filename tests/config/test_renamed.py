"""Keys of earlier releases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.config.renamed import GROUPS, TARGET, rename_keys, rename_overrides


@pytest.mark.parametrize(("group", "old"), GROUPS.items())
def test_an_old_key_is_put_where_it_belongs(group: str, old: str) -> None:
    plain: dict[str, Any] = {group: {TARGET: "first", old: "second", "more": 1}, "seed": 0}
    rename_keys(plain)
    assert plain == {group: {TARGET: "second", "more": 1}, "seed": 0}
    rename_keys(plain)
    assert plain == {group: {TARGET: "second", "more": 1}, "seed": 0}
    assert rename_overrides(
        [f"{group}.{old}=x,y", f"+{group}.{old}=x", f"{group}.{old}s=x", f"my.{group}.{old}=x"]
    ) == [
        f"{group}.{TARGET}=x,y",
        f"{group}.{TARGET}=x",
        f"{group}.{old}s=x",
        f"my.{group}.{old}=x",
    ]


def test_what_is_no_group_stays() -> None:
    plain = {"job": None, "mix": 3}
    rename_keys(plain)
    assert plain == {"job": None, "mix": 3}


def test_files_and_overrides_with_old_keys_are_accepted(tmp_path: Path) -> None:
    for group, text in {
        "mix/mine": "order: random\nreplacement: true\n",
        "stop/mine": "rule: forever\n",
        "weighting/mine": "rule: size\ncap: 7\n",
        "model/mine": "name: mlp\n",
        "optimizer/mine": "name: sgd\nlearning_rate: 1\nschedule: constant\n",
    }.items():
        (tmp_path / group).parent.mkdir()
        (tmp_path / f"{group}.yaml").write_text(text)
    choices = [f"{group}=mine" for group in ("mix", "stop", "weighting", "model", "optimizer")]
    config = parse(compose(["job=train", *choices, "source=digits"], config_dir=tmp_path))
    assert (config.mix.order, config.mix.settings) == ("random", {"replacement": True})
    assert (config.mix.stop, config.mix.weighting) == ("forever", {"rule": "size", "cap": 7})
    assert config.train is not None
    assert (config.train.model, config.train.optimizer) == ("mlp", "sgd")
    assert parse(compose(["job.name=plan"])).job == "plan"


def test_a_key_that_was_renamed_is_told_once() -> None:
    code = (
        "from datamix.config.renamed import rename_overrides\n"
        "for _ in range(3): rename_overrides(['mix.order=random', 'stop.rule=forever'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "mix.order is now mix._target_; the old key is accepted in this release alone.",
        "stop.rule is now stop._target_; the old key is accepted in this release alone.",
    ]
