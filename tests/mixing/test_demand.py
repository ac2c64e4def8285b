from __future__ import annotations

from fractions import Fraction

import numpy as np

from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group
from datamix.mixing.record_lengths import RecordLengths
from datamix.mixing.shuffle import Shuffle

THIRDS = Group.flat([Fraction(1, 3), Fraction(0), Fraction(2, 3)])


def test_shares_and_the_sources_that_have_one() -> None:
    demand = Demand(group=THIRDS, remaining=[5, 6, 7])
    assert demand.shares == (Fraction(1, 3), 0, Fraction(2, 3))
    assert (demand.active.tolist(), demand.active.dtype) == ([0, 2], np.int32)
    assert demand.num_sources == 3


def test_a_group_within_the_mix() -> None:
    inner = Group((1, 2), (Fraction(1, 4), Fraction(3, 4)))
    demand = Demand(group=Group((0, inner), (Fraction(1, 2), Fraction(1, 2))), remaining=[5, 6, 7])
    assert [str(share) for share in demand.shares] == ["1/2", "1/8", "3/8"]
    assert demand.group.depth == 2


def test_slots_follow_lengths() -> None:
    """Records that are twice as long get half the slots."""
    shuffle = Shuffle(kind="none", window=1, sizes=(2, 1, 2), keys=((0, 0),) * 3)
    lengths = RecordLengths(stored=(np.asarray([1, 1]), np.asarray([9]), np.asarray([1, 3])), shuffle=shuffle)
    demand = Demand(group=THIRDS, remaining=[5, 6, 7], lengths=lengths)
    assert [str(share) for share in demand.shares] == ["1/2", "0", "1/2"]
