"""Constant folding: what depends on constants alone is computed by NumPy, now.

A repeated scalar stays one: elementwise ops and views of broadcast scalars are folded as scalars.
Array results are kept small, so that folding never makes a program bigger than a few kilobytes.
"""

from __future__ import annotations

import math

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node, make
from graphc.ops.constant import Scalar
from graphc.ops.evaluate import evaluate_node
from graphc.ops.view import PadAttrs
from graphc.ops.window import WindowAttrs
from graphc.passes.rules import RuleTable, apply_rules, on

LIMIT = 1024  # elements of a folded array, and of what it is computed from

RULES: RuleTable = {}


def run(graph: Graph) -> Graph:
    """Needs: any graph. Leaves: no small elementwise op, view or sum whose operands are all constants."""
    return apply_rules(graph, RULES, always=(fold_scalars, fold_arrays))


def fold_scalars(node: Node) -> Node | None:
    """An op on repeated scalars gives a repeated scalar."""
    if node.kind not in (Kind.ELEMENTWISE, Kind.VIEW) or node.op.name == "broadcast" or not node.inputs:
        return None
    scalars = [ops.scalar_value(n) for n in node.inputs]
    if any(s is None for s in scalars) or not node.type.size:
        return None
    if node.kind is Kind.ELEMENTWISE:
        return ops.like(node, _elementwise_scalar(node))
    fill = _fill(node)
    if fill is not None:
        scalars.append(np.asarray(fill).astype(node.dtype.numpy).item())
    first = ops.like(node, scalars[0])  # type: ignore[arg-type]
    return first if all(ops.like(node, s) is first for s in scalars) else None  # type: ignore[arg-type]


def _fill(node: Node) -> Scalar | None:
    """What a view puts beside the elements of its operand."""
    attrs = node.attrs
    if isinstance(attrs, PadAttrs):
        return attrs.value
    if isinstance(attrs, WindowAttrs) and any((*attrs.low, *attrs.high)):
        return attrs.fill
    return None


def _elementwise_scalar(node: Node) -> Scalar:
    """The number of a node on repeated scalars."""
    units = [ops.constant(ops.scalar_value(n), n.dtype) for n in node.inputs]
    unit = make(node.op, units, node.attrs)
    return evaluate_node(unit, [n.attrs.array for n in units]).item()


def fold_arrays(node: Node) -> Node | None:
    """An op on small constants is a small constant."""
    if node.kind not in (Kind.ELEMENTWISE, Kind.VIEW, Kind.REDUCE, Kind.CONTRACT):
        return None
    if not node.inputs or not 0 < node.type.size <= LIMIT or ops.scalar_value(node) is not None:
        return None
    arrays = []
    for operand in node.inputs:
        if operand.type.size > LIMIT:
            return None
        number = ops.scalar_value(operand)
        if number is not None:
            arrays.append(np.full(operand.shape, number, operand.dtype.numpy))
        elif operand.kind is Kind.CONSTANT:
            arrays.append(operand.attrs.array)
        else:
            return None
    return ops.constant(np.array(evaluate_node(node, arrays)), node.dtype)


@on(RULES, "reduce_sum")
def sum_of_equal(node: Node) -> Node | None:
    """n times a whole number, where every partial sum is exact."""
    x = node.inputs[0]
    number = ops.scalar_value(x)
    if number is None or not math.isfinite(number) or number != int(number) or not node.type.size:
        return None
    total = number * (x.type.size // node.type.size)
    exact = 2 ** (24 if node.dtype.itemsize == 4 else 53) if node.dtype.is_float else 2**31
    if abs(total) > exact or (total == 0 and math.copysign(1, number) < 0):
        return None
    return ops.like(node, type(number)(total))
