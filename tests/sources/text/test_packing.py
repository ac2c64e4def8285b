from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.sources.text.packing import best_fit, pack

CHECK = settings(derandomize=True, deadline=None, max_examples=60)


def laid_out(lengths):
    """Documents one after the other, with a gap before the third, as where another file begins."""
    lengths = np.asarray(lengths, np.int64)
    begin = np.cumsum(lengths) - lengths
    begin[2:] += 5
    return begin, lengths


def tokens_of(rows):
    """The tokens of each record, piece by piece."""
    records = [[] for _ in range(rows.num_rows)]
    for row, begin, length in zip(*rows.pieces(np.arange(rows.num_rows)), strict=True):
        records[row].append(range(begin, begin + length))
    return records


def test_chunks_are_the_stream_cut_at_every_record():
    rows, facts = pack(*laid_out([3, 0, 4, 2]), capacity=4, packing="chunk")
    assert tokens_of(rows) == [[range(3), range(8, 9)], [range(9, 12), range(12, 13)], [range(13, 14)]]
    assert rows.lengths().tolist() == [4, 4, 1]
    assert (facts.documents, facts.tokens, facts.split, facts.padding) == (3, 9, 2, 0.25)
    assert rows.starts(np.array([0])) is None
    whole, _ = pack(np.array([10, 13]), np.array([3, 4]), capacity=3, packing="chunk")
    assert whole.starts(np.array([1, 0])).tolist() == [13, 10]
    assert whole.starts(np.array([2])) is None  # the last, which is not full


def test_pad_gives_each_piece_a_record():
    rows, facts = pack(*laid_out([3, 9]), capacity=4, packing="pad")
    assert tokens_of(rows) == [[range(3)], [range(3, 7)], [range(7, 11)], [range(11, 12)]]
    assert (facts.split, facts.dropped, facts.lost, facts.padding) == (1, 0, 0, 0.25)


@pytest.mark.parametrize("packing", ["pad", "best_fit"])
@pytest.mark.parametrize(
    ("long", "tokens", "lost", "dropped"),
    [("split", {*range(12)}, 0, 0), ("truncate", {*range(7)}, 5, 0), ("drop", {*range(3)}, 9, 1)],
)
def test_long_documents_are_split_cut_off_or_left_out(packing, long, tokens, lost, dropped):
    rows, facts = pack(*laid_out([3, 9]), capacity=4, packing=packing, long=long)
    assert {token for record in tokens_of(rows) for piece in record for token in piece} == tokens
    assert (facts.tokens, facts.lost, facts.dropped) == (len(tokens), lost, dropped)


def test_best_fit_is_the_textbooks():
    lengths = np.random.default_rng(0).integers(1, 30, 500)
    rooms: list[int] = []  # of each record, by the textbook: the fullest that still has room
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= length
        else:
            rooms.append(32 - length)
    used = np.bincount(best_fit(lengths, 32), lengths)
    assert sorted((32 - used).astype(int).tolist()) == sorted(rooms)


@CHECK
@given(
    lengths=st.lists(st.integers(0, 40), max_size=60),
    capacity=st.integers(1, 50),
    packing=st.sampled_from(["chunk", "best_fit", "pad"]),
)
def test_each_token_stands_in_one_record(lengths, capacity, packing):
    begin, sizes = laid_out(lengths)
    rows, facts = pack(begin, sizes, capacity=capacity, packing=packing, name="a")
    records = tokens_of(rows)
    seen = Counter(token for record in records for piece in record for token in piece)
    assert seen == Counter(b + i for b, n in zip(begin.tolist(), lengths, strict=True) for i in range(n))
    sums = [sum(map(len, record)) for record in records]
    assert sums == rows.lengths().tolist()
    assert all(0 < each <= capacity for each in sums)
    assert facts.tokens == sum(lengths)
    assert facts.padding == pytest.approx(1 - sum(lengths) / max(capacity * len(sums), 1))
    # A piece lies within one document; a document is cut where a record is full, and nowhere else.
    ends = {b + n for b, n in zip(begin.tolist(), lengths, strict=True)}
    for record, used in zip(records, sums, strict=True):
        assert all(piece.stop in ends for piece in record[:-1])
        assert record[-1].stop in ends or used == capacity
    some = np.random.default_rng(0).permutation(rows.num_rows)[:5]
    row, piece_begin, length = rows.pieces(some)
    for i, number in enumerate(some):
        here = row == i
        assert [*map(range, piece_begin[here], (piece_begin + length)[here])] == records[number]


def test_packing_depends_on_the_sources_name_and_on_nothing_else():
    begin, lengths = laid_out(np.random.default_rng(0).integers(1, 300, 20_000))

    def table(name):
        rows, _ = pack(begin, lengths, capacity=256, packing="best_fit", name=name)
        return rows.begin.tolist()

    assert table("a") == table("a") != table("b")


@pytest.mark.parametrize("capacity", [1024, 8192])
def test_blocks_lose_little_against_packing_all_at_once(capacity):
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 1.2, 40_000).astype(np.int64), 1, 100_000)
    _, facts = pack(np.cumsum(lengths) - lengths, lengths, capacity=capacity, packing="best_fit")
    pieces = np.concatenate([np.append(np.full(n // capacity, capacity), n % capacity) for n in lengths.tolist()])
    at_once = best_fit(pieces[pieces > 0], capacity).max() + 1
    assert facts.padding <= 1 - lengths.sum() / (at_once * capacity) + 0.003


def test_many_documents_are_packed_once(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 9, 70_000)
    settings = {"capacity": 16, "packing": "best_fit", "name": "many", "cache_dir": tmp_path}
    first, _ = pack(np.cumsum(lengths) - lengths, lengths, **settings)
    (entry,) = tmp_path.glob("packed-many-*/meta.json")
    before = entry.stat().st_mtime_ns
    again, _ = pack(np.cumsum(lengths) - lengths, lengths, **settings)
    assert entry.stat().st_mtime_ns == before
    assert np.array_equal(first.begin, again.begin)
    assert first.lengths().sum() == again.lengths().sum() == lengths.sum()
    pack(np.cumsum(lengths[1:]) - lengths[1:], lengths[1:], **settings)
    assert len([*tmp_path.glob("packed-many-*/meta.json")]) == 2


def test_chunks_leave_nothing_to_decide_for_long_documents():
    with pytest.raises(ConfigError, match=r"long = 'drop'; packing=chunk cuts all documents alike; leave it out"):
        pack(*laid_out([3]), capacity=2, packing="chunk", long="drop")
