"""What the emitter needs to know about index expressions: affine form and bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphc.loop import ir

Resolve = Callable[[str], ir.Expr | None]
Interval = tuple[int, int]
UNKNOWN: Interval = (-(2**63), 2**63 - 1)


@dataclass
class Affine:
    """constant + sum of coefficient * atom; atoms are variables or expressions that are not affine."""

    constant: int = 0
    terms: dict[object, tuple[ir.Expr, int]] = field(default_factory=dict)

    def add(self, expr: ir.Expr, scale: int, resolve: Resolve) -> None:
        """Add scale * expr, looking through sums, products by constants and bound names."""
        stack = [(expr, scale)]
        while stack:
            e, k = stack.pop()
            if isinstance(e, ir.Const):
                self.constant += int(e.value) * k
            elif isinstance(e, ir.Binary) and e.op in ("add", "sub"):
                stack += [(e.a, k), (e.b, k if e.op == "add" else -k)]
            elif isinstance(e, ir.Binary) and e.op == "mul" and isinstance(e.b, ir.Const):
                stack.append((e.a, k * int(e.b.value)))
            elif isinstance(e, ir.Binary) and e.op == "mul" and isinstance(e.a, ir.Const):
                stack.append((e.b, k * int(e.a.value)))
            elif isinstance(e, ir.Unary) and e.op == "neg":
                stack.append((e.x, -k))
            elif isinstance(e, ir.Local) and (definition := resolve(e.name)) is not None:
                stack.append((definition, k))
            else:
                self._add_atom(e, k)

    def _add_atom(self, atom: ir.Expr, scale: int) -> None:
        key: object = atom.name if isinstance(atom, ir.Var | ir.Local) else id(atom)
        old = self.terms.get(key)
        total = scale + (old[1] if old else 0)
        if total:
            self.terms[key] = (atom, total)
        else:
            self.terms.pop(key, None)


def affine(index: tuple[ir.Expr, ...], strides: tuple[int, ...], resolve: Resolve) -> Affine:
    """The affine form of sum(index[d] * strides[d])."""
    result = Affine()
    for expr, stride in zip(index, strides, strict=True):
        result.add(expr, stride, resolve)
    return result


def bounds(expr: ir.Expr, resolve: Resolve, depth: int = 8) -> Interval:
    """An interval that holds the value of an int64 expression (UNKNOWN when nothing is known).

    `depth` limits how far it looks: index expressions are shallow, and shared parts are looked at again.
    """
    if isinstance(expr, ir.Const):
        return int(expr.value), int(expr.value)
    if isinstance(expr, ir.Var):
        return 0, max(expr.extent - 1, 0)
    if depth == 0:
        return UNKNOWN
    if isinstance(expr, ir.Local):
        definition = resolve(expr.name)
        return UNKNOWN if definition is None else bounds(definition, resolve, depth - 1)
    if isinstance(expr, ir.Cast) and expr.x.dtype.is_integer and expr.x.dtype.itemsize < 8:
        bits = 8 * expr.x.dtype.itemsize
        return (0, 2**bits - 1) if expr.x.dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if isinstance(expr, ir.Select):
        a, b = bounds(expr.a, resolve, depth - 1), bounds(expr.b, resolve, depth - 1)
        return min(a[0], b[0]), max(a[1], b[1])
    if isinstance(expr, ir.Binary):
        return _binary_bounds(expr.op, bounds(expr.a, resolve, depth - 1), bounds(expr.b, resolve, depth - 1))
    return UNKNOWN


def _binary_bounds(op: str, a: Interval, b: Interval) -> Interval:
    if op == "min":
        return min(a[0], b[0]), min(a[1], b[1])
    if op == "max":
        return max(a[0], b[0]), max(a[1], b[1])
    if op == "rem" and b[0] > 0:
        if a[0] >= 0 and a[1] < b[0]:
            return a
        return 0, b[1] - 1
    if op == "add":
        low, high = a[0] + b[0], a[1] + b[1]
    elif op == "sub":
        low, high = a[0] - b[1], a[1] - b[0]
    elif op == "mul":
        corners = [x * y for x in a for y in b]
        low, high = min(corners), max(corners)
    elif op == "div" and b[0] > 0:
        corners = [x // y for x in a for y in b]
        low, high = min(corners), max(corners)
    else:
        return UNKNOWN
    return UNKNOWN if low < UNKNOWN[0] or high > UNKNOWN[1] else (low, high)
