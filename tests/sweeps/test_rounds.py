"""`sweep.auto`: a sweep that goes on by itself."""

from __future__ import annotations

import json

import pytest

PLAN = ["-m", "job=plan", "source=digits+garments", "hydra.sweep.dir=s"]
TRAIN = ["-m", "job=train", "model=linear", "source=digits+garments", "train.steps=40", "train.eval_every=40"]
TRAIN += ["source.digits.limit=2000", "source.garments.limit=2000", "hydra.sweep.dir=s", "seed=0,1"]
SIMPLEX = ["hydra/sweeper=simplex", "hydra.sweeper.num_jobs=4"]
SIMPLEX += ["hydra/launcher=vmap", "hydra.launcher.execution=threads"]


@pytest.mark.slow
def test_rounds_go_on_in_the_directory_of_the_sweep_until_they_promise_nothing(call_datamix, tmp_path):
    # Of three ratios, others promise twice what is needed to go on; of four, as much as that.
    three = [each.replace("num_jobs=4", "num_jobs=3") for each in SIMPLEX]
    more = ["sweep.auto=3", "sweep.num_next=2", "hydra.sweeper.min=0.02"]
    ended = call_datamix(*TRAIN, *three, *more)
    assert (ended.code, ended.err) == (0, "")
    written = json.loads((tmp_path / "s" / "rounds.json").read_bytes())
    rounds = written["rounds"]
    assert written["first"] == 6
    assert 1 <= len(rounds) <= 3
    rows = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert [row["job"] for row in rows] == [*range(6 + 4 * len(rounds))]
    shares = [f"mix.share.digits={int(ratio.split(':')[0]) / 10_000:.4f}" for one in rounds for ratio in one["ratios"]]
    assert [next(each for each in row["overrides"] if "digits=0" in each) for row in rows[6::2]] == shares
    assert [line.split(",")[0] for line in ended.out.splitlines() if line.startswith("Round ")] == [
        f"Round {i + 1} of 3" for i in range(len(rounds))
    ]
    assert ended.out.count("Predicted best: ") == 1  # the rounds before the last take a line
    assert (len(rounds) == 3) != ("No more rounds: " in ended.out)
    before = json.loads((tmp_path / "s" / "suggest.json").read_bytes())
    assert (before["jobs"], before["promising"]) == (len(rows), "No more rounds: " not in ended.out)

    assert json.loads((tmp_path / "s" / "9" / "result.json").read_bytes())["least_share"] == 0.02
    (tmp_path / "s" / "9" / "result.json").unlink()  # as if it had been killed there
    again = call_datamix(*TRAIN, *three, *more, "sweep.resume=true")
    assert (again.code, again.err) == (0, "")
    assert sum(line.startswith("#") for line in again.out.splitlines()) == 1
    assert json.loads((tmp_path / "s" / "rounds.json").read_bytes()) == written
    assert json.loads((tmp_path / "s" / "suggest.json").read_bytes()) == before


def test_a_sweep_that_leads_to_no_suggestion_has_no_rounds(call_datamix, tmp_path):
    ended = call_datamix(*PLAN, "mix.share.digits=0.2,0.4", "sweep.auto=2", "sweep.metric=batches")
    assert ended.code == 0
    (line,) = [line for line in ended.out.splitlines() if line.startswith("sweep.auto")]
    assert line == (
        "sweep.auto: no suggestion: it takes 3 ratios or more, and jobs that differ in ratio and seed alone have "
        "tried 2."
    )
    assert not (tmp_path / "s" / "rounds.json").exists()


def test_a_round_that_is_damaged_is_a_line(call_datamix, tmp_path):
    (tmp_path / "s").mkdir()
    rounds = '{"first": 2, "rounds": [{"ratios": ["1:1"], "seeds": ["$(rm)"], "like": 0, "asked": false}]}'
    (tmp_path / "s" / "rounds.json").write_text(rounds)
    mistake = call_datamix(*PLAN, "mix.share.digits=0.2,0.4", "sweep.auto=2").mistake
    assert mistake.startswith("DataError: s/rounds.json is damaged (ValueError(")
    assert mistake.endswith("delete it, and the rounds are chosen anew.")


def test_a_number_of_rounds_is_checked(call_datamix):
    assert call_datamix("sweep.auto=-1").mistake == "ConfigError: sweep.auto = -1; it is 0 or more."
    mistake = call_datamix("-m", "job=plan", "sweep.auto=yes", "mix.share.mnist=0.2,0.5").mistake
    assert mistake == "ConfigError: sweep.auto = 'yes'; it is a whole number. (jobs 0, 1)"


@pytest.mark.slow
def test_rounds_go_beyond_an_edge_though_a_job_has_failed(call_datamix, tmp_path):
    # The more records of a source, the smaller its loss, to the end; of garments, 2,000 are too few for a share of 0.9.
    shares = ["mix.share.digits=0.1,0.3,0.4,0.5,0.6", "mix.max_epochs.garments=1", "mix.at_max_epochs=error"]
    how = ["sweep.metric=loss/digits", "sweep.auto=1", "sweep.num_next=2", "hydra/launcher=vmap"]
    ended = call_datamix(*TRAIN, *shares, *how)
    assert ended.code == 2
    assert "ConfigError: " in ended.err
    rounds = json.loads((tmp_path / "s" / "rounds.json").read_bytes())["rounds"]
    assert [(each["ratios"][0], each["asked"]) for each in rounds] == [("8000:2000", False)]
    assert "Round 1 of 1, to improve loss of digits by up to 0." in ended.out
    rows = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert [row["status"] for row in rows] == ["failed", *["done"] * 4] * 2 + ["done"] * 4


@pytest.mark.slow
def test_more_jobs_come_after_the_rounds(call_datamix, tmp_path):
    first = call_datamix(*TRAIN, *SIMPLEX, "sweep.auto=1", "sweep.num_next=2")
    assert first.code == 0
    rounds = json.loads((tmp_path / "s" / "rounds.json").read_bytes())["rounds"]
    before = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    more = [*SIMPLEX[:1], "hydra.sweeper.num_jobs=6", *SIMPLEX[2:]]
    again = call_datamix(*TRAIN, *more, "sweep.resume=true")
    assert (again.code, again.err) == (0, "")
    rows = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert [row["overrides"] for row in rows[: len(before)]] == [row["overrides"] for row in before]
    assert len(rows) == len(before) + 4  # two ratios, two seeds
    written = json.loads((tmp_path / "s" / "rounds.json").read_bytes())
    assert written["rounds"][: len(rounds)] == rounds
    assert [each["asked"] for each in written["rounds"]] == [False] * len(rounds) + [True]
    less = call_datamix(*TRAIN, *SIMPLEX[:1], "hydra.sweeper.num_jobs=3", *SIMPLEX[2:], "sweep.resume=true").mistake
    assert less.startswith("ConfigError: hydra.sweeper.num_jobs = 3; rounds have followed the 8 jobs that it made; ")
