"""Values that are there without a program: who only moves them has them sooner than one is recorded."""

from __future__ import annotations

from math import prod

import numpy as np

from graphc.frontend.cell import Deferred
from graphc.frontend.drawn import evaluate
from graphc.frontend.evaluation.parts import part_of
from graphc.frontend.tensor import Tensor, refresh
from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node

COPIED = 1 << 15  # bytes that are copied, out of L1, in the time that an operation takes to be recorded
FILLED = 8  # nodes of a graph that only fills memory (zeros, full, arange), at most


def known_value(tensor: Tensor) -> np.ndarray | None:
    """The value of a tensor, to be read at once, if it is known, part of what is known or just filled memory.
    It may have any strides."""
    cell = tensor._cell
    if type(cell) is Deferred:
        return None
    if cell.view is not None:
        refresh(cell)
    found = part_of(cell.node, {})
    return filled(cell.node) if found is None else found


def filled(node: Node) -> np.ndarray | None:
    """The value, in an array of its own, of a small node that only fills memory; None for others."""
    if node.bound is not None or prod(node.type.shape) * node.type.dtype.numpy.itemsize > COPIED:
        return None
    if node.kind not in _FILLS:  # mostly the answer
        return None
    order = toposort([node])
    if len(order) > FILLED or any(n.kind not in _FILLS for n in order):
        return None
    return np.array(evaluate(node))


_FILLS = frozenset((Kind.CONSTANT, Kind.VIEW, Kind.GENERATE))
