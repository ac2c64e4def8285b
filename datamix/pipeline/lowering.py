"""Lower a graph and the specs of its sources to a program, by shapes and dtypes: no record is read or computed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from datamix.errors import ConfigError, DataError, SpecError, first_line
from datamix.lazy import jax
from datamix.operators import label
from datamix.operators.base import traits
from datamix.pipeline.graph import Graph, Node, written
from datamix.rng.hash import key_for
from datamix.spec import LeafSpec, Spec

if TYPE_CHECKING:
    from datamix.pipeline.program import Program
    from datamix.pipeline.transform import Numbers, OperatorCall


class Chain(NamedTuple):
    """A chain of operators, ready for the program.

    Attributes:
      calls: The operators, with the settings that shape the program.
      numbers: The traced settings of each call, by name.
      spec: The spec of the records after the chain.
    """

    calls: tuple[OperatorCall, ...]
    numbers: tuple[dict[str, np.ndarray], ...]
    spec: dict[str, LeafSpec]


def chain_of(nodes: Sequence[Node], spec: Spec, source: str | None = None) -> Chain:
    """Follow the spec of some records through a chain of operators, without computing anything.

    Args:
      nodes: The operators.
      spec: The spec of the records that the first operator takes.
      source: The source of the records; None after the mix.

    Raises:
      SpecError: An operator cannot take its records; the message names the node.
      ConfigError: An operator of a source takes pairs of records, or a traced setting is not a number.
    """
    from datamix.pipeline.transform import OperatorCall

    calls, numbers = [], []
    logical = dict(spec)
    for node in nodes:
        assert node.operation is not None
        function, settings = node.operation.function, dict(node.operation.settings)
        promised = traits(function)
        if promised.paired and source is not None:
            text = f"{node.operation.operator} takes pairs of a batch's records, and so stands after the mix"
            mend = "Put it into operators=, or shared_operators= of datamix.mix."
            raise ConfigError(text, key=f"source.{source}.operators", hint=mend)
        traced = {}
        for name in [name for name in promised.traced if name in settings]:
            # An offset that is known only once the labels are read has no value yet, but it has a shape.
            value = 0 if settings[name] is None else settings[name]
            try:
                traced[name] = np.asarray(value)
                numeric = traced[name].dtype.kind in "iuf"
            except ValueError:  # lists of different lengths
                numeric = False
            if not numeric:
                raise ConfigError(f"{node.name}: {name} = {settings[name]!r} is not a number, or one a channel.")
            del settings[name]
        flat = promised.elementwise and all(value.ndim == 0 for value in traced.values())
        shapes = {leaf: (-1,) if flat and part.shape else part.shape for leaf, part in logical.items()}
        call = OperatorCall(function=function, static=frozen(settings), promised=promised, shapes=tuple(shapes.items()))
        calls.append(call)
        numbers.append(traced)
        logical = _after(node.name, call, traced, logical, keeps_shape=promised.elementwise)
    return Chain(tuple(calls), tuple(numbers), logical)


def _after(
    name: str, call: OperatorCall, traced: Mapping[str, np.ndarray], spec: Mapping[str, LeafSpec], *, keeps_shape: bool
) -> dict[str, LeafSpec]:
    """The spec after one operator.

    Args:
      name: The name of its node, for error messages.
      keeps_shape: Whether the operator must not change the shape of a leaf.
    """
    # The values of the label operators differ by source but do not change the spec; zeros let sources share a trace.
    is_label = call.function.__module__ == label.__name__
    constants = tuple(
        (key, value.dtype.str, value.shape, bytes(value.nbytes) if is_label else value.tobytes())
        for key, value in traced.items()
    )
    try:
        result = _traced(call, constants, tuple(spec.items()))
    except (ConfigError, SpecError) as error:
        raise type(error)(f"{name}: {str(error).removeprefix(f'{name}.')}") from error
    except (TypeError, ValueError) as error:
        what = ", ".join(f"{leaf}: {part}" for leaf, part in spec.items())
        raise SpecError(f"{name} cannot take these records ({what}): {first_line(error)}") from error
    if not isinstance(result, dict) or not all(hasattr(value, "shape") for value in result.values()):
        raise SpecError(f"{name} must return a record, a dict of arrays; it returned {type(result).__name__}.")
    after = {leaf: LeafSpec(tuple(value.shape), str(value.dtype)) for leaf, value in result.items()}
    for leaf in after.keys() & spec.keys() if keeps_shape else ():
        if after[leaf].shape != spec[leaf].shape:
            raise SpecError(f"{name} says it is elementwise, but turns {leaf} {spec[leaf]} into {after[leaf]}.")
    return after


@lru_cache(maxsize=4096)
def _traced(
    call: OperatorCall,
    constants: tuple[tuple[str, str, tuple[int, ...], bytes], ...],
    spec: tuple[tuple[str, LeafSpec], ...],
) -> Any:
    """The shapes and dtypes that an operator returns; cached, because many sources may have the same operator."""
    from datamix.rng.keys import key_of, same_draws

    record = {leaf: jax.ShapeDtypeStruct(part.shape, part.dtype) for leaf, part in spec}
    key = jax.eval_shape(lambda: key_of((0, 0)))
    # Pass the numbers as constants, so that an operator can check their values here.
    traced = {name: np.frombuffer(data, dtype).reshape(shape) for name, dtype, shape, data in constants}
    with same_draws():
        return jax.eval_shape(
            lambda record, key: call.function(*call.promised.arguments(record, key), **dict(call.static), **traced),
            record,
            key,
        )


class Settings(Protocol):
    """How a user changes the settings of a source; see `datamix.builder.open_source.OpenSource`."""

    def adding(self, operators: Sequence[object], *, first: bool = False) -> str: ...
    def choice(self, name: str, value: str) -> str: ...
    def fitting(self, leaf: str, other: object, /) -> str: ...
    def calling(self, leaves: Sequence[str], /) -> str: ...


@dataclass(frozen=True)
class _Key:
    """The settings of a source of which only the key in the configuration is known."""

    key: str

    def adding(self, operators: Sequence[object], *, first: bool = False) -> str:
        return f"add {written(operators)} to {self.key}.operators{', as the first' * first}"

    def choice(self, name: str, value: str) -> str:
        return f"{self.key}.{name}={value}"

    def fitting(self, *_: object) -> str:
        return ""

    calling = fitting


def agreed_spec(chains: Mapping[str, Chain], settings: Mapping[str, Settings] | None = None) -> dict[str, LeafSpec]:
    """The spec that the records of all sources share after their operators.

    Args:
      chains: The chain of each source, by name.
      settings: How a user changes the settings of each source, by name; by default, under `source.NAME`.

    Raises:
      SpecError: Two sources differ; the message names both, the leaf, and a way to make them agree.
    """
    settings = settings or {name: _Key(f"source.{name}") for name in chains}
    (first, chain), *others = chains.items()
    for name, other in others:
        for leaf in [*chain.spec, *(leaf for leaf in other.spec if leaf not in chain.spec)]:
            mine, theirs = chain.spec.get(leaf), other.spec.get(leaf)
            if mine is None or theirs is None:
                has, lacks = (name, first) if mine is None else (first, name)
                shared = [key for key in chain.spec if key in other.spec and key != "source_id"]
                mend = settings[has].adding([{"select": {"leaves": shared}}])
                left_out = f", or set {settings[has].choice('label', 'none')}" if leaf == "label" else ""
                if not shared:
                    mend = "mix records of one kind, or write an operator that gives both the same leaves"
                of_first, of_other = ([key for key in spec if key != "source_id"] for spec in (chain.spec, other.spec))
                if calling := settings[name].calling(of_first) or settings[first].calling(of_other):
                    mend, left_out = f"to mend it, {calling}", ""
                raise SpecError(
                    f"sources {first!r} and {name!r} do not fit together: {has} has a leaf {leaf!r}, "
                    f"{lacks} has none; {mend}{left_out}."
                )
            if mine != theirs:
                raise SpecError(
                    f"sources {first!r} and {name!r} do not fit together: {leaf} is {mine} in {first}, "
                    f"but {theirs} in {name}; {_remedy(settings, leaf, first, mine, name, theirs)}"
                )
    return chain.spec


def _remedy(
    settings: Mapping[str, Settings], leaf: str, first: str, mine: LeafSpec, name: str, theirs: LeafSpec
) -> str:
    """Advise which operators, in which source, make a leaf agree; preferably, `name` is changed to match `first`."""
    if mine.shape == theirs.shape and "float" in theirs.dtype and "float" not in mine.dtype:
        first, mine, name, theirs = name, theirs, first, mine  # turn integers into floats, not the reverse
    if len(mine.shape) == len(theirs.shape) == 1 and (fitting := settings[name].fitting(leaf, settings[first])):
        return f"to mend it, {fitting}."
    images = len(mine.shape) == len(theirs.shape) == 3
    if leaf == "label" and mine.shape == theirs.shape == () and mine.dtype == "float32" and "int" in theirs.dtype:
        return f"if these are numbers to predict as well, set {settings[name].choice('label', 'number')}."
    if leaf == "image" and images and mine.has_channels_first != theirs.has_channels_first:
        return f"{settings[first if mine.has_channels_first else name].adding(['channels_last'], first=True)}."
    if images and mine.shape[2] == 4 != theirs.shape[2] and mine.dtype == theirs.dtype:
        first, mine, name, theirs = name, theirs, first, mine  # drop an alpha channel rather than add one
    mend = _mending(leaf, mine, theirs)
    if not mend:
        return f"write an operator that mends it, and add it to those of {name}."
    return f"to mend it, {settings[name].adding(mend)}."


def _mending(leaf: str, mine: LeafSpec, theirs: LeafSpec) -> list[object]:
    """The operators that turn `theirs` into `mine`; empty where none do."""
    images = len(mine.shape) == len(theirs.shape) == 3
    mend: list[object] = []
    if images and mine.shape[:2] != theirs.shape[:2]:
        mend.append({"resize": {"height": mine.shape[0], "width": mine.shape[1]}})
    if images and theirs.shape[2] != mine.shape[2] != 4:
        alpha = theirs.shape[2] == 4 and mine.shape[2] == 3
        mend.append("drop_alpha" if alpha else "to_rgb" if mine.shape[2] == 3 else "to_grayscale")
    if len(mine.shape) == 1 and not theirs.shape and mine.dtype == "float32":
        mend.append({"one_hot": {"num_classes": mine.shape[0], "leaf": leaf}})
    elif mine.dtype != theirs.dtype and (images or mine.shape == theirs.shape):
        to_float = mine.dtype == "float32" and "float" not in theirs.dtype and leaf == "image"
        mend.append("to_float" if to_float else {"cast": {"dtype": mine.dtype, "leaf": leaf}})
    return mend


def numbers_of(
    chains: Mapping[int, Chain], nodes: Mapping[int, Sequence[Node]], names: Sequence[str], seeds: Sequence[int]
) -> Numbers:
    """The numbers of sources that share the same calls, as tables with one row per source of the mix.

    Args:
      chains: The chain of each of these sources, by index of the source.
      nodes: The nodes of each chain, by index of the source.
      names: The names of all sources.
      seeds: The seeds of all sources.
    """
    from datamix.pipeline.transform import Numbers

    some = next(iter(chains.values()))
    settings, keys = [], []
    for i in range(len(some.calls)):
        tables: dict[str, np.ndarray] = {}
        for setting, value in some.numbers[i].items():
            kind = np.float32 if any(chain.numbers[i][setting].dtype.kind == "f" for chain in chains.values()) else None
            table = np.zeros((len(names), *value.shape), kind or np.int32)
            for source, chain in chains.items():
                table[source] = chain.numbers[i][setting]
            tables[setting] = table
        settings.append(tables)
        words = [(0, 0)] * len(names)
        for source in chains:
            # The key names the operator and the source, so that the draws of a record do not depend on other sources.
            name = nodes[source][i].name.removeprefix(f"{names[source]}/")
            words[source] = key_for(seeds[source], "operator", name, names[source])
        columns = np.asarray(words, np.uint32)
        # Only where they are used: each argument costs a microsecond per call.
        keys.append((columns[:, 0], columns[:, 1]) if some.calls[i].promised.random else None)
    return Numbers(tuple(settings), tuple(keys))


def check_specs(
    graph: Graph, specs: Mapping[str, Spec], settings: Mapping[str, Settings] | None = None
) -> dict[str, LeafSpec]:
    """Check the specs of all sources, and return the spec of the finished records, without computing any.

    Args:
      graph: The operators of the pipeline.
      specs: The spec of each source's records as they are read, by name.
      settings: See `agreed_spec`.

    Raises:
      DataError: A leaf does not hold numbers.
      SpecError: An operator cannot take its records, or the sources do not fit together.
      ConfigError: See `chain_of`.
    """
    chains = {name: _checked(graph.chain(name), stored_spec(name, specs[name]), name) for name in graph.sources}
    return _checked(graph.chain("mix"), agreed_spec(chains, settings)).spec


def _checked(nodes: Sequence[Node], spec: Spec, source: str | None = None) -> Chain:
    """The chain of some operators; its calls are left out up to the first operator that only JAX can trace."""
    for i, node in enumerate(nodes):
        assert node.operation is not None
        after = traits(node.operation.function).after(spec, **node.operation.settings)
        if after is None:
            return chain_of(nodes[i:], spec, source)
        spec = dict(sorted(after.items()))  # in the order of JAX, which sorts the keys of dicts
    return Chain((), (), dict(spec))


def stored_spec(name: str, spec: Spec) -> Spec:
    """The spec of a source's records in memory, with JAX's dtypes: at most 32 bits, unless JAX is set to use 64.

    Raises:
      DataError: A leaf does not hold numbers.
    """
    stored = {}
    for leaf, part in spec.items():
        try:
            dtype = np.dtype(part.dtype).newbyteorder("=")
        except TypeError:  # a structured dtype, or a name that NumPy does not parse
            dtype = np.dtype(object)
        if (dtype.kind not in "biuf" and dtype.name != "bfloat16") or dtype.itemsize > 8:
            raise _not_numbers(name, leaf, spec)
        if dtype.itemsize == 8:
            # Ask JAX only where it may be set to 64 bits, as importing it takes time.
            may_be_wide = "jax" in sys.modules or "JAX_ENABLE_X64" in os.environ
            dtype = jax.dtypes.canonicalize_dtype(dtype) if may_be_wide else np.dtype(f"{dtype.kind}4")
        stored[leaf] = LeafSpec(part.shape, str(dtype))
    return stored


def _not_numbers(name: str, leaf: str, spec: Spec) -> DataError:
    """The error for a leaf that does not hold numbers."""
    text = f"source {name!r}: leaf {leaf!r} is {spec[leaf].dtype}; a pipeline computes with numbers"
    if leaf == "label":
        mend = "Save numbers of classes instead, such as np.unique(label, return_inverse=True)[1], or leave it out"
        return DataError(f"{text}. {mend} with source.{name}.label=none.")
    others = written([{other: other for other in spec if other != leaf}])
    mend = f"where leaves of the source lists it, '~source.{name}.leaves.{leaf}' does"
    mend += f", and elsewhere 'source.{name}.leaves={others}'" * (len(spec) > 1)
    return DataError(f"{text}. Save numbers instead, or leave it out: {mend}.")


def assemble(
    graph: Graph, specs: Mapping[str, Spec], seeds: Sequence[int], batch_size: int
) -> tuple[Program, tuple[Numbers, ...], list[list[int]]]:
    """Assemble the operators of a graph into a program, by shapes and dtypes alone.

    Args:
      graph: The operators of the pipeline.
      specs: The spec of each source's stored records, by name.
      seeds: The seed of each source's random operators, in the order of the sources.
      batch_size: The number of records in a batch.

    Returns:
      The program, the numbers of its branches, and the indices of the sources in each storage group.

    Raises:
      SpecError: An operator cannot take its records, or the sources do not fit together.
    """
    from datamix.pipeline.program import Program
    from datamix.pipeline.transform import Branch

    names = graph.sources
    nodes = {i: graph.chain(name) for i, name in enumerate(names)}
    chains = {i: chain_of(nodes[i], specs[name], name) for i, name in enumerate(names)}
    spec = agreed_spec({names[i]: chain for i, chain in chains.items()})
    groups: dict[tuple[Any, ...], list[int]] = {}
    branches: dict[tuple[Any, ...], list[int]] = {}
    for i, name in enumerate(names):
        stored = tuple(sorted(specs[name].items()))
        shapes = tuple(tuple((key, value.shape) for key, value in call.items()) for call in chains[i].numbers)
        groups.setdefault(stored, []).append(i)
        branches.setdefault((stored, chains[i].calls, shapes), []).append(i)
    numbers = [numbers_of({i: chains[i] for i in members}, nodes, names, seeds) for members in branches.values()]
    if len(branches) > 1:
        numbers = [table._replace(branch=np.asarray(i, np.uint32)) for i, table in enumerate(numbers)]
    after = graph.chain("mix")
    last = chain_of(after, spec)
    everyone = dict.fromkeys(range(len(names)), last)
    numbers.append(numbers_of(everyone, dict.fromkeys(everyone, after), names, seeds))
    program = Program(
        batch_size=batch_size,
        num_rows=batch_size,
        num_steps=1,
        branches=tuple(
            Branch(group=list(groups).index(stored), sources=tuple(members), calls=calls, numbers=i)
            for i, ((stored, calls, _), members) in enumerate(branches.items())
        ),
        shared=Branch(group=-1, sources=(), calls=last.calls, numbers=len(branches)),
        spec=tuple(last.spec.items()),
    )
    return program, tuple(numbers), list(groups.values())


def frozen(settings: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Hashable settings, for those that shape a program: pairs of name and value, with lists as tuples."""

    def freeze(value: Any) -> Any:
        return tuple(freeze(part) for part in value) if isinstance(value, list | tuple) else value

    return tuple((name, freeze(value)) for name, value in settings.items())
