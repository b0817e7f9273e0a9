"""Results cut into gates: z = h @ W of width G*H, read as G slices that combine into values of width H.

Seen as [outer][gate][inner], one *cell* is what lies at an (outer, inner): G elements of z, one of the next
state. An epilogue that works cell by cell computes states, and any stack of gates again (a gradient that is
written as G slices of one value), while the products are in cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Var
from graphc.loop.lower.contraction.fused import Fused, flat_buffer
from graphc.loop.lower.contraction.problem import Access, Contraction, Index, dot_problem
from graphc.loop.lower.evaluate import Evaluator, LoweringError, dummy
from graphc.loop.lower.scope import Scope
from graphc.loop.lower.structure import structure

MOST_GATES = 8  # parts of a value that one loop may write


@dataclass(frozen=True)
class Cells:
    """Every value is [outer][gates of the value][inner] in row-major order."""

    outer: int
    inner: int

    def gates(self, node: Node) -> int | None:
        """Elements that a value has in each cell; None if it is not made of cells."""
        count, rest = divmod(node.type.size, self.outer * self.inner)
        return None if rest or not count else count

    def index(self, node: Node, outer: Expr, gate: int, inner: Expr) -> Index:
        """Where an element of a cell is."""
        count = self.gates(node)
        assert count is not None
        shape = (self.outer, count, self.inner)
        place = ix.ZERO if self.outer == 1 else outer, ix.const(gate), ix.ZERO if self.inner == 1 else inner
        return ix.unflatten(ix.flatten(place, shape), node.shape)


def cut(anchor: Node, size: int) -> Cells | None:
    """Cells of a contraction, one for each of `size` elements of some value around it; None if its columns
    are not made of them."""
    if anchor.kind is not Kind.CONTRACT or not anchor.dtype.is_float or not size:
        return None
    columns = dot_problem(anchor).sizes[2]
    gates, rest = divmod(anchor.type.size, size)
    if rest or not gates or columns % gates:
        return None
    inner = columns // gates
    return Cells(size // inner, inner)


def concat_cells(node: Node) -> Cells | None:
    """Cells of a few equal parts put side by side: an element of each part. None for other nodes."""
    if node.op.name != "concat" or not 1 < len(node.inputs) <= MOST_GATES or not node.type.size:
        return None
    shape, axis = node.inputs[0].shape, node.attrs.axis
    if any(part.shape != shape for part in node.inputs):
        return None
    return Cells(math.prod(shape[:axis]), math.prod(shape[axis:]))


_REMEMBERED = 4096
_found: dict[tuple, bool] = {}  # by structure: the steps of a network written out in Python are alike


def stays_inside(node: Node, cells: Cells, known: Iterable[Node], inputs: Sequence[Node]) -> bool:
    """Whether all elements of `node` in a cell follow from that cell's elements of the `known` values, from
    `inputs`, and from nothing else."""
    if cells.gates(node) is None:
        return False
    before = Group.between(inputs, (node,))
    same, values = structure(before)
    of_cell = set(known)
    key = cells, same, tuple([x in of_cell for x in values])
    found = _found.get(key)
    if found is None:
        if len(_found) >= _REMEMBERED:
            _found.clear()
        found = _found[key] = _follows(node, cells, [x for x in values if x in of_cell], before.inputs)
    return found


def _follows(node: Node, cells: Cells, known: Sequence[Node], inputs: Sequence[Node]) -> bool:
    """`stays_inside`, found out by evaluating a cell."""
    gates = cells.gates(node)
    assert gates is not None
    outer, inner = Var(int64, "m", cells.outer), Var(int64, "u", cells.inner)
    evaluator = Evaluator(Scope(), inputs, flat_buffer)
    for value in known:
        for gate in range(cells.gates(value) or 0):
            evaluator.bind(value, cells.index(value, outer, gate, inner), dummy(value.dtype))
    try:
        for gate in range(gates):
            evaluator.value(node, cells.index(node, outer, gate, inner))
    except LoweringError:
        return False
    return True


def cells_of(group: Group, anchor: Node) -> Cells | None:
    """The cells of a group; None if every output follows from the anchor's element at the same position.
    Raises LoweringError if there are none that all outputs keep to."""
    sizes = {n.type.size for n in (*group.nodes, *group.outputs) if n.kind is Kind.ELEMENTWISE}
    whole = cut(anchor, anchor.type.size)
    alike = all(n.type.size == anchor.type.size for n in group.outputs)
    if alike and (sizes <= {anchor.type.size} or whole is None or _keep_to(whole, group, anchor)):
        return None
    for size in sorted({*sizes, anchor.type.size}):
        cells = cut(anchor, size)
        if cells and _keep_to(cells, group, anchor):
            return cells
    raise LoweringError(f"no cells for the outputs {group.outputs} of {anchor!r}")


def _keep_to(cells: Cells, group: Group, anchor: Node) -> bool:
    return all(stays_inside(output, cells, (anchor,), group.inputs) for output in group.outputs)


def interleaved(problem: Contraction, cells: Cells, unit: int) -> Contraction:
    """The problem with its columns as [block][gate][unit]: the gates of `unit` cells are neighbours.

    Where `unit` does not divide the inner extent, the last block has columns of zeros, which `c` does not
    reach.
    """
    gates = cells.gates(problem.anchor)
    assert gates is not None

    def inner(col: Index) -> Expr:
        return ix.add(ix.mul(col[0], unit), col[2])

    def column(col: Index) -> Index:
        return ix.unflatten(ix.add(ix.mul(col[1], cells.inner), inner(col)), problem.cols)

    def b(batch: Index, depth: Index, col: Index) -> Access:
        access = problem.b(batch, depth, column(col))
        if cells.inner % unit == 0:
            return access
        return replace(access, bounds=(*access.bounds, (inner(col), cells.inner)))

    return replace(
        problem,
        cols=(-(-cells.inner // unit), gates, unit),
        b=b,
        c=lambda batch, row, col: problem.c(batch, row, column(col)),
        window=None,
    )


def finish_cell(fused: Fused, cells: Cells, outer: Expr, inner: Expr, values: Sequence[Expr]) -> None:
    """Store all outputs of the group in one cell, given the anchor's elements there."""
    for gate, value in enumerate(values):
        element = fused.scope.let(value, "c")
        fused.evaluator.bind(fused.anchor, cells.index(fused.anchor, outer, gate, inner), element)
    results = []
    for output in fused.group.outputs:
        for gate in range(cells.gates(output) or 0):
            index = cells.index(output, outer, gate, inner)
            results.append((output, ix.flatten(index, output.shape), fused.evaluator.value(output, index)))
    for output, position, result in results:
        fused.written.add(output)
        fused.scope.store(fused.buffer(output), (position,), result)
