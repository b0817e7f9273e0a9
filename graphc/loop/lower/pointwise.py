"""Groups without reductions: one loop nest over the points of the outputs, one pass over memory."""

from __future__ import annotations

from graphc.ir.partition import Group
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower import cost
from graphc.loop.lower.box import enter, make_box
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Footprint, Index, lanes_for, settle
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def lower_pointwise(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """A kernel that stores every output at every point. All outputs have the same number of elements."""
    if not group.outputs[0].type.size:
        return ()
    frame = Frame(group)
    shape = max((o.shape for o in group.outputs), key=len)
    dims, _, found = settle(shape, lambda dims, names: _probe(frame, dims, names))
    width = machine.lanes(cost.widest((*group.inputs, *group.outputs)))
    lanes = lanes_for(dims[-1], width, cost.vectors_wanted(found.lets))
    work = cost.flops(group) + cost.traffic(group)
    box = make_box(dims, len(dims) - 1, lanes, cost.tasks_wanted(work))
    frame.set_tasks(box.tasks)
    scope = Scope()
    with enter(scope, box, frame.task()) as point:
        _stores(scope, frame, frame.evaluator(scope), point)
    return (frame.call(scope, "points", cost.flops(group)),)


def _probe(frame: Frame, dims: Shape, names: Index) -> Footprint:
    """Evaluate the body once, outside any loop, and see what it reads."""
    scope = Scope()
    found = Footprint()
    _stores(scope, frame, frame.evaluator(scope), ix.flatten(names, dims), found)
    found.add_block(scope.block)
    return found


def _stores(
    scope: Scope, frame: Frame, evaluator: Evaluator, point: Expr, found: Footprint | None = None
) -> None:
    """Compute all outputs at a point, then store them (so that outputs may overwrite inputs)."""
    results = []
    for output in frame.group.outputs:
        index = ix.unflatten(point, output.shape)
        results.append((output, ix.flatten(index, output.shape), evaluator.value(output, index)))
    for output, place, value in results:
        if found is None:
            frame.store(scope, output, place, value)
        else:
            found.places.append((place, output.dtype.itemsize))
