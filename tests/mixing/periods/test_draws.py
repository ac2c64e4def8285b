"""Independent draws, by the hash of the position."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamix.mixing.periods.draws import MAX_DRAWS, Draws

# A quarter for the first source, none for the second, a half for the third, a quarter for the last.
DRAWS = Draws(np.asarray([2**29, 2**29, 3 * 2**29, 2**31], np.uint32), 0, (1, 2), replacement=False)
LATER_DRAWS = replace(DRAWS, first=2**32 - 1000)


def test_draws_follow_the_shares_and_never_repeat() -> None:
    shares = np.bincount(DRAWS.sources(0, 100_000), minlength=4) / 100_000
    assert shares.tolist() == pytest.approx([0.25, 0, 0.5, 0.25], abs=0.01)  # three standard deviations are 0.005
    assert (DRAWS.length, DRAWS.quota, DRAWS.max_walk) == (None, None, MAX_DRAWS)
    assert replace(DRAWS, key=(1, 3)).sources(0, 100).tolist() != DRAWS.sources(0, 100).tolist()


def test_draws_that_were_walked_are_summed_up_once(drawn_slots: list[int]) -> None:
    draws = replace(DRAWS, first=7)
    counts = draws.counts(1_000_000)
    assert 1_000_000 <= sum(drawn_slots) < 1_100_000
    drawn_slots.clear()
    assert draws.counts(1_000_000) == counts
    assert sum(drawn_slots) < 100_000
    assert counts == np.bincount(draws.sources(0, 1_000_000), minlength=4).tolist()


def test_with_replacement_every_draw_stands_for_a_record_of_any_source() -> None:
    draws = replace(DRAWS, replacement=True)
    source, number = draws.take(5, 4)
    assert source.tolist() == DRAWS.take(5, 4)[0].tolist()
    assert number.tolist() == [5, 6, 7, 8]
    assert (draws.repeats_records, DRAWS.repeats_records) == (True, False)


def test_draws_cross_the_32_bit_border() -> None:
    across = LATER_DRAWS.sources(990, 20)
    np.testing.assert_array_equal(across, DRAWS.sources(2**32 - 10, 20))
    assert across[10:].tolist() != DRAWS.sources(0, 10).tolist()
