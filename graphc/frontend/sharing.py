"""Cells whose memory NumPy arrays show: how they come about, and how they are read (see `shown.py`).

What is promised (in one thread), of an array that `numpy()` has given for a tensor with storage of its own
and no history:

1. It shows the tensor's memory, until the tensor gets another value: by an in-place operation, an
   optimizer's step, a compiled function that changes it. From then on the array keeps what it shows.
2. Until then, what is written to it, or to views of it, is seen by every operation on the tensor and on views
   of it that comes later, and by none that came before, whenever that is computed; backward passes use the
   values of their forward pass.
3. graphc never writes to memory that an array shows.

Views, and tensors with history, give copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from sys import getrefcount
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np

from graphc.arrays import aligned_copy
from graphc.frontend.cell import Cell, alias, fresh_input
from graphc.frontend.drawn import evaluate
from graphc.frontend.modes import MODE
from graphc.frontend.shown import Shown, on_memory_of
from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node
from graphc.ops.constant import INPUT

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor

MOVES = (Kind.VIEW, Kind.CONSTANT, Kind.INPUT)
OWN = 4  # references to a node that only its cell refers to: the cell's, two variables', the question's
UNUSED = 3  # the same for a node that only its leaf knows: the leaf's, a variable's, the question's


def show(cell: Cell) -> np.ndarray:
    """An array on the memory of a cell that has a known value, no base and no history."""
    node = cell.node
    array = node.bound
    if type(array) is Shown:
        again = array.again()
        if again is not None:
            return again
        array = array.array
    events = MODE.events
    if is_read(cell, node, array) or (events is not None and events.has(array)):
        array = aligned_copy(array)
        node = fresh_input(node.type)
    given = on_memory_of(array)
    node.bound, cell.vars = Shown(array, given), None
    cell.node = node  # which has its value: another thread may be reading it
    cell.version += 1  # views and compiled functions look again
    if events is not None and events.reads(cell):
        events.guard(cell)
    return given


def is_read(cell: Cell, node: Node, array: np.ndarray) -> bool:
    """Whether anything beside a cell reads, or is going to read, its node or the array that is its value."""
    if getrefcount(node) > OWN or not array.flags.writeable:
        return True
    for held in cell.vars or ():
        leaf = held()
        if leaf is not None and leaf.bound is array and getrefcount(leaf) > UNUSED:
            return True
    return False


def is_seen(cell: Cell) -> bool:
    """Whether anybody still has an array on the memory of a cell bound to a `Shown`; else it is an ordinary
    cell from now on."""
    shown: Shown = cell.node.bound
    if shown.is_seen:
        return True
    cell.node.bound = shown.array
    cell.version += 1  # it may have been written to until now
    return False


def present(cell: Cell) -> Node:
    """What stands in recorded operations for the value that a cell bound to a `Shown` has now."""
    node = cell.node
    shown: Shown = node.bound
    if not is_seen(cell):
        return node
    before = shown.last
    array = shown.snapshot()
    if array is not before:
        cell.version += 1
    return fresh_input(node.type, array)


def part(tensor: Tensor) -> None:
    """Before a tensor gets other data: the other tensors on its storage keep the storage, and what it holds.

    (`backup = w.data; w.data = average; ...; w.data = backup`.) Views of it follow `tensor` all the same, and
    so do all others in traces, where storage from outside has its place in the program.
    """
    cell = tensor._cell
    alive = [held() for held in (cell.handles or {}).values()]
    others = [other for other in alive if other is not None and other is not tensor]
    if not others or MODE.trace is not None:
        return
    node = present(cell) if type(cell.node.bound) is Shown else cell.node
    left = Cell(alias(node) if node.op is INPUT else node, None, cell.tracks)
    left.version = cell.version
    for other in others:
        other._cell = left
    left.handles = {id(other): ref(other) for other in others}
    cell.handles = None


@contextmanager
def as_they_were(cells: Sequence[tuple[Cell, np.ndarray]]) -> Iterator[None]:
    """Give cells, views among them, the values that they had earlier, for a while."""
    saved = []
    for cell, array in cells:
        stand_in = fresh_input(cell.node.type, array)
        saved.append((cell, cell.node, cell.view, stand_in))
        cell.node, cell.view = stand_in, None
        cell.version += 1
    try:
        yield
    finally:
        for cell, node, view, stand_in in reversed(saved):
            cell.view = view
            if cell.node is stand_in:
                cell.node = node
                cell.version += 1


def moved(forward: Callable[[Node], Node], base: Cell) -> Node:
    """`forward` of what a cell bound to a `Shown` holds now, for a view of it.

    A view that only moves data is made at once: so of a large array, only that part is copied.
    """
    shown: Shown = base.node.bound
    live = fresh_input(base.node.type, shown.array)
    node = forward(live)
    if any(n.kind not in MOVES for n in toposort([node])):
        live.bound = shown.snapshot()
        return node
    return fresh_input(node.type, aligned_copy(evaluate(node)))
