"""Groups without reductions: one loop nest over the points of the outputs, one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower import cost
from graphc.loop.lower.box import enter, make_box
from graphc.loop.lower.contraction.cells import Cells, concat_cells
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import PHASES, Footprint, Index, lanes_for, settle
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def lower_pointwise(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """A kernel that stores every output at every point. All outputs have the same number of elements, or
    some are made of several parts that have: the kernel stores an element of each part."""
    if not group.outputs[0].type.size:
        return ()
    frame = Frame(group)
    cells = _cells(group)
    shape = (cells.outer, cells.inner) if cells else max((o.shape for o in group.outputs), key=len)
    dims, _, found = settle(shape, lambda dims, names: _probe(frame, cells, dims, names))
    width = machine.lanes(cost.widest((*group.inputs, *group.outputs)))
    vector, unroll = _vector(dims)
    points = dims[-1] if unroll else 1
    lanes = lanes_for(dims[vector], width, cost.vectors_wanted(found.lets * points))
    work = cost.flops(group) + cost.traffic(group)
    box = make_box(dims, vector, lanes, cost.tasks_wanted(work), unroll)
    frame.set_tasks(box.tasks)
    scope = Scope()
    evaluator = frame.evaluator(scope)
    with enter(scope, box, frame.task()) as point:
        _stores(scope, frame, evaluator, cells, [ix.add(point, offset) for offset in box.offsets])
    return (frame.call(scope, "points", cost.flops(group)),)


def _vector(dims: Shape) -> tuple[int, tuple[int, ...]]:
    """(the factor that vectors run over, unrolled factors): the last factor, unless it is very short."""
    last = len(dims) - 1
    if dims[last] <= PHASES and last and dims[last - 1] > dims[last]:
        return last - 1, (last,)
    return last, ()


def _cells(group: Group) -> Cells | None:
    """The cells of a group that puts parts together."""
    for output in group.outputs:
        cells = concat_cells(output)
        if cells is not None and all(cells.gates(o) == 1 or concat_cells(o) == cells for o in group.outputs):
            return cells
    return None


def _probe(frame: Frame, cells: Cells | None, dims: Shape, names: Index) -> Footprint:
    """Evaluate the body once, outside any loop, and see what it reads."""
    scope = Scope()
    found = Footprint()
    _stores(scope, frame, frame.evaluator(scope), cells, [ix.flatten(names, dims)], found)
    found.add_block(scope.block)
    return found


def _stores(
    scope: Scope,
    frame: Frame,
    evaluator: Evaluator,
    cells: Cells | None,
    points: Sequence[Expr],
    found: Footprint | None = None,
) -> None:
    """Compute all outputs at some points, then store them (so that outputs may overwrite inputs)."""
    results = []
    for point in points:
        for output in frame.group.outputs:
            for index in _elements(output, cells, point):
                results.append((output, ix.flatten(index, output.shape), evaluator.value(output, index)))
    for output, place, value in results:
        if found is None:
            frame.store(scope, output, place, value)
        else:
            found.places.append((place, output.dtype.itemsize))


def _elements(output: Node, cells: Cells | None, point: Expr) -> list[Index]:
    """The elements of an output at a point."""
    if cells is None:
        return [ix.unflatten(point, output.shape)]
    outer, inner = ix.unflatten(point, (cells.outer, cells.inner))
    return [cells.index(output, outer, gate, inner) for gate in range(cells.gates(output) or 0)]
