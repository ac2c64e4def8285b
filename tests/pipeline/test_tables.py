from __future__ import annotations

import jax
import numpy as np
import pytest

from datamix.pipeline.tables import choose, look_up


@pytest.mark.parametrize("rows", [1, 8, 9])
@pytest.mark.parametrize("row_shape", [(), (2, 5)])
@pytest.mark.parametrize("index_shape", [(), (4, 6)])
def test_tables_give_what_numpy_gives(rows: int, row_shape: tuple[int, ...], index_shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(rows)
    table = generator.integers(0, 2**32, (rows, *row_shape), np.uint32)
    index = generator.integers(0, rows, index_shape, np.uint32)
    for function in (choose, look_up):
        rows = np.asarray(function(table, index))
        assert rows.dtype == np.uint32
        np.testing.assert_array_equal(rows, table[index])
    flat = index.reshape(-1)
    np.testing.assert_array_equal(jax.vmap(choose, (None, 0))(table, flat), table[flat])
