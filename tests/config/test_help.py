"""What keys mean, from the comments of YAML files and from docstrings."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from datamix.config.files import conf_dir
from datamix.config.help import SettingLine, commented, meanings_of, settings_of
from datamix.config.schema import SourceConfig
from datamix.errors import ConfigError

CONFIG = OmegaConf.create(
    {"batch": {"size": 7}, "mix": {"ratio": "${vars.r}"}, "vars": {"r": 2}, "operators": ["cast"]}
)


def test_settings_of_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("# Mine.\n_target_: mine\nsize: 3 # of it\ninner:\n  deep: '# x' # is it\n")
    assert settings_of(path, "job") == (
        "Mine.",
        [
            SettingLine("job._target_", "mine", ""),
            SettingLine("job.size", "3", "of it"),
            SettingLine("job.inner.deep", "'# x'", "is it"),
        ],
    )
    assert settings_of(conf_dir() / "job" / "train.yaml", "job")[1][0].key == "job._target_"  # of the global package


def test_every_setting_of_a_source_has_a_meaning():
    assert (
        meanings_of(SourceConfig.__doc__)["limit"] == "How many of the first of these records are used; null for all."
    )
    assert meanings_of("Nothing.") == {}


def test_commented():
    assert commented(CONFIG, {}, "batch") == "batch:\n  size: 7  # records"
    assert commented(CONFIG, {}, "mix.ratio").startswith("  ratio: ${vars.r}  # of all sources in their order")
    assert commented(CONFIG, {}, "mix.ratio", resolve=True).startswith("  ratio: 2  # of all")
    whole = commented(CONFIG, {})
    assert OmegaConf.create(whole) == CONFIG  # it stays YAML
    assert commented(CONFIG, {"stop": "forever"}, "stop").startswith("stop=all_exhausted: ")


def test_no_such_topic():
    with pytest.raises(ConfigError, match=r"^bach: there is no key 'bach'\. Did you mean 'batch'\?"):
        commented(CONFIG, {}, "bach")
    with pytest.raises(ConfigError, match=r"^train: it belongs to job=train\."):
        commented(CONFIG, {}, "train")
