"""`x[place] = known`, where x is known too: written at once.

    line = torch.zeros(len(word), 1, letters)
    for i, letter in enumerate(word):
        line[i][0][index_of(letter)] = 1

Recorded, such writes are a graph whose attributes are the places: every word would be another program. They
compute nothing, so there is nothing to gain by waiting: NumPy writes the elements in less time than it takes
to record that they are to be written. What has been recorded before reads the value of before: an array that
others may read is copied, if it is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.cell import Cell, Deferred, fresh_input
from graphc.frontend.evaluation.known import COPIED, filled
from graphc.frontend.modes import MODE, settle
from graphc.frontend.sharing import is_read
from graphc.frontend.tensor import Tensor, refresh
from graphc.ir.node import Kind, Node


def write_known(x: Tensor, box: tuple[slice, ...], source: Any, shape: tuple[int, ...]) -> bool:
    """Write the elements of `x` in a box (of `shape` without the dims that ints select), if that can be done
    now: a number, or a tensor of just this shape and the dtype of `x`. Else False, and nothing has happened.
    """
    if MODE.trace is not None or MODE.recording:
        return False
    new = _known(x, source, shape)
    if new is None:
        return False
    settle()
    if x._cell.view is not None:
        refresh(x._cell)
    root = _root(x)
    if root is None:
        return False
    array = _own(root)
    if array is None:
        return False
    seen = _shown_by(x._cell.node, root.node, array)
    if seen is None:
        return False
    index: tuple[Any, ...] = (*box, ...)  # (which gives an array of a single element too)
    part = seen[index]
    part[...] = new.reshape(part.shape) if new.ndim else new
    root.node = fresh_input(root.node.type, array)
    root.version += 1
    return True


def _known(x: Tensor, source: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """What is to be written, in the dtype of `x`; None if it has to be computed or brought into shape."""
    if not isinstance(source, Tensor):
        return np.asarray(source, x._cell.type.dtype.numpy)
    cell = source._cell
    if type(cell) is Deferred or cell.view is not None or source._requires:
        return None
    if cell.fn is not None or cell.tracks:
        return None
    bound = cell.node.bound
    fits = cell.node.type.dtype is x._cell.type.dtype and cell.node.type.shape in ((), shape)
    return bound if fits and type(bound) is np.ndarray else None


def _root(x: Tensor) -> Cell | None:
    """The storage of a tensor, if no gradient can flow to or through it and one tensor alone is a handle on
    it."""
    handle: Tensor | None = x
    cell = x._cell
    while True:
        if cell.fn is not None or cell.tracks or cell.handles or (handle is not None and handle._requires):
            return None
        if cell.view is None:
            return None if cell.old is not None or cell.vars else cell
        handle, cell = cell.view.handle(), cell.view.cell


def _own(root: Cell) -> np.ndarray | None:
    """An array with the value of a cell, which nobody else reads; None if that is not known, or too large to
    be copied."""
    node = root.node
    bound = node.bound
    if type(bound) is np.ndarray:
        if bound.flags.writeable and not is_read(root, node, bound):
            return bound
        return bound.copy() if bound.nbytes <= COPIED else None
    return filled(node)


def _shown_by(node: Node, root: Node, array: np.ndarray) -> np.ndarray | None:
    """The elements of `array`, the value of `root`, that a view of it shows, in place; None if these have no
    layout in memory."""
    chain = []
    while node is not root:
        if node.kind is not Kind.VIEW or len(node.inputs) != 1:
            return None
        chain.append(node)
        node = node.inputs[0]
    shown = array
    for node in reversed(chain):
        assert node.op.evaluate is not None
        shown = node.op.evaluate([shown], node.attrs)
    return shown if np.may_share_memory(shown, array) and shown.flags.writeable else None
