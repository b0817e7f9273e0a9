"""Dear values that several sweeps of a row need (an exponential): computed once, kept in scratch.

Where vectors run across rows, those of a whole vector loop are kept; if they are too many for the cache, the
loop is cut into pieces of a few vectors each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphc.ir.node import Kind, Node
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower import cost
from graphc.loop.lower.box import Box
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Index, variables
from graphc.loop.lower.reductions.rows import Digit, Placed, Rows, Sweep, Tracer, mixed_radix
from graphc.loop.lower.scope import Scope


@dataclass(frozen=True, eq=False)
class Kept:
    """A value of every element of a row; sweep number `first` computes it, `later` ones read it."""

    place: Placed
    first: int
    later: frozenset[int]


def dear_values(rows: Rows, frame: Frame, room: int) -> list[Kept]:
    """The values worth keeping, in topological order, as long as those of a row take at most `room` bytes."""
    members = frame.group.nodes
    dear = {n for n in members if n.kind is Kind.ELEMENTWISE and n.op.cost >= cost.DEAR}
    if not dear or len(rows.sweeps) < 2:
        return []
    met = [_met(sweep, rows, frame, dear) for sweep in rows.sweeps]
    kept = []
    for node in members:
        at = [i for i, found in enumerate(met) if node in found]
        if len(at) < 2 or len({(rows.sweeps[i].size, met[i][node]) for i in at}) != 1:
            continue
        size = rows.sweeps[at[0]].size
        room -= size * node.dtype.itemsize
        if room < 0:
            break
        kept.append(Kept(Placed(node, size, met[at[0]][node]), at[0], frozenset(at[1:])))
    return kept


def keep_columns(
    box: Box, elements: Iterable[Box], rows: Rows, frame: Frame, room: int
) -> tuple[Box, list[Kept]]:
    """What to keep where vectors run across rows, and loops over these in which it takes `room` bytes."""
    written_out = any(inner.unroll for inner in elements)
    if box.vector is None or written_out:  # what is written out has one scope: nothing is computed twice
        return box, []
    kept = dear_values(rows, frame, room // box.inner.block)
    if kept or box.inner.block <= box.lanes:
        return box, kept
    kept = dear_values(rows, frame, room // box.lanes)
    return replace(box, piece=box.lanes) if kept else box, kept


def _met(sweep: Sweep, rows: Rows, frame: Frame, dear: set[Node]) -> dict[Node, tuple[Digit, ...]]:
    """The dear nodes that a sweep computes at each of its elements, and where."""
    if not sweep.size:
        return {}
    dims = rows.dims[sweep.size]
    kept, swept = variables("k", rows.shape), variables("r", dims)
    row, place = ix.flatten(kept, rows.shape), ix.flatten(swept, dims)
    tracer = Tracer(Scope(), frame)
    places: dict[Node, set[Expr]] = {}

    def note(node: Node, index: Index, value: Expr) -> None:
        if node in dear and node.type.size == rows.count * sweep.size:
            places.setdefault(node, set()).add(ix.flatten(index, node.shape))

    tracer.computed = note  # type: ignore[method-assign]
    rows.terms(tracer, sweep, row, place)
    for output in sweep.outputs:
        tracer.value(output.node, ix.unflatten(output.position(row, place), output.node.shape))
    found = {}
    for node, at in places.items():
        digits = mixed_radix(next(iter(at)), kept, rows.shape, swept, dims) if len(at) == 1 else None
        if digits is not None:
            found[node] = digits
    return found
