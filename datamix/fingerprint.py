"""Digests of what determines a sequence of batches: two pipelines of one fingerprint give the same batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol

_RECORDS = ": records"  # no setting ends so


class _Group(Protocol):
    def leaf_shares(self) -> tuple[Fraction, ...]: ...


class _Plan(Protocol):
    """The part of `datamix.Plan` that counts: its phases, each with the slot it lasts until and its shares."""

    @property
    def phases(self) -> Sequence[tuple[int | None, _Group]]: ...


def parts(
    identity: Mapping[str, object], plan: _Plan, batch_size: int, remainder: str, *, shuffle_rows: bool = False
) -> dict[str, str]:
    """Digest each thing that determines the sequence, by the name a user knows it by."""
    shares = [[until, *(str(share) for share in group.leaf_shares())] for until, group in plan.phases]
    batch = {"mix": shares, "batch.size": batch_size, "batch.remainder": remainder}
    if shuffle_rows:  # only then, so that states from before there was the setting are still of the same sequence
        batch["batch.shuffle"] = True
    return {key: digest(value) for key, value in {**identity, **batch}.items()}


def fingerprint(
    identity: Mapping[str, object], plan: _Plan, batch_size: int, remainder: str, *, shuffle_rows: bool = False
) -> str:
    """Digest all `parts` into one."""
    return digest(parts(identity, plan, batch_size, remainder, shuffle_rows=shuffle_rows))


def differing(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Say in what two identities differ; empty where they are the same.

    Args:
      before: Parts as `parts` gives them, with `records_key` for the records of each source.
      now: The same, of what is to go on.

    >>> differing({"seed": "1", "mix": "2"}, {"seed": "3", "mix": "2"})
    'under another configuration: seed differ'
    >>> differing({records_key("a"): "1"}, {records_key("a"): "2"})
    "over other records of source 'a' than are here"
    """
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if settings := [key for key in keys if not key.endswith(_RECORDS)]:
        return f"under another configuration: {', '.join(settings)} differ"
    sources = ", ".join(repr(key.removeprefix("source.").removesuffix(_RECORDS)) for key in keys)
    return f"over other records of source {sources} than are here" if keys else ""


def records_key(source: str) -> str:
    """The key under which an identity has the digest of a source's records."""
    return f"source.{source}{_RECORDS}"


def digest(value: object) -> str:
    """Digest a value of JSON's types.

    >>> digest({"seed": 0, "stop": "forever"}) == digest({"stop": "forever", "seed": 0})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
