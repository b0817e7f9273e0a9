"""Loops for groups with reductions. Two shapes of nest, chosen by where memory is contiguous:

along    for each row: vectors run along the row's elements (softmax over the last axis, batch statistics of NCHW)
across   vectors run across neighbouring rows, the elements of all of them are walked together (a bias gradient,
         pooling windows)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Store, Var, identity_of, load
from graphc.loop.lower import cost
from graphc.loop.lower.box import Box, enter, make_box
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import ROUNDS, Footprint, Index, collapse, lanes_for, refine, variables
from graphc.loop.lower.rows import Rows, Sweep, Tracer, analyse, element
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


ROWS = -1  # where a table by row size holds what belongs to the rows themselves


def lower_reduce(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """Kernels for a group whose reductions share their rows."""
    frame = Frame(group)
    rows = analyse(frame)
    if not rows.count:
        return ()
    found = settle_rows(rows, frame)
    plan = choose(rows, found, group, machine)
    frame.set_tasks(plan.rows.tasks)
    scope = Scope()
    nest = Nest(scope, frame, rows, plan, frame.evaluator(scope))
    with enter(scope, plan.rows, frame.task()) as row:
        for sweep in rows.sweeps:
            nest.sweep(sweep, row)
        nest.scalars(row)
    return (frame.call(scope, plan.name, cost.flops(group)),)


# ------------------------------------------------------------------------ choosing the loops


def settle_rows(rows: Rows, frame: Frame) -> Footprint:
    """Fix the factorisations of rows and elements (in place): refine, then collapse."""
    rows.shape = tuple([d for d in rows.shape if d != 1]) or (1,)
    rows.dims = {size: tuple([d for d in dims if d != 1]) or (1,) for size, dims in rows.dims.items()}
    for _ in range(ROUNDS):
        names = _names(rows)
        found = _probe(rows, frame, names)
        before = (rows.shape, dict(rows.dims))
        rows.shape = refine(rows.shape, names[ROWS], found.expressions)
        rows.dims = {s: refine(d, names[s], found.expressions) for s, d in rows.dims.items()}
        if before == (rows.shape, rows.dims):
            break
    before = (rows.shape, dict(rows.dims))
    rows.shape = collapse(rows.shape, names[ROWS], found.expressions)
    rows.dims = {s: collapse(d, names[s], found.expressions) for s, d in rows.dims.items()}
    if before != (rows.shape, rows.dims):
        names = _names(rows)
        found = _probe(rows, frame, names)
    found.names = names
    return found


def _names(rows: Rows) -> dict[int, Index]:
    """Variables of the rows (under ROWS) and of the elements of each row size."""
    names = {size: variables(f"r{size}_", dims) for size, dims in rows.dims.items()}
    return {ROWS: variables("k", rows.shape), **names}


def _probe(rows: Rows, frame: Frame, names: dict[int, Index]) -> Footprint:
    """Everything that one element of one row reads and writes."""
    found = Footprint()
    scope = Scope()
    tracer = Tracer(scope, frame)
    row = ix.flatten(names[ROWS], rows.shape)
    for sweep in rows.sweeps:
        place = ix.flatten(names[sweep.size], rows.dims[sweep.size]) if sweep.size else ix.ZERO
        for node in sweep.reductions:
            found.add_value(element(tracer, node, rows.rules[node], row, place))
        for output in sweep.outputs:
            position = output.position(row, place)
            tracer.value(output.node, ix.unflatten(position, output.node.shape))
            found.places.append((position, output.node.dtype.itemsize))
    for node in rows.scalars:
        tracer.value(node, ix.unflatten(row, node.shape))
    found.add_block(scope.block)
    return found


@dataclass(frozen=True)
class Plan:
    """The chosen loops: over rows, and over the elements of a row of each size."""

    name: str
    along: bool
    rows: Box
    elements: dict[int, Box]


def choose(rows: Rows, found: Footprint, group: Group, machine: Machine) -> Plan:
    """Vectors along the elements or across the rows, and the cut into tasks."""
    width = machine.lanes(cost.widest((*group.inputs, *group.outputs)))
    most = cost.vectors_wanted(found.lets)
    work = cost.flops(group) + cost.traffic(group)
    wanted = cost.tasks_wanted(work)
    inner = {s: _best(d, found, found.names[s], width) for s, d in rows.dims.items()}
    outer = _best(rows.shape, found, found.names[ROWS], width)
    size = max(rows.dims, default=0)
    if size and _waste(rows.dims[size], found, found.names[size], inner[size], width) <= _waste(
        rows.shape, found, found.names[ROWS], outer, width
    ):
        boxes = {
            s: make_box(d, inner[s], lanes_for(max(d[inner[s]], 1), width, most))
            for s, d in rows.dims.items()
        }
        return Plan("rows", True, make_box(rows.shape, None, 1, wanted), boxes)
    lanes = lanes_for(rows.shape[outer], width, most)
    elements = {s: Box(d) for s, d in rows.dims.items()}
    return Plan("columns", False, make_box(rows.shape, outer, lanes, wanted), elements)


def _waste(dims: Shape, found: Footprint, names: Index, d: int, width: int) -> tuple[float, ...]:
    """How badly vectors over factor `d` do: strided accesses, then empty lanes."""
    var, extent = names[d], dims[d]
    if not isinstance(var, Var):
        return (1e9, 1.0)
    strided = 0
    for place, _ in dict.fromkeys(found.places):
        step = ix.linear(place, var)
        strided += step not in (0, 1)
    filled = extent / (-(-extent // width) * width)
    return (strided + (2.0 if extent < 4 else 0.0), -min(filled, 0.5))


def _best(dims: Shape, found: Footprint, names: Index, width: int) -> int:
    """The factor that vectors should run over (the innermost of the best)."""
    return min(reversed(range(len(dims))), key=lambda d: _waste(dims, found, names, d, width))


# --------------------------------------------------------------------------- writing them


class Nest:
    """Writes sweeps into an open row loop."""

    def __init__(self, scope: Scope, frame: Frame, rows: Rows, plan: Plan, evaluator: Evaluator) -> None:
        self.scope, self.frame, self.rows, self.plan, self.evaluator = scope, frame, rows, plan, evaluator

    def sweep(self, sweep: Sweep, row: Expr) -> None:
        """One pass over the elements of a row: accumulate its reductions, store its outputs."""
        totals = [self._accumulator(node) for node in sweep.reductions]
        if sweep.size:
            self._pass(sweep, row, totals)
        for node, total in zip(sweep.reductions, totals, strict=True):
            value = self.scope.let(load(total, ()), "sum")
            self.evaluator.bind(node, ix.unflatten(row, node.shape), value)

    def _pass(self, sweep: Sweep, row: Expr, totals: list[Buffer]) -> None:
        box = self.plan.elements[sweep.size]
        if self._vector_outside(box):
            self._pass_by_lanes(sweep, row, totals, box)
            return
        with enter(self.scope, box) as place:
            self._body(sweep, row, place, totals)

    def _vector_outside(self, box: Box) -> bool:
        """Short contiguous runs, many of them: keep a sum for each lane over all runs."""
        if box.vector is None or prod(box.dims) == box.dims[box.vector]:
            return False
        return box.dims[box.vector] <= box.lanes

    def _pass_by_lanes(self, sweep: Sweep, row: Expr, totals: list[Buffer], box: Box) -> None:
        vector = replace(box, dims=(box.dims[box.vector],), vector=0)  # type: ignore[index]
        with enter(self.scope, vector) as lane:
            parts = [self._accumulator(node) for node in sweep.reductions]
            serial = [box.dims[d] for d in box.serial]
            with enter(self.scope, Box(tuple(serial))) as rest:
                digits = list(ix.unflatten(rest, serial))
                digits.insert(box.vector, lane)  # type: ignore[arg-type]
                self._body(sweep, row, ix.flatten(digits, box.dims), parts)
            for node, part, total in zip(sweep.reductions, parts, totals, strict=True):
                how = self.rows.rules[node].combine
                self.scope.put(Accumulate(total, (), how, load(part, ())))

    def _accumulator(self, node: Node) -> Buffer:
        total = self.scope.alloc("acc", node.dtype, (), "local")
        start = identity_of(self.rows.rules[node].combine, node.dtype)
        self.scope.put(Store(total, (), start))
        return total

    def _body(self, sweep: Sweep, row: Expr, place: Expr, totals: list[Buffer]) -> None:
        """What happens at one element: all values first, then sums and stores."""
        rules = self.rows.rules
        values = [element(self.evaluator, node, rules[node], row, place) for node in sweep.reductions]
        stores = []
        for output in sweep.outputs:
            position = output.position(row, place)
            value = self.evaluator.value(output.node, ix.unflatten(position, output.node.shape))
            stores.append((output.node, position, value))
        for node, total, value in zip(sweep.reductions, totals, values, strict=True):
            self.scope.put(Accumulate(total, (), rules[node].combine, value))
        for node, position, value in stores:
            self.frame.store(self.scope, node, position, value)

    def scalars(self, row: Expr) -> None:
        """Store the outputs with one value per row."""
        values = []
        for node in self.rows.scalars:
            index = ix.unflatten(row, node.shape)
            values.append((node, ix.flatten(index, node.shape), self.evaluator.value(node, index)))
        for node, place, value in values:
            self.frame.store(self.scope, node, place, value)
