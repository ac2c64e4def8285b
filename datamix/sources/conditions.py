"""A small language of comparisons that selects records: `label < 5 and not split == 2`.

It is a small part of Python's syntax; nothing is ever evaluated as Python.
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
_EXAMPLE = "as in label == 5, 0.2 <= score and not label in [1, 2]"
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
    """A condition on those leaves of a record that hold one number.

    It consists of comparisons `<`, `<=`, `>`, `>=`, `==`, `!=`, which may be chained; `in` and `not in` with a list of
    numbers; `and`, `or`, `not` and parentheses. Leaves, by name, are compared with numbers or with each other; a leaf
    of type bool is a condition by itself. No comparison with NaN holds except `!=`, as in Python.
    """

    text: str
    key: str
    leaves: tuple[str, ...]
    _root: ast.expr

    @classmethod
    def parse(cls, text: str, key: str, spec: Spec) -> Condition:
        """Parse a condition on the leaves of a spec.

        Raises:
          ConfigError: It is no condition, or names no leaf, or one that the spec lacks or that has several numbers.

        >>> from datamix.spec import LeafSpec
        >>> condition = Condition.parse("0 < x <= 2", "source.a.where", {"x": LeafSpec((), "int64")})
        >>> condition.holds({"x": np.arange(4)}).tolist()
        [False, True, True, False]
        """
        line = " ".join(text.split())
        if len(line) > _LONGEST:
            raise ConfigError(f"it is at most {_LONGEST:,} characters", key=key, value=line)
        try:
            with warnings.catch_warnings(action="ignore"):  # Python warns about code that is refused below
                root = ast.parse(line, mode="eval").body
            names = [node for node in ast.walk(root) if isinstance(node, ast.Name)]
            condition = cls(line, key, tuple(dict.fromkeys(node.id for node in names)), root)
            for node in names:
                condition._check_leaf(node, spec)
            condition.holds({leaf: np.empty(0, spec[leaf].dtype) for leaf in condition.leaves})
        except SyntaxError as error:
            what = f"it is no condition (at character {error.offset or len(line) + 1})"
            raise ConfigError(what, key=key, value=line, hint=f"Write comparisons, {_EXAMPLE}.") from error
        except (RecursionError, MemoryError, ValueError) as error:  # nested too deeply, or a number has too many digits
            raise ConfigError(f"it is no condition, {_EXAMPLE}", key=key, value=line) from error
        if not names:
            raise ConfigError("it names no leaf", key=key, value=line, hint=hint("", spec))
        return condition

    def holds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether the condition holds for each record, bool [count], from the values [count] of each leaf it names."""
        return self._truth(self._root, columns)

    def _check_leaf(self, node: ast.Name, spec: Spec) -> None:
        scalars = [leaf for leaf, part in spec.items() if part.shape in ((), (1,))]
        if node.id not in spec:
            raise self._mistake(node, "is no leaf of this source", hint(node.id, spec))
        if node.id not in scalars:
            what = f"is {spec[node.id]}, and conditions are on leaves of one number a record"
            raise self._mistake(node, what, hint(node.id, scalars))

    def _truth(self, node: ast.expr, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        match node:
            case ast.BoolOp(op=op, values=values):
                combine = operator.and_ if isinstance(op, ast.And) else operator.or_
                return np.asarray(reduce(combine, [self._truth(value, columns) for value in values]))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._truth(operand, columns)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                truth = np.True_
                for comparison, right in zip(ops, comparators, strict=True):
                    truth &= self._compared(node, self._number(left, columns), comparison, right, columns)
                    left = right
                return np.asarray(truth)
            case ast.Name(id=name):
                if columns[name].dtype != bool:
                    raise self._mistake(node, "is a number, and no condition; compare it with something")
                return columns[name]
        raise self._mistake(node, f"is no comparison, {_EXAMPLE}")

    def _compared(
        self, node: ast.expr, left: Any, op: ast.cmpop, right: ast.expr, columns: Mapping[str, np.ndarray]
    ) -> Any:
        """Evaluate one comparison of a chain."""
        if type(op) in _COMPARE:
            return _COMPARE[type(op)](left, self._number(right, columns))
        if not isinstance(op, ast.In | ast.NotIn):
            raise self._mistake(node, "is no comparison that there is")
        elements = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else [ast.Constant(None)]
        if None in (numbers := [_constant(each) for each in elements]):
            raise self._mistake(right, "is no list of numbers, as in [1, 2]")
        is_element = reduce(operator.or_, [left == number for number in numbers], np.zeros(np.shape(left), bool))
        return is_element if isinstance(op, ast.In) else ~is_element

    def _number(self, node: ast.expr, columns: Mapping[str, np.ndarray]) -> Any:
        value = columns[node.id] if isinstance(node, ast.Name) else _constant(node)
        if value is None:
            raise self._mistake(node, "is neither a leaf nor a number of 64 bits")
        return value

    def _mistake(self, node: ast.expr, what: str, mend: str = "") -> ConfigError:
        part = ast.get_source_segment(self.text, node) or self.text
        character = len(self.text.encode()[: node.col_offset].decode()) + 1
        return ConfigError(f"{part!r} (at character {character}) {what}", key=self.key, value=self.text, hint=mend)


def _constant(node: ast.expr) -> int | float | None:
    """The number that a node writes out, with or without a sign; None if it is no number, or exceeds 64 bits."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _constant(node.operand)
        return -value if value is not None and isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float):
        return None
    return node.value if isinstance(node.value, float) or node.value < 2**64 else None
