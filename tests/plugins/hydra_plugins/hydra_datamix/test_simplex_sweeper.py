"""The sweeper `simplex`, as Hydra makes it; the ratios that it draws are in tests/sweeps/test_simplex.py."""

from __future__ import annotations

import subprocess
import sys

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra_plugins.hydra_datamix.simplex_sweeper import SimplexSweeper


def test_hydra_finds_it():
    names = {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(Sweeper)}
    assert f"{SimplexSweeper.__module__}.SimplexSweeper" in names


def test_it_is_light(environment):
    code = (
        "import sys, hydra_plugins.hydra_datamix.simplex_sweeper\n"
        "print({'numpy', 'scipy', 'jax', 'datamix'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
