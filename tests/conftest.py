"""What many tests share: the real data, and small sources in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real MNIST and Fashion-MNIST images as prepared TFDS datasets, and small `.npz` files."""
    path = Path(os.environ.get("DATAMIX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("needs the real test data beside the checkout, or DATAMIX_TEST_DATA")
    return path
