"""Evaluating the elements of rows, whose reductions are known.

Quotients by the sum of a softmax are products with its inverse, which is computed once for a row. Such a
sum is at least one, since the largest power is, and at most the number of elements; its inverse is an
ordinary number that is rounded once more. (The inverse of any divisor may overflow or lose digits.)
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.node import Kind, Node
from graphc.loop import index as ix
from graphc.loop.ir import Binary, Const, Expr, binary
from graphc.loop.lower.evaluate import Evaluator, Want
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.scope import Scope


class RowEvaluator(Evaluator):
    """Evaluates the elements of rows; reductions are bound by those who write their loops.

    A row only reads its own reductions (`rows.analyse` sees to that): where they are known of one row alone
    they are those, however the row is written that they are read at. (Where a task's range of rows does not
    end with an axis, the same row may come out of index arithmetic in two ways.)
    """

    def __init__(self, scope: Scope, frame: Frame) -> None:
        super().__init__(scope, frame.group.inputs, frame.buffer)
        self._rows: dict[Node, dict[Expr, None]] = {}

    def bind(self, node: Node, index: Sequence[Expr], value: Expr) -> None:
        super().bind(node, index, value)
        self._rows.setdefault(node, {})[ix.flatten(index, node.shape)] = None
        if is_softmax_total(node):
            self.scope.remember(("softmax total", value), value)

    def unbound(self, want: Want) -> Expr:
        rows = self._rows.get(want.node, {})
        known = [value for row in rows if (value := self.scope.known((want.node, row))) is not None]
        return known[0] if len(known) == 1 else super().unbound(want)

    def _share(self, value: Expr) -> Expr:
        if isinstance(value, Binary) and value.op == "div":
            divisor = value.b
            known = self.scope.known(("softmax total", divisor)) is not None
            if known and self.scope.depth_of(divisor) < self.scope.depth:
                inverse = self.scope.known(("inverse", divisor))
                if inverse is None:
                    inverse = binary("div", Const(value.dtype, 1.0), divisor)
                    inverse = self.scope.bind(("inverse", divisor), inverse, "inverse")
                return binary("mul", value.a, inverse)
        return super()._share(value)


def is_softmax_total(node: Node) -> bool:
    """Whether a value is the sum of exp(x - max(x)), both along the same axes."""
    if node.op.name != "reduce_sum" or not node.type.size:
        return False
    power, axes = node.inputs[0], node.attrs.axes
    if power.op.name != "exp" or power.inputs[0].op.name != "sub":
        return False
    x, spread = power.inputs[0].inputs
    if spread.op.name != "broadcast":
        return False
    top = spread.inputs[0]
    while top.kind is Kind.BARRIER:
        top = top.inputs[0]
    kept = tuple([a for a in range(x.type.rank) if a not in axes])
    return (
        top.op.name == "reduce_max"
        and top.inputs[0] is x
        and top.attrs.axes == axes
        and spread.attrs.dims == kept
        and x.type.size > 0
    )
