"""Sobol sequences: those of SciPy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from datamix.sweeps.sobol import sobol


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("size", [*range(1, 11)])
def test_points_are_those_of_scipy(size: int, seed: int) -> None:
    points = qmc.Sobol(size, seed=seed).random(512)
    np.testing.assert_array_equal(sobol(size, seed, 0, 256), points[:256])
    np.testing.assert_array_equal(sobol(size, seed, 256, 256), points[256:])
