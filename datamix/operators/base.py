"""The contract of an operator: a pure function of one record and keyword settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from datamix import registry
from datamix.errors import SpecError, hint
from datamix.lazy import jax
from datamix.spec import LeafSpec, Record, Spec

if TYPE_CHECKING:
    from jaxtyping import Key

    Number: TypeAlias = float | jax.Array
    RandomKey: TypeAlias = Key[jax.Array, ""]
else:  # checks of settings evaluate the annotations of operators, and must not import JAX
    Number = RandomKey = Any

Function: TypeAlias = Callable[..., Record]
After: TypeAlias = Callable[..., Spec | None]


def _traced(spec: Spec, **settings: object) -> None:
    """The default of `Traits.after`: only tracing can tell the spec after the operator."""


def recast(spec: Spec, leaf: str, dtype: str) -> Spec | None:
    """A spec with another dtype for one leaf; None if it has no such leaf."""
    return {**spec, leaf: LeafSpec(spec[leaf].shape, dtype)} if leaf in spec else None


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The promises of an operator, which the pipeline relies on.

    Attributes:
      random: Whether the operator takes a JAX key, after the record.
      elementwise: Whether every element is computed independently, so that leaves may have any shape, including a flat
        one.
      traced: The settings that are numbers to compute with and do not shape the program: sources that differ only in
        these share one program, and changing them compiles nothing.
      paired: Whether the operator takes a second record after the first, its partner: another of the same batch, of any
        source. The seed and the step divide each batch into pairs. Such an operator can only be used after the mix.
      after: A function, without JAX, from the spec of records before the operator, and its settings, to the spec after
        it; it returns None if only tracing can tell.
    """

    random: bool = False
    elementwise: bool = False
    traced: tuple[str, ...] = ()
    paired: bool = False
    after: After = _traced

    def arguments(self, record: Record, key: jax.Array | None, partner: Record | None = None) -> tuple[Any, ...]:
        """The positional arguments of an operator with these traits; without a partner, a record is its own."""
        return (record, *([partner or record] if self.paired else []), *([key] if self.random else []))


@overload
def operator(function: Function, /) -> Function: ...
@overload
def operator(
    *,
    random: bool = False,
    elementwise: bool = False,
    traced: tuple[str, ...] = (),
    paired: bool = False,
    after: After = _traced,
) -> Callable[[Function], Function]: ...
def operator(function: Function | None = None, /, **promised: Any) -> Function | Callable[[Function], Function]:
    """Register a function as an operator, under its own name.

    The function takes a record (and its partner, if `paired`; and a JAX key, if `random`) and keyword settings, and
    returns a record; it must be pure, and written in `jax.numpy`. See `Traits` for the promises that it may make.

    Raises:
      RegistryError: The name is taken.

    >>> @operator(elementwise=True, traced=("factor",))
    ... def scale_for_doctest(record, *, factor: float = 2.0):
    ...     return record | {"image": record["image"] * factor}
    >>> scale_for_doctest({"image": jax.numpy.ones(2)})["image"].tolist()
    [2.0, 2.0]
    """

    def decorate(function: Function) -> Function:
        function.traits = Traits(**promised)  # type: ignore[attr-defined]
        registry.register("operator", function.__name__, function)
        return function

    return decorate if function is None else decorate(function)


def traits(function: Callable[..., Any]) -> Traits:
    """The traits of an operator; the defaults for a function that was registered without the decorator."""
    declared = getattr(function, "traits", None)
    return declared if isinstance(declared, Traits) else Traits()


def shape_error(operator_name: str, takes: str, leaf: str, value: jax.Array) -> SpecError:
    """The error for a leaf whose shape an operator does not take."""
    return SpecError(f"operator {operator_name!r} takes {takes}; leaf {leaf!r} has shape {list(value.shape)}.")


def leaf_of(record: Mapping[str, jax.Array], name: str, operator_name: str) -> jax.Array:
    """A leaf of a record; raises `SpecError` if there is none of that name."""
    if name not in record:
        raise SpecError(f"operator {operator_name!r}: records have no leaf {name!r}. {hint(name, record)}")
    return record[name]
