"""Tensors of one backward pass, which are computed together.

A loss, what else of its forward pass is still held, and its gradients share most of their work. So as soon as
one of them is read, or a value made of one (the norm of a gradient, the accuracy of scores), all are: one
program computes them, as one pass forward and one backward would.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.frontend.cell import Cell, Deferred
from graphc.frontend.history import GradFn
from graphc.frontend.modes import MODE
from graphc.ir.node import Node

if TYPE_CHECKING:
    from graphc.frontend.evaluation.canonical import Pending
    from graphc.frontend.tensor import Tensor

_relatives: weakref.WeakKeyDictionary[Node, tuple[weakref.ref[Cell], ...]] = weakref.WeakKeyDictionary()


def relate(tensors: Sequence[Tensor]) -> None:
    """Note that these tensors are computed together."""
    if MODE.trace is None:
        _note([t._cell for t in tensors])


def relate_pass(functions: Sequence[GradFn], tensors: Sequence[Tensor]) -> None:
    """The same for outputs and gradients of a backward pass through `functions`, with those values of its
    forward pass that others hold."""
    if MODE.trace is None:
        history = set(functions)
        held = [t._cell for t in MODE.pending if type(t._cell) is not Deferred]
        inner = [cell for cell in held if cell.view is None and cell.fn in history]
        _note(list(dict.fromkeys([*[t._cell for t in tensors], *inner])))


def _note(cells: Sequence[Cell]) -> None:
    pending = [cell for cell in cells if cell.node.bound is None]
    if len(pending) > 1:
        found = tuple([weakref.ref(cell) for cell in pending])
        for cell in pending:
            _relatives[cell.node] = found


def relatives(found: Pending, targets: Sequence[Cell]) -> list[Cell]:
    """The cells that are to be computed with the targets of a graph: relatives of any value in it."""
    if not _relatives or not found.pays(len(_relatives)):
        return []
    groups = {id(known): known for node, known in list(_relatives.items()) if node in found.index}
    cells = {cell: None for known in groups.values() for held in known if (cell := held()) is not None}
    return [cell for cell in cells if cell not in targets and cell.view is None and cell.node.bound is None]
