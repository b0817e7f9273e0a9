"""Writing the sweeps of a group with reductions into open loops over its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from graphc.ir.node import Node
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Accumulate, Buffer, Const, Expr, Store, identity_of, load
from graphc.loop.lower.box import Box, enter
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.reductions.keep import Kept
from graphc.loop.lower.reductions.quotient import RowEvaluator
from graphc.loop.lower.reductions.rows import Rows, Sweep
from graphc.loop.lower.scope import Scope


@dataclass(frozen=True)
class Plan:
    """The chosen loops: over rows, and over the elements of a row of each size.

    name     "rows" (vectors along elements), "columns" (across rows), "pieces" (of columns), or
             one of stages.py: "stream", "runs", "crossing"
    splits   how many tasks share a row
    """

    name: str
    rows: Box
    elements: dict[int, Box]
    splits: int = 1


class Nest:
    """Writes sweeps into an open row loop."""

    def __init__(self, scope: Scope, frame: Frame, rows: Rows, plan: Plan) -> None:
        self.scope, self.frame, self.rows, self.plan = scope, frame, rows, plan
        self.evaluator = RowEvaluator(scope, frame)
        self.kept: list[tuple[Kept, Buffer]] = []
        self.sums: dict[Node, Buffer] = {}  # of reductions across the rows, with a place for every element

    def keep(self, kept: Sequence[Kept]) -> None:
        """Make room in scratch for values that several sweeps need: of a row, or of all in a vector loop."""
        box = self.plan.rows
        beside = () if box.vector is None else (box.width,)
        for value in kept:
            node = value.place.node
            self.kept.append((value, self.scope.alloc("kept", node.dtype, (value.place.size, *beside))))

    def _kept_at(self, row: Expr, place: Expr) -> tuple[Expr, ...]:
        """Where the kept value of an element is."""
        box = self.plan.rows
        if box.vector is None:
            return (place,)
        begin = ix.mul(ix.mod(self.frame.task(), box.inner.tasks), box.inner.block)
        beside = ix.sub(ix.unflatten(row, box.dims)[box.vector], begin)
        return (place, ix.mod(beside, box.piece) if box.piece else beside)

    def write(self, task: Expr) -> None:
        """The loops over the rows of a task, with all sweeps and what is stored once a row."""
        with enter(self.scope, self.plan.rows, task) as first:
            for offset in self.plan.rows.offsets:
                row = ix.add(first, offset)
                for sweep in self.rows.sweeps:
                    self.sweep(sweep, row)
                self.scalars(row)

    def sweep(self, sweep: Sweep, row: Expr) -> None:
        """One pass over the elements of a row; afterwards its reductions have values."""
        for node, total in zip(sweep.reductions, self.totals(sweep, row), strict=True):
            value = self.scope.let(load(total, ()), "sum")
            self.evaluator.bind(node, ix.unflatten(row, node.shape), value)

    def totals(self, sweep: Sweep, row: Expr, part: Expr = ZERO) -> list[Buffer]:
        """Accumulate the reductions over the elements (of a part) of a row, and store the sweep's outputs."""
        totals = [self.accumulator(node) for node in sweep.reductions]
        if sweep.size:
            box = self.plan.elements[sweep.size]
            if self._vector_outside(box):
                self._pass_by_lanes(sweep, row, totals, box)
            else:
                with enter(self.scope, box, part) as place:
                    for offset in box.offsets:
                        self.body(sweep, row, ix.add(place, offset), totals)
        return totals

    def _vector_outside(self, box: Box) -> bool:
        """Short contiguous runs, many of them: keep a sum for each lane over all runs."""
        if box.vector is None or box.tasks > 1 or prod(box.dims) == box.dims[box.vector]:
            return False
        return box.dims[box.vector] <= box.lanes

    def _pass_by_lanes(self, sweep: Sweep, row: Expr, totals: list[Buffer], box: Box) -> None:
        vector = Box((box.dims[box.vector],), 0, box.lanes, inner=box.inner)  # type: ignore[index]
        with enter(self.scope, vector) as lane:
            parts = [self.accumulator(node) for node in sweep.reductions]
            serial = [box.dims[d] for d in box.serial]
            with enter(self.scope, Box(tuple(serial))) as rest:
                digits = list(ix.unflatten(rest, serial))
                digits.insert(box.vector, lane)  # type: ignore[arg-type]
                self.body(sweep, row, ix.flatten(digits, box.dims), parts)
            for node, part, total in zip(sweep.reductions, parts, totals, strict=True):
                how = self.rows.rules[node].combine
                self.scope.put(Accumulate(total, (), how, load(part, ())))

    def accumulator(self, node: Node) -> Buffer:
        """A scalar that starts at the neutral element of a reduction."""
        total = self.scope.alloc("acc", node.dtype, (), "local")
        start = identity_of(self.rows.rules[node].combine, node.dtype)
        self.scope.put(Store(total, (), start))
        return total

    def body(
        self, sweep: Sweep, row: Expr, place: Expr, totals: list[Buffer], at: tuple[Expr, ...] = ()
    ) -> None:
        """What happens at one element: all values first, then sums and stores."""
        rules = self.rows.rules
        number = self.rows.sweeps.index(sweep)
        self._recall(number, row, place)
        values = self.rows.terms(self.evaluator, sweep, row, place)
        stores = []
        for output in sweep.outputs:
            position = output.position(row, place)
            value = self.evaluator.value(output.node, ix.unflatten(position, output.node.shape))
            stores.append((output.node, position, value))
        self._remember(number, row, place)
        places = [at] * len(sweep.reductions) + [(place,)] * len(sweep.across)
        sums = [*totals, *[self.sums[node] for node in sweep.across]]
        for node, total, where, value in zip(
            (*sweep.reductions, *sweep.across), sums, places, values, strict=True
        ):
            if not _is_neutral(value, identity_of(rules[node].combine, node.dtype)):
                self.scope.put(Accumulate(total, where, rules[node].combine, value))
        for node, position, value in stores:
            self.frame.store(self.scope, node, position, value)

    def _recall(self, number: int, row: Expr, place: Expr) -> None:
        """Read what earlier sweeps have kept."""
        for value, buffer in self.kept:
            if number in value.later:
                node = value.place.node
                index = ix.unflatten(value.place.position(row, place), node.shape)
                self.evaluator.bind(
                    node, index, self.scope.let(load(buffer, self._kept_at(row, place)), "kept")
                )

    def _remember(self, number: int, row: Expr, place: Expr) -> None:
        """Keep values for later sweeps."""
        for value, buffer in self.kept:
            if number == value.first:
                node = value.place.node
                index = ix.unflatten(value.place.position(row, place), node.shape)
                kept = self.evaluator.value(node, index)
                self.scope.put(Store(buffer, self._kept_at(row, place), kept))

    def scalars(self, row: Expr) -> None:
        """Store the outputs with one value per row."""
        values = []
        for output in self.rows.scalars:
            position = output.position(row, ZERO)
            value = self.evaluator.value(output.node, ix.unflatten(position, output.node.shape))
            values.append((output.node, position, value))
        for node, place, value in values:
            self.frame.store(self.scope, node, place, value)


def _is_neutral(value: Expr, neutral: Const) -> bool:
    """Whether combining with `value` changes nothing (a tap outside the windows)."""
    return isinstance(value, Const) and value.value == neutral.value
