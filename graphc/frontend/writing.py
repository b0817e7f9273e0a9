"""Changing what cells hold: announcing it, remembering what was there, and giving them other nodes."""

from __future__ import annotations

import numpy as np

from graphc.frontend.cell import Cell, Steps, View, alias
from graphc.frontend.errors import fail
from graphc.frontend.history import AccumulateGrad, GradFn
from graphc.frontend.modes import MODE, settle
from graphc.frontend.pending import recorded
from graphc.frontend.sharing import present
from graphc.frontend.shown import Shown
from graphc.ir.node import Node
from graphc.ops.constant import INPUT


def write(cell: Cell) -> None:
    """Announce that `cell` is about to get another node."""
    if MODE.events is not None:
        settle()
    trace = MODE.trace
    if trace is not None:
        trace.write(cell)


def rebind(cell: Cell, node: Node, fn: GradFn | None, tracks: bool) -> None:
    """Store another node in a cell. Arrays stay with one cell each, so that buffers can be donated."""
    if node.op is INPUT and fn is None:
        node = alias(node)
    if cell.node.op is INPUT and isinstance(cell.node.bound, np.ndarray | Shown):
        cell.old = present(cell) if type(cell.node.bound) is Shown else cell.node
    remember(cell)
    if isinstance(fn, AccumulateGrad):
        fn = GradFn("CloneBackward0", (fn,))
    cell.node, cell.fn, cell.tracks = node, fn, tracks and fn is None
    cell.version += 1


def remember(cell: Cell) -> None:
    """Note the value that a pending change replaces. (A trace puts everything back itself.)"""
    if MODE.trace is not None:
        return
    if cell.past is None or isinstance(cell.node.bound, np.ndarray):
        cell.past = []
    cell.past.append((Steps.count, cell.node, recorded()))


def check_apart(view: View | None) -> None:
    """RuntimeError if elements of a view, or of what it is a view of, share their places."""
    while view is not None:
        if view.back is None:
            raise fail(
                RuntimeError,
                "unsupported operation: more than one element of the written-to tensor refers to a single "
                "memory location. Please clone() the tensor before performing the operation.",
            )
        view = view.cell.view
