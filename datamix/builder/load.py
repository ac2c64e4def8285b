"""`datamix.load`, which builds the pipeline that a command line describes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Never

from omegaconf import OmegaConf

from datamix.builder.built import build
from datamix.builder.views import view
from datamix.config.compose import compose
from datamix.config.files import conf_dir
from datamix.config.parse import parse
from datamix.config.plus import datasets_of
from datamix.errors import ConfigError, refuse_keywords
from datamix.pipeline.pipeline import Pipeline
from datamix.sources.mapped import by_reference

_JOB_KEYS = ("job", "bench", "train", "model", "optimizer")


def load(
    *overrides: str,
    config_dir: str | Path | None = None,
    sources: Mapping[str, Any] | None = None,
    **keywords: Never,
) -> Pipeline:
    """Build the pipeline that a command line describes.

    No job is run. With "data.stand_in=true", a dataset that is not available is replaced by its stand-in.

    Args:
      overrides: As on the command line: "source=mnist+fashion", "mix.ratio=7:3", "batch.size=256".
      config_dir: A directory with configs of your own, as for `--config-dir`.
      sources: Sources made in Python, by the names that `source=` can use: arrays by leaf, or any object with `len()`
        whose `[i]` is record i; see `datamix.sources.objects.as_source`. If no override sets `source=`, the mix
        consists of them.

    Raises:
      DatamixError: The configuration or the data is wrong; the message says in one line what, and how to fix it.

    >>> import numpy as np
    >>> few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
    >>> pipeline = load("batch.size=4", "stop=all_exhausted", sources={"few": few, "fewer": few})
    >>> len(pipeline), next(iter(pipeline))["source_id"].tolist()
    (3, [0, 1, 0, 1])
    """
    refuse_keywords(keywords)
    if not isinstance(sources, Mapping | None):
        raise ConfigError(f"sources are given by name, as in {{'a': …}}; this is {type(sources).__name__}.")
    memory = dict(sources or {})
    for name in memory:
        if (conf_dir() / "dataset" / f"{name}.yaml").exists():
            raise ConfigError(f"{name!r} is the name of a dataset that is shipped; give yours another", key="sources")
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigError(f"{override!r} is no text; an override is, and a list is unpacked: load(*overrides).")
        if re.match(rf"[+~]*({'|'.join(_JOB_KEYS)})(/|\.|=|$)", override):
            text = "load builds a pipeline and runs no job, and this is of one"
            raise ConfigError(f"{text}; jobs run on the command line, or by datamix.run", key=override)
        if memory and re.match(r"source=.*@", override):  # few@again is another source with the data of few
            datasets = datasets_of(override.removeprefix("source="))
            memory |= {name: memory[dataset] for name, dataset in datasets.items() if dataset in memory}
    arguments = ["~job", *overrides]
    if memory and not any(override.startswith("source=") for override in overrides):
        arguments.append(f"source={'+'.join(memory)}")
    node = compose(arguments, config_dir=config_dir, datasets=list(memory))
    # An experiment may set keys of its job, which are not checked here.
    node = OmegaConf.masked_copy(node, [str(key) for key in node if key not in _JOB_KEYS])
    built = build(parse(node), memory).completed()
    pipeline = built.pipeline()
    pipeline.viewer = partial(view, built)
    pipeline.recipe = partial(load, *overrides, config_dir=config_dir, sources=by_reference(sources))
    for note in (*built.notes, *built.notes_on(pipeline)):
        warnings.warn(note, stacklevel=2)
    return pipeline
