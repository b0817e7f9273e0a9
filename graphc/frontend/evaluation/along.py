"""Which pending tensors are computed along with one that is read.

A read computes what it needs in one program, whose inner values are gone afterwards. If one of them
belongs to a tensor that is still there (the scores of which the loss is read first, and then the accuracy),
every later read would compute it anew. So it is an output too, where that saves more than it costs to write:
behind a costly operation, or a long chain of cheap ones. (The second bounds what a loop that reads something
in each round computes: the state that it carries is an output before long.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from graphc.frontend.cell import Cell, Deferred, root
from graphc.frontend.modes import MODE
from graphc.ir.node import Kind, Node
from graphc.ops.random import RandomAttrs

if TYPE_CHECKING:
    from graphc.frontend.evaluation.canonical import Pending

COSTLY = frozenset(
    (Kind.CONTRACT, Kind.CONV, Kind.REDUCE, Kind.SCAN, Kind.SORT, Kind.CUMULATIVE, Kind.SCATTER)
)
CHAIN = 16  # cheap operations to have a value again, which are about as dear as writing and reading it


def along(found: Pending, targets: Iterable[int]) -> dict[int, Cell]:
    """Cells of live tensors with a value inside a graph that is costly to have again, by its position there.

    `targets` are the positions of what is computed anyway.
    """
    if not found.pays(len(MODE.pending)):
        return {}
    wanted = set(targets)
    inner: dict[int, Cell] = {}
    for cell in _pending_cells():
        at = found.index.get(cell.node)
        if at is not None and at not in wanted:
            inner.setdefault(at, cell)
    return {at: inner[at] for at in _costly(found, wanted, inner)} if inner else {}


def _pending_cells() -> Iterator[Cell]:
    """The storage of all pending tensors that are recorded, and not noted calls."""
    for tensor in MODE.pending:
        if type(tensor._cell) is not Deferred:
            cell = root(tensor._cell)
            if type(cell) is not Deferred and cell.node.bound is None:
                yield cell


def _costly(found: Pending, wanted: set[int], inner: dict[int, Cell]) -> Iterator[int]:
    """Those of the positions `inner` that are costly to have again even if all before them are kept."""
    index, leaves = found.index, set(found.leaf_at)
    cost = [0] * len(found.order)  # on the longest way from a value that is known or kept; CHAIN if costly
    for at, node in enumerate(found.order):
        if at in leaves:
            continue
        own = CHAIN if _is_costly(node) else 1
        way = min(CHAIN, own + max([cost[index[n]] for n in node.inputs], default=0))
        kept = way == CHAIN and at in inner
        if kept:
            yield at
        cost[at] = 0 if kept or at in wanted else way


def _is_costly(node: Node) -> bool:
    return node.kind in COSTLY or isinstance(node.attrs, RandomAttrs)
