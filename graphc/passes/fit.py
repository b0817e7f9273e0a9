"""Which nodes one loop nest can compute together. Mirrors what `graphc/loop/lower` can do.

A *point* cluster is one loop over the elements of its members, which all have the same number of them in
the same row-major order, or put several such members side by side. An *anchor* cluster is a contraction and
point members on its result, or members that cut its result into gates and keep to its cells (`cells.py` of
the lowering). A *row* cluster has reductions that keep the same axes: each member has a value per row or per
element of a row, its row axes are known, and a value of a row is only read in that row.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.types import Shape
from graphc.loop.lower.contraction.cells import Cells, concat_cells, cut, stays_inside
from graphc.passes.alignment import Axes, follow, follow_reshape, proper
from graphc.passes.roles import ANCHORS, OWN, Roles, sources_of
from graphc.program import PAGE, Machine

SMALL = 1 << 15  # elements that one task may sweep alone
ROWS = 8  # fewer rows than this are too few tasks for a big sweep
COLUMNS = 32  # neighbouring columns that are walked together
LIMIT = 96  # most members of a cluster: bounds compile time
READ = (
    24  # most values read beside a contraction: its tiles' rows are unrolled, so code is many times as long
)


class _Bad:
    """The rows of an operand cannot be followed."""


BAD = _Bad()
Where = Axes | None | _Bad  # row axes; None: does not depend on the cluster


@dataclass(frozen=True, eq=False)
class Fit:
    """What is known of a cluster: see the module's text.

    axes      row axes of each member (all proper axes in point and anchor clusters)
    level     how many sweeps must be over before a member's value is known
    spaces    (shape, row axes) that the reductions run over
    inlined   members with one reader, computed where they are read
    cells     of an anchor or point cluster whose members have different sizes
    """

    kind: Literal["point", "anchor", "row", "own"]
    size: int
    axes: dict[Node, Axes]
    level: dict[Node, int] = field(default_factory=dict)
    spaces: frozenset[tuple[Shape, Axes]] = frozenset()
    inlined: frozenset[Node] = frozenset()
    cells: Cells | None = None

    def rows_along(self) -> tuple[int, int] | None:
        """(rows, elements of a row) of a row cluster that reduces trailing axes; None if it does not."""
        return self._rows(True)

    def rows_across(self) -> tuple[int, int] | None:
        """(rows, elements of a row) of a row cluster that reduces leading axes, across these rows, and has
        nothing to do with the elements afterwards; None if it does not."""
        after = any(level and m.type.size > self.size for m, level in self.level.items())
        return None if after or max(self.level.values(), default=0) != 1 else self._rows(False)

    def _rows(self, along: bool) -> tuple[int, int] | None:
        found = set()
        for shape, kept in self.spaces:
            reduced = tuple([a for a in proper(shape) if a not in kept])
            if not kept or not reduced or proper(shape) != (kept + reduced if along else reduced + kept):
                return None
            found.add((prod([shape[a] for a in kept]), prod([shape[a] for a in reduced])))
        if self.kind != "row" or len(found) != 1:
            return None
        ((count, size),) = found
        return (count, size) if along else (size, count)


class Fitter:
    """Decides what fits, for one graph and machine."""

    def __init__(
        self, graph: Graph, roles: Roles, machine: Machine, alone: AbstractSet[Node] = frozenset()
    ) -> None:
        """`alone` names nodes that share loops with no other member."""
        self.graph, self.roles, self.machine, self.alone = graph, roles, machine, alone
        self.sources = {n: sources_of(n, roles) for n in graph.nodes if roles.is_member(n)}
        self.readers: dict[Node, list[Node]] = {}
        for node, sources in self.sources.items():
            for s in sources:
                self.readers.setdefault(s, []).append(node)

    # ------------------------------------------------------------------- single nodes

    def start(self, node: Node) -> Fit:
        """The cluster of one node."""
        if node.kind in OWN or node.op.name == "reshape" or node in self.alone:
            return Fit("own", node.type.size, {node: ()})
        whole = {node: proper(node.shape)}
        if node.kind in ANCHORS:
            return Fit("anchor", node.type.size, whole)
        if node.kind is not Kind.REDUCE:
            return Fit("point", node.type.size, whole)
        kept = kept_axes(node)
        spaces = frozenset() if kept is None else frozenset({(node.inputs[0].shape, kept)})
        return Fit("row", node.type.size, whole, {node: 1}, spaces)

    def where(self, node: Node, axes: dict[Node, Axes], fit: Fit) -> Where:
        """The axes of `node` that are rows, given those of some values it depends on through free nodes."""
        known: dict[Node, Where] = {}
        stack = [node]
        while stack:
            n = stack[-1]
            if n in known:
                stack.pop()
                continue
            if n in axes:
                known[n] = axes[n]
            elif n not in self.roles.free and n not in fit.inlined:
                known[n] = None
            else:
                waiting = [x for x in n.inputs if x not in known]
                if waiting:
                    stack.extend(waiting)
                    continue
                known[n] = _combine(n, known)
            stack.pop()
        return known[node]

    # --------------------------------------------------------------------- admission

    def admit(self, fit: Fit, node: Node, sibling: bool = False) -> Fit | None:
        """The cluster with one more member, after all others; None if it does not fit.

        With `sibling`, a node that shares no value with the cluster may join it.
        """
        if fit.kind == "own" or node.kind in ANCHORS or node.kind in OWN or node.op.name == "reshape":
            return None
        if node in self.alone:
            return None
        if len(fit.axes) + len(fit.inlined) >= LIMIT or not node.type.size:
            return None
        if node.kind is Kind.REDUCE:
            return self._admit_reduction(fit, node)
        if fit.kind == "anchor" and self._reads(fit, node) > READ:
            return None
        known = {x: self.where(x, fit.axes, fit) for x in node.inputs}
        place = _combine(node, known)
        if place is None and sibling and fit.kind != "row" and node.type.size == fit.size:
            place = proper(node.shape)
        if fit.kind != "row" and place == proper(node.shape) and node.type.size == fit.size:
            return replace(fit, axes={**fit.axes, node: place})
        if fit.kind == "anchor":
            return self._admit_to_cells(fit, node, sibling)
        if fit.kind == "point":
            return self._admit_parts(fit, node)
        if place is None or isinstance(place, _Bad) or fit.kind != "row":
            return None
        level = self._level(fit, node)
        if level and node.type.size > fit.size and not self._keeps(fit.size, node, place):
            return None
        return replace(fit, axes={**fit.axes, node: place}, level={**fit.level, node: level})

    def _reads(self, fit: Fit, node: Node) -> int:
        """How many values a cluster reads with one more member."""
        sources = {s for member in (*fit.axes, node) for s in self.sources[member]}
        return len(sources - fit.axes.keys())

    def _admit_to_cells(self, fit: Fit, node: Node, sibling: bool) -> Fit | None:
        """An anchor cluster with a member of another size, or that reads gates of the result."""
        (anchor,) = (n for n in fit.axes if n.kind in ANCHORS)
        cells = fit.cells or cut(anchor, min(node.type.size, anchor.type.size))
        members = [s for s in self.sources[node] if s in fit.axes]
        if cells is None or not (members or (sibling and fit.cells)) or not self._in_gates(cells, members):
            return None
        outside = [n for n in self._cone(node, fit) if n not in fit.axes]
        if not stays_inside(node, cells, members, outside):
            return None
        return replace(fit, axes={**fit.axes, node: proper(node.shape)}, cells=cells)

    def _admit_parts(self, fit: Fit, node: Node) -> Fit | None:
        """A point cluster with a member that puts parts together which the cluster computes."""
        cells = concat_cells(node)
        if cells is None or fit.cells not in (None, cells) or cells.outer * cells.inner != fit.size:
            return None
        members = [s for s in self.sources[node] if s in fit.axes]
        if len(members) < 2:
            return None
        outside = [n for n in self._cone(node, fit) if n not in fit.axes]
        if not stays_inside(node, cells, members, outside):
            return None
        return replace(fit, axes={**fit.axes, node: ()}, cells=cells)

    def _in_gates(self, cells: Cells, values: Iterable[Node]) -> bool:
        """Whether all who read values of several gates may compute cell by cell; else these are stored
        anyway, and a reader of parts gains little."""
        wide = [v for v in values if cells.gates(v) != 1]
        readers = [r for v in wide for r in self.readers.get(v, ())]
        return all(r.kind is Kind.ELEMENTWISE and cells.gates(r) is not None for r in readers)

    def _cone(self, node: Node, fit: Fit) -> list[Node]:
        """The values that `node` follows from through free, inlined and cluster members."""
        found: dict[Node, None] = {}
        seen, stack = {node}, [node]
        while stack:
            for s in self.sources[stack.pop()]:
                if s not in seen:
                    seen.add(s)
                    found[s] = None
                    if s in fit.inlined or s in fit.axes:
                        stack.append(s)
        return [n for n in found if n not in fit.inlined]

    def _admit_reduction(self, fit: Fit, node: Node) -> Fit | None:
        kept = kept_axes(node)
        if kept is None or fit.kind == "anchor" or fit.cells is not None:
            return None
        x = node.inputs[0]
        place = self.where(x, fit.axes, fit)
        if fit.kind == "point":
            if place != proper(x.shape):
                return None
            moved = {m: follow_reshape(x.shape, m.shape, kept) for m in fit.axes}
            if None in moved.values():
                return None
            rows = {m: axes for m, axes in moved.items() if axes is not None}
            fit = Fit("row", node.type.size, rows, dict.fromkeys(rows, 0), inlined=fit.inlined)
        elif node.type.size != fit.size:
            return None
        elif place is None:
            if (x.shape, kept) not in fit.spaces:
                return None
        elif place != kept:
            return None
        level = self._level(fit, node)
        if level and not self._keeps(fit.size, x, kept):
            return None
        return replace(
            fit,
            axes={**fit.axes, node: proper(node.shape)},
            level={**fit.level, node: level + 1},
            spaces=fit.spaces | {(x.shape, kept)},
        )

    def _level(self, fit: Fit, node: Node) -> int:
        """Sweeps that must be over before the operands of `node` are known."""
        if not fit.inlined:
            return max((fit.level.get(s, 0) for s in self.sources[node]), default=0)
        level, pending, seen = 0, [node], {node}
        while pending:
            for s in self.sources[pending.pop()]:
                level = max(level, fit.level.get(s, 0))
                if s in fit.inlined and s not in seen:
                    seen.add(s)
                    pending.append(s)
        return level

    def _keeps(self, rows: int, swept: Node, axes: Axes) -> bool:
        """Whether sweeping the rows of `swept` (whose row axes are given) once more beats another kernel.

        A sweep reads what another kernel would read, and stores nothing in between; but a kernel of its own
        can cut few rows into parts, and can walk columns, or rows of short runs, in the order of memory.
        """
        elements = swept.type.size
        if elements <= SMALL:
            return True
        if rows < ROWS:
            return False
        columns = bool(axes) and axes[-1] == proper(swept.shape)[-1]
        panel = 2 * elements // rows * COLUMNS * swept.dtype.itemsize
        if columns:
            return panel <= self.machine.l2_bytes // 2
        return not self._runs_from_memory(swept, axes)

    def _runs_from_memory(self, swept: Node, axes: Axes) -> bool:
        """Whether rows are runs that end before hardware fetches ahead well, of so large a value that it and
        its gradient are no longer in the last cache when the next kernel reads them."""
        if not axes or axes[0] == proper(swept.shape)[0]:
            return False
        run = prod(swept.shape[axes[-1] + 1 :]) * swept.dtype.itemsize
        return run < PAGE and 4 * swept.type.nbytes >= self.machine.l3_bytes

    # ----------------------------------------------------------------------- clusters

    def inline(self, part: Fit, into: Fit, members: Iterable[Node]) -> Fit:
        """`into`, with the members of a point cluster computed where they are read."""
        return replace(into, inlined=into.inlined | part.inlined | frozenset(members))

    def union(self, a: Fit, b: Fit, members: Iterable[Node]) -> Fit | None:
        """The cluster of all members of two clusters, admitted one by one; None if they do not fit."""
        inlined = a.inlined | b.inlined
        todo = sorted((m for m in members if m not in inlined), key=self.graph.index.__getitem__)
        todo.sort(key=lambda n: n.kind not in ANCHORS)  # an anchor comes first
        fit = replace(self.start(todo[0]), inlined=inlined)
        for node in todo[1:]:
            next_ = self.admit(fit, node, sibling=True)
            if next_ is None:
                return None
            fit = next_
        return fit


def kept_axes(node: Node) -> Axes | None:
    """The proper axes of its operand that a plain reduction keeps; None for other reductions (fold)."""
    axes = getattr(node.attrs, "axes", None)
    if axes is None:
        return None
    return tuple([a for a in proper(node.inputs[0].shape) if a not in axes])


def _combine(node: Node, known: dict[Node, Where]) -> Where:
    """Row axes of a node, given those of its operands: all that have some must agree."""
    result: Where = None
    for i, x in enumerate(node.inputs):
        place = known[x]
        if place is None:
            continue
        if isinstance(place, _Bad):
            return BAD
        moved = follow(node, i, place)
        if moved is None or (result is not None and moved != result):
            return BAD
        result = moved
    return result
