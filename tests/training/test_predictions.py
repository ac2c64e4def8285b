"""The predictions that a run keeps of each test record."""

from __future__ import annotations

import errno
import os
import resource
import signal

import numpy as np
import pytest

from datamix.errors import DataError
from datamix.training.predictions import NAME, read_predictions, write_predictions


def test_their_mean_by_source_is_the_loss_of_the_tests(make, trained):
    run = trained(make("train.keep_predictions=true", "mix.share.across=0.7"))
    assert read_predictions(run.directory) is None
    write_predictions(run)
    predictions = read_predictions(run.directory)
    assert {name: rows.shape for name, rows in predictions.items()} == {"across": (2, 20), "down": (2, 20)}
    for name, (logs, counts) in predictions.items():
        assert counts.tolist() == [1] * 20
        assert -logs.mean() == pytest.approx(run.metrics.lines[-1][f"loss/{name}"], rel=1e-6)
        assert len(np.unique(logs)) > 1


def test_a_full_disk_leaves_no_half_of_a_file(make, trained):
    run = trained(make("train.keep_predictions=true"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as raised:
            write_predictions(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.filename == str(run.directory / NAME)
    assert not [path for path in run.directory.iterdir() if path.suffix == ".npz"]


def test_a_regression_has_none(call_datamix, tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 3))
    np.savetxt(tmp_path / "x.csv", values, delimiter=",", header="a,b,price", comments="")
    own = ["source=my_table", "source.my_table.path=x.csv", "source.my_table.target=price", "model=linear",
           "source.my_table.split=train[:20]", "source.my_table.test_split=train[20:]", "batch.size=4"]  # fmt: skip
    mistake = call_datamix("job=train", *own, "train.steps=2", "train.keep_predictions=true").mistake
    assert mistake.startswith("ConfigError: train.keep_predictions = True; a regression gives numbers, not ")


def test_a_damaged_file_is_a_line(tmp_path):
    (tmp_path / NAME).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"predictions\.npz is damaged \(.*\); sweep\.resume=true makes it again"):
        read_predictions(tmp_path)
