"""What is known of integers without computing them: the interval that all elements of a node lie in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node
from graphc.ir.types import DType, bool_

Interval = tuple[int, int]  # both ends included

_SAME = frozenset(
    {"broadcast", "reshape", "transpose", "slice", "flip", "take", "take_along", "reduce_min", "reduce_max"}
)


def everything(dtype: DType) -> Interval:
    """All values of an integer dtype, or of bool."""
    if dtype is bool_:
        return 0, 1
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)


def interval(node: Node, known: Mapping[Node, Interval] | None = None) -> Interval:
    """An interval that holds every element of an integer node; `known` has those of some of its ancestors."""
    found: dict[Node, Interval] = dict(known or {})
    for n in toposort([node]):
        if n not in found and not n.type.dtype.is_float:
            operands = [(0, 0) if x.type.dtype.is_float else found[x] for x in n.inputs]
            low, high = _select(n, found) if n.op.name == "select" else _of(n, operands)
            least, most = everything(n.type.dtype)
            # A sum or product that does not fit wraps around: then nothing is known.
            found[n] = (low, high) if least <= low and high <= most else (least, most)
    return found[node]


def _of(node: Node, operands: Sequence[Interval]) -> Interval:
    name = node.op.name
    if name in _SAME:
        return operands[0]
    if node.kind is Kind.CONSTANT and node.type.size:
        array = node.attrs.array
        return int(array.min()), int(array.max())
    if name == "iota":
        return 0, max(node.type.shape[node.attrs.axis] - 1, 0)
    if name == "check_index":
        low, high = operands[0]
        return max(low, node.attrs.low), min(high, node.attrs.high - 1)
    if name == "cast" and not node.inputs[0].type.dtype.is_float and node.type.dtype is not bool_:
        return operands[0]
    if name == "concat":
        return _union(operands)
    if name == "pad":
        return _union([operands[0], (int(node.attrs.value), int(node.attrs.value))])
    rule = _ARITHMETIC.get(name)
    return everything(node.type.dtype) if rule is None else rule(*operands)


def _select(node: Node, found: Mapping[Node, Interval]) -> Interval:
    """What either side can be; a side that the condition compares is narrowed by what that says (clamp)."""
    condition, yes, no = node.inputs
    below = _below(condition)
    if below is None or below[0].type.dtype.is_float:
        return _union([found[yes], found[no]])
    less, more, strict = below  # if true: less < more (or <= unless strict)
    sides = []
    for side, small, large, gap in ((yes, less, more, strict), (no, more, less, not strict)):
        low, high = found[side]
        if side is small:
            high = min(high, found[large][1] - gap)
        elif side is large:
            low = max(low, found[small][0] + gap)
        sides.append((low, high) if low <= high else found[side])
    return _union(sides)


def _below(condition: Node) -> tuple[Node, Node, bool] | None:
    """A comparison as (less, more, whether they must differ)."""
    if condition.op.name not in ("lt", "le", "gt", "ge"):
        return None
    a, b = condition.inputs
    less, more = (a, b) if condition.op.name in ("lt", "le") else (b, a)
    return less, more, condition.op.name in ("lt", "gt")


def _union(parts: Sequence[Interval]) -> Interval:
    return min(low for low, _ in parts), max(high for _, high in parts)


def _rem(a: Interval, b: Interval) -> Interval:
    """Python's %: the result has the sign of the divisor; 0 where that is 0."""
    return min(b[0] + 1, 0), max(b[1] - 1, 0)


def _mul(a: Interval, b: Interval) -> Interval:
    products = [x * y for x, y in product(a, b)]
    return min(products), max(products)


_ARITHMETIC: dict[str, Callable[..., Interval]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _mul,
    "neg": lambda a: (-a[1], -a[0]),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "rem": _rem,
}
