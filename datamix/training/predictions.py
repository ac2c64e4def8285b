"""The log-probability of each test record under a trained model, in `predictions.npz` of its run."""

from __future__ import annotations

import zipfile
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32

from datamix.errors import DataError
from datamix.pipeline.readers.fed import failures_named
from datamix.report.files import whole_file
from datamix.training.learner import losses_of_records_jitted
from datamix.training.runs import Run

NAME = "predictions.npz"


def write_predictions(run: Run) -> None:
    """Write the log-probability of the test records of each source under the model of a run."""
    data, names = run.data, list(run.data.num_test_records)
    with failures_named():
        parts = losses_of_records_jitted(run.learner, data.held_out, run.state, data.num_test_batches)
        losses, counts, sources = jax.device_get(parts)
    total = sum(data.num_test_records.values())
    rows = np.stack([-losses, counts])[:, :total].astype(np.float32)
    by_source = {name: rows[:, sources[:total] == place] for place, name in enumerate(names)}
    with whole_file(run.directory / NAME) as part:
        np.savez(part, **by_source)  # type: ignore[arg-type]  # of savez's own keywords


def read_predictions(directory: Path) -> dict[str, Float32[np.ndarray, "2 records"]] | None:
    """Read what `write_predictions` has written.

    Returns:
      The log-probability of each test record in nats, and the number of classes or tokens that it sums, by source;
      None if the run has kept no predictions.

    Raises:
      DataError: The file is damaged.
    """
    if not (path := directory / NAME).is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); sweep.resume=true makes it again once it is deleted.") from error
