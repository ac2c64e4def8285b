from __future__ import annotations

from datamix.sources.long_work import num_cores, progress_bar


def test_the_processors_of_this_process():
    assert num_cores() >= 1


def test_a_long_read_says_that_it_has_begun(capsys):
    with progress_bar("Reading few", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""
    with progress_bar("Reading many", 70_000) as advance:
        advance(70_000)
    assert capsys.readouterr().err == "Reading many: 70,000 records …\n"
