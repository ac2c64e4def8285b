"""Numbers by which compiled programs know what they call back to."""

from __future__ import annotations

import pytest

from datamix.errors import ConfigError
from datamix.pipeline.tokens import object_of, token_of


class Target:
    """Something that can be referred to weakly."""


def test_an_object_is_found_for_as_long_as_it_is_kept() -> None:
    first, second = Target(), Target()
    tokens = token_of(first), token_of(second)
    assert object_of(tokens[0]) is first
    assert object_of(tokens[1]) is second
    del first
    assert object_of(tokens[1]) is second
    with pytest.raises(ConfigError, match=r"^the Pipeline that this computes with is gone; keep it as long as its"):
        object_of(tokens[0])
