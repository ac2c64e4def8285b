"""What each source has given by a position, against what was counted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datamix.mixing.plan import Plan
from datamix.mixing.totals import Totals, source_metrics


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from(["proportional", "random"]))
def test_it_is_what_a_count_of_all_records_gives(first: int, count: int, order: str) -> None:
    tokens = {"a": np.arange(1, 8), "b": np.arange(5)}
    plan = Plan({"a": 7, "b": 5, "c": 3}, {"a": 3}, order=order, stop="forever", num_tokens=tokens)
    rows = source_metrics(plan, Totals.at(plan, first + count), Totals.at(plan, first))
    taken = plan.take(0, first + count)
    of_record = np.array(
        [int(tokens.get("abc"[i], np.zeros(3))[r]) for i, r in zip(taken.source, taken.record, strict=True)] or [0]
    )
    lately = slice(first, first + count)
    for i, (name, row) in enumerate(rows.items()):
        is_its = taken.source == i
        assert row["records"] == is_its.sum()
        assert row["epochs"] == is_its.sum() / plan.sizes[i], name
        assert row["share"] == (is_its.mean() if len(is_its) else None)
        assert row["share_lately"] == (is_its[lately].mean() if count else None)
        total = of_record[lately].sum()
        assert row["tokens"] == (of_record[: len(is_its)][is_its].sum() if len(is_its) else 0)
        assert row["token_share_lately"] == (of_record[lately][is_its[lately]].sum() / total if total else None)


def test_a_mix_without_tokens_tells_none_and_past_its_end_nothing_more() -> None:
    plan = Plan({"a": 4, "b": 4})
    rows = source_metrics(plan, Totals.at(plan, 100), Totals.at(plan, 0))
    assert rows["a"] == {"records": 4, "epochs": 1.0, "share": 0.5, "share_lately": 0.5}


def test_what_is_left_out_on_the_way_is_not_given() -> None:
    tokens = {"a": np.arange(1, 8), "b": np.arange(5)}
    plan = Plan({"a": 7, "b": 5}, {"a": 3}, stop="forever", num_tokens=tokens)
    kept = Totals.at(plan, 40).without(Totals.at(plan, 10), Totals.at(plan, 25))
    taken = [plan.take(0, 10), plan.take(25, 15)]
    for source, values in enumerate(tokens.values()):
        records = np.concatenate([each.record[each.source == source] for each in taken])
        assert kept.records[source] == len(records)
        assert kept.tokens is not None
        assert kept.tokens[source] == values[records].sum()
    plain = Plan({"a": 7, "b": 5}, stop="forever")
    assert Totals.at(plain, 9).without(Totals.at(plain, 2), Totals.at(plain, 4)) == ([4, 3], None)
