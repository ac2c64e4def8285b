"""Operators of several branches; what the program gives as a whole is for test_pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix.operators.base import Traits
from datamix.pipeline.locate import Located
from datamix.pipeline.transform import NOT_ASKED, Branch, OperatorCall, by_branch
from datamix.spec import Record

BRANCHES = [Branch(group=i, sources=sources, calls=(), numbers=i) for i, sources in enumerate([(0, 3), (1,), (2,)])]


def numbers_of(branches: Sequence[Branch]) -> list[jax.Array]:
    return [jnp.uint32(number) for number in range(len(branches))]


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.9, 0, 0.1, 0), (0, 1, 0, 0), (0.001, 0.998, 0, 0.001)])
@pytest.mark.parametrize("count", [1, 100, 1000])
def test_each_branch_works_on_its_own_records_alone(shares: tuple[float, ...], count: int) -> None:
    source = np.random.default_rng(0).choice(4, count, p=shares).astype(np.uint32)
    located = Located(jnp.asarray(source), jnp.zeros(count, jnp.uint32), jnp.arange(count, dtype=jnp.uint32))
    worked, members = dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 0)

    def through(branch: Branch, rows: Located, index: jax.Array, member: jax.Array) -> dict[str, jax.Array]:
        expected = jnp.isin(rows.source, jnp.asarray(branch.sources, jnp.uint32))

        def seen(member: np.ndarray, expected: np.ndarray, index: np.ndarray, record: np.ndarray) -> None:
            assert expected[member].all()
            np.testing.assert_array_equal(index, record)
            worked[branch.group] += len(member)
            members[branch.group] += int(member.sum())

        jax.debug.callback(seen, member, expected, index, rows.record)
        values = jnp.stack([rows.record, rows.source], axis=1) * 10 + branch.group
        return {"row": values, "branch": jnp.full(len(rows.record), branch.group)}

    mixed = jax.jit(lambda located: by_branch(BRANCHES, numbers_of(BRANCHES), through, located))(located)
    jax.effects_barrier()
    branch = np.select([source == 1, source == 2], [1, 2], 0)
    np.testing.assert_array_equal(mixed["branch"], branch)
    np.testing.assert_array_equal(mixed["row"], np.stack([np.arange(count), source], axis=1) * 10 + branch[:, None])
    for group, num_rows in worked.items():
        num_records = int((branch == group).sum())
        assert members[group] == num_records
        block = min(64, count)
        assert num_rows == -(-num_records // block) * block


def test_branches_that_do_the_same_run_the_same_code() -> None:
    def through(branch: Branch, rows: Located, index: jax.Array, member: jax.Array) -> dict[str, jax.Array]:
        return {"record": jnp.where(member, rows.record, index)}

    located = Located(*[jnp.zeros(100, jnp.uint32)] * 3)
    mix = jax.make_jaxpr(lambda numbers, located: by_branch(BRANCHES, numbers, through, located))
    loops = [each for each in mix(numbers_of(BRANCHES), located).eqns if each.primitive.name == "while"]
    assert len(loops) == 3
    assert len({str(loop.params["body_jaxpr"]) for loop in loops}) == 1


def test_an_operator_is_traced_once_for_each_of_several_shapes() -> None:
    shapes: list[tuple[int, ...]] = []

    @datamix.operator
    def first_pixel(record: Record) -> Record:
        shapes.append(record["image"].shape)
        return record | {"image": record["image"][:1, :1]}

    sources = {f"s{side}": {"image": np.ones((5, side, side, 1), np.uint8)} for side in (4, 5, 6)}
    pipeline = datamix.mix(sources, operators={name: [first_pixel] for name in sources}, batch_size=4, stop="forever")
    shapes.clear()
    next(iter(pipeline))
    # Of the first one, the shapes of the results are asked for before.
    assert sorted(shapes) == [(4, 4, 1), (4, 4, 1), (5, 5, 1), (6, 6, 1)]


def test_blocks_hold_fewer_large_records() -> None:
    shapes = [(-1,)], [(512, 512), (3,)], [(1024, 1024)]
    branches = [Branch(group=i, sources=(i,), calls=(_call(*each),), numbers=i) for i, each in enumerate(shapes)]
    source = np.random.default_rng(0).integers(0, 3, 200).astype(np.uint32)
    located = Located(jnp.asarray(source), jnp.zeros(200, jnp.uint32), jnp.arange(200, dtype=jnp.uint32))
    widths: dict[int, int] = {}

    def through(branch: Branch, rows: Located, index: jax.Array, member: jax.Array) -> dict[str, jax.Array]:
        widths[branch.group] = len(index)
        return {"row": rows.record * 3 + branch.group}

    mixed = jax.jit(lambda located: by_branch(branches, numbers_of(branches), through, located))(located)
    np.testing.assert_array_equal(mixed["row"], np.arange(200) * 3 + source)
    assert widths == {0: 64, 1: 2, 2: 1}


def _call(*shapes: tuple[int, ...]) -> OperatorCall:
    named = tuple((f"leaf{i}", shape) for i, shape in enumerate(shapes))
    return OperatorCall(function=dict, static=(), promised=Traits(), shapes=named)


def test_rows_that_are_not_asked_for_are_not_computed() -> None:
    record = np.where(np.arange(1000) < 10, np.arange(1000), NOT_ASKED).astype(np.uint32)
    located = Located(jnp.arange(1000, dtype=jnp.uint32) % 4, jnp.zeros(1000, jnp.uint32), jnp.asarray(record))
    blocks: list[int] = []

    def through(branch: Branch, rows: Located, index: jax.Array, member: jax.Array) -> dict[str, jax.Array]:
        jax.debug.callback(lambda member: blocks.append(int(member.sum())), member)
        return {"record": rows.record, "group": jnp.full(len(index), branch.group)}

    mixed = jax.jit(lambda located: by_branch(BRANCHES, numbers_of(BRANCHES), through, located))(located)
    jax.effects_barrier()
    assert sorted(blocks) == [2, 3, 5]
    np.testing.assert_array_equal(mixed["record"][:10], np.arange(10))
    np.testing.assert_array_equal(mixed["group"][:10], [0, 1, 2, 0, 0, 1, 2, 0, 0, 1])
