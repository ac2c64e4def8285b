"""A small language of comparisons, by which records are chosen: `label < 5 and not split == 2`.

It is Python's own syntax, of which a few nodes are allowed; nothing is ever evaluated as Python.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from datamix.errors import ConfigError, hint
from datamix.spec import Spec

_LONGEST = 2000  # characters
_EXAMPLE = "as in label < 5, 0.2 <= score and not label in [1, 2]"
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Condition:
    """A condition on the leaves of a record that have one number.

    Comparisons `<`, `<=`, `>`, `>=`, `==`, `!=`, also in chains; `in` and `not in` a list of numbers; `and`, `or`,
    `not`, parentheses. Leaves, by name, are compared with numbers or with each other; a leaf of type bool is a
    condition by itself. NaN is as everywhere: no comparison with it holds but `!=`.

    Attributes:
      text: The condition.
      leaves: The leaves that it names.
    """

    text: str
    leaves: tuple[str, ...]
    _root: ast.expr

    @classmethod
    def parse(cls, text: str, key: str, spec: Spec) -> Condition:
        """Read a condition.

        Args:
          text: The condition.
          key: The full key of the setting, for errors.
          spec: The leaves that there are.

        Raises:
          ConfigError: It is none; the message says at which character.

        >>> from datamix.spec import LeafSpec
        >>> condition = Condition.parse("0 < x <= 2", "source.a.where", {"x": LeafSpec((), "int64")})
        >>> condition.holds({"x": np.arange(4)}).tolist()
        [False, True, True, False]
        """
        line = " ".join(text.split())
        if len(line) > _LONGEST:
            raise ConfigError(f"it is at most {_LONGEST:,} characters", key=key, value=text)
        try:
            with warnings.catch_warnings(action="ignore"):  # of what is refused below
                root = ast.parse(line, mode="eval").body
            found = _Checker(line, key, spec)
            found.condition(root)
        except SyntaxError as error:
            text = f"it is no condition (at character {error.offset or len(line) + 1})"
            raise ConfigError(text, key=key, value=line, hint=f"Write comparisons, {_EXAMPLE}.") from error
        except (RecursionError, MemoryError, ValueError) as error:  # nested too deeply; a number of too many digits
            raise ConfigError(f"it is no condition, {_EXAMPLE}", key=key, value=line) from error
        if not found.leaves:
            raise ConfigError("it names no leaf", key=key, value=line, hint=hint("", spec))
        return cls(line, tuple(found.leaves), root)

    def holds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether it holds for each record, bool [count].

        Args:
          columns: The values of each leaf that it names, [count].
        """
        return np.asarray(_evaluated(self._root, columns), bool)


class _Checker:
    """Checks a condition node by node, and collects the leaves that it names."""

    def __init__(self, text: str, key: str, spec: Spec) -> None:
        self.text, self.key, self.spec = text, key, spec
        self.leaves: dict[str, None] = {}

    def condition(self, node: ast.expr) -> None:
        """Check what is to be true or false."""
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self.condition(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.condition(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                self.number(left)
                for op, right in zip(ops, comparators, strict=True):
                    if isinstance(op, ast.In | ast.NotIn):
                        elements = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else [right]
                        if elements == [right] or not all(map(_is_constant, elements)):
                            raise self._mistake(right, "is no list of numbers, as in [1, 2]")
                    elif type(op) in _COMPARE:
                        self.number(right)
                    else:
                        raise self._mistake(node, "is no comparison that there is")
            case ast.Name(id=name):
                self.number(node)
                if np.dtype(self.spec[name].dtype) != bool:
                    raise self._mistake(node, "is a number, and no condition; compare it with something")
            case _:
                raise self._mistake(node, f"is no comparison, {_EXAMPLE}")

    def number(self, node: ast.expr) -> None:
        """Check what is to be a number: a leaf, or one that is written there."""
        if _is_constant(node):
            return
        if not isinstance(node, ast.Name):
            raise self._mistake(node, "is neither a leaf nor a number of 64 bits")
        if node.id not in self.spec:
            raise self._mistake(node, "is no leaf of this source", hint(node.id, self.spec))
        if self.spec[node.id].shape not in ((), (1,)):
            scalars = [leaf for leaf, part in self.spec.items() if part.shape in ((), (1,))]
            what = f"is {self.spec[node.id]}, and conditions are on leaves of one number a record"
            raise self._mistake(node, what, hint(node.id, scalars))
        self.leaves[node.id] = None

    def _mistake(self, node: ast.expr, what: str, mend: str = "") -> ConfigError:
        part = ast.get_source_segment(self.text, node) or self.text
        text = f"{part!r} (at character {len(self.text.encode()[: node.col_offset].decode()) + 1}) {what}"
        return ConfigError(text, key=self.key, value=self.text, hint=mend)


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        node = node.operand
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float):
        return False
    return isinstance(node.value, float) or node.value < 2**64


def _evaluated(node: ast.expr, columns: Mapping[str, np.ndarray]) -> Any:
    """The value of a checked node: an array, or a number."""
    match node:
        case ast.BoolOp(op=op, values=values):
            both = operator.and_ if isinstance(op, ast.And) else operator.or_
            return reduce(both, [_evaluated(value, columns) for value in values])
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluated(operand, columns)
            return np.logical_not(value) if isinstance(op, ast.Not) else -value if isinstance(op, ast.USub) else value
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = [_evaluated(each, columns) for each in (left, *comparators)]
            return reduce(operator.and_, map(_compared, ops, values[:-1], values[1:]))
        case ast.List(elts=elts) | ast.Tuple(elts=elts) | ast.Set(elts=elts):
            return [_evaluated(each, columns) for each in elts]
        case ast.Name(id=name):
            return columns[name]
        case _:
            assert isinstance(node, ast.Constant)
            return node.value


def _compared(op: ast.cmpop, left: Any, right: Any) -> Any:
    if not isinstance(op, ast.In | ast.NotIn):
        return np.asarray(_COMPARE[type(op)](left, right))
    among = reduce(operator.or_, [np.asarray(left == value) for value in right], np.zeros(np.shape(left), bool))
    return np.logical_not(among) if isinstance(op, ast.NotIn) else among
