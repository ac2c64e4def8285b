"""`job=plan`: what a mix will do, from the sizes of its sources alone."""

from __future__ import annotations


def test_a_plan_says_when_each_source_ends(call_datamix):
    ended = call_datamix("job=plan", "mix.ratio=3:1", "source.mnist.split=test[:300]", "source.fashion.limit=200")
    report = ended.report
    # Of each four records three are MNIST's, the last one too: its 300th ends the 100th four.
    assert report["plan"] == {"exhausted_in_batch": {"mnist": 24, "fashion": None}, "length": 400, "warnings": []}
    assert (report["batches"], report["samples"]) == (25, 400)
    assert [source["samples"] for source in report["sources"].values()] == [300, 100]
    assert "proportional, first_exhausted: 400 records in 25 batches of 16" in ended.out.splitlines()
    ended = call_datamix("job=plan", "source=digits", "source.digits.limit=1", "batch.size=1")
    assert "proportional, first_exhausted: 1 record in 1 batch of 1" in ended.out.splitlines()


def test_a_plan_says_where_a_rank_would_meet_one_source_alone(call_datamix):
    mix = ["job=plan", "source=mnist+digits", "source.mnist.split=test[:300]", "source.digits.split=train[:300]",
           "mix=round_robin", "batch.size=4"]  # fmt: skip
    note = (
        "divided among 4 ranks, 1 row each, every batch gives some rank the same single source; batch.shuffle=true "
        "mends it."
    )
    ended = call_datamix(*mix)
    assert ended.report["notes"] == [note]
    assert f"Note: {note}" in " ".join(ended.out.split())
    for setting in ("batch.shuffle=true", "batch.size=5", "mix=random"):
        assert call_datamix(*mix, setting).report["notes"] == []


def test_a_plan_without_end(call_datamix):
    report = call_datamix("job=plan", "stop=forever", "mix.share.mnist=0.25").report
    assert (report["batches"], report["samples"]) == (None, None)
    assert {name: (source["samples"], source["share"]) for name, source in report["sources"].items()} == {
        "mnist": (None, 0.25),
        "fashion": (None, 0.75),
    }


def test_a_plan_says_which_steps_are_left_out(call_datamix):
    ended = call_datamix("job=plan", "source=mnist", "batch.size=100", "stop.samples=1000", "skip=[[2,4],[7,8]]")
    assert "Note: skip leaves out the steps 2 to 3, 7 to 7, which keep their numbers and their records" in ended.out
    assert "7 of 10 batches are given." in " ".join(ended.out.split())
    assert ended.report["plan"]["skip"] == [[2, 4], [7, 8]]
