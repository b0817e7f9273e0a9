"""What a group with reductions is made of: rows, sweeps over a row, and where each output lies in them.

All reductions of such a group give one value per *row* (the kept axes, flattened); each row is swept once
or more: a sweep computes the reductions whose operands need only earlier sweeps, and stores the outputs
that run over the row's elements. Softmax is three sweeps of one row, LayerNorm three, a bias gradient one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from graphc.ir.graph import depending
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Expr, Local, Var
from graphc.loop.lower.evaluate import Evaluator, LoweringError, Want
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Index, refine, variables
from graphc.loop.lower.reductions.crossing import across_rows
from graphc.loop.lower.scope import Scope
from graphc.ops.op import Reduction


@dataclass(frozen=True)
class Digit:
    """A factor of a position: coefficient * ((flat // stride) % extent) of the row or the element."""

    of_row: bool
    stride: int
    extent: int
    coefficient: int


@dataclass(frozen=True, eq=False)
class Placed:
    """An output with an element for every element of a row, and its position there."""

    node: Node
    size: int  # elements of a row
    digits: tuple[Digit, ...]

    def position(self, row: Expr, element: Expr) -> Expr:
        total: Expr = ZERO
        rows = prod([d.extent for d in self.digits if d.of_row])
        for d in self.digits:
            value = ix.floordiv(row if d.of_row else element, d.stride)
            if d.stride * d.extent < (rows if d.of_row else self.size):
                value = ix.mod(value, d.extent)  # the leading digit needs none
            total = ix.add(total, ix.mul(value, d.coefficient))
        return total


@dataclass(eq=False)
class Sweep:
    """One pass over `size` elements of a row. `across` are the reductions across the rows that it feeds."""

    level: int
    size: int
    reductions: list[Node] = field(default_factory=list)
    across: list[Node] = field(default_factory=list)
    outputs: list[Placed] = field(default_factory=list)


@dataclass(eq=False)
class Rows:
    """The whole group: sweeps in order, then outputs with one value per row."""

    count: int
    shape: Shape  # a factorisation of the rows
    sweeps: list[Sweep]
    scalars: list[Placed]
    dims: dict[int, Shape]  # a factorisation of the elements, for each size of a row
    rules: dict[Node, Reduction]

    @property
    def across(self) -> list[Node]:
        """The reductions across the rows."""
        return [n for sweep in self.sweeps for n in sweep.across]

    def terms(self, evaluator: Evaluator, sweep: Sweep, row: Expr, place: Expr) -> list[Expr]:
        """What the reductions of a sweep, then those across the rows, combine at one element of a row."""
        along = [element(evaluator, n, self.rules[n], row, place) for n in sweep.reductions]
        return along + [element(evaluator, n, self.rules[n], place, row) for n in sweep.across]


class Tracer(Evaluator):
    """Evaluates with placeholders for reductions, noting where they and the outputs are read."""

    def __init__(self, scope: Scope, frame: Frame) -> None:
        super().__init__(scope, frame.group.inputs, frame.buffer)
        self.reads: dict[Node, list[Expr]] = {}
        self.met: dict[Node, list[Expr]] = {}
        self.outputs = frozenset(frame.group.outputs)

    def computed(self, node: Node, index: Index, value: Expr) -> None:
        if node in self.outputs:
            self.met.setdefault(node, []).append(ix.flatten(index, node.shape))

    def unbound(self, want: Want) -> Expr:
        if want.node.kind is not Kind.REDUCE:
            return super().unbound(want)
        self.reads.setdefault(want.node, []).append(ix.flatten(want.at, want.node.shape))
        return Local(want.node.dtype, "reduced")


def analyse(frame: Frame) -> Rows:
    """Rows and sweeps of a group. LoweringError if its reductions do not share rows."""
    group = frame.group
    rules = {n: n.op.lower(n) for n in group.nodes if n.kind is Kind.REDUCE}  # type: ignore[misc]
    across = across_rows(rules)
    elsewhere = depending(group.nodes, across)
    reductions = [n for n in rules if n not in across]
    if not elsewhere.isdisjoint(reductions):
        raise LoweringError("rows need what is added up across them")
    count = reductions[0].type.size
    if any(n.type.size != count for n in reductions):
        raise LoweringError("reductions of one group differ in their number of rows")
    shape = max((n.shape for n in reductions), key=len)
    levels = _levels(group, reductions)
    sweeps: dict[tuple[int, int], Sweep] = {}
    placed: dict[Node, Placed] = {}
    rows = Rows(count, shape, [], [], {}, rules)
    for node in reductions:
        size = prod(rules[node].extents)
        sweeps.setdefault((levels[node] - 1, size), Sweep(levels[node] - 1, size)).reductions.append(node)
        if size:
            rows.dims[size] = max(rows.dims.get(size, ()), rules[node].extents, key=len)
        placed |= _met_by(node, rows, frame, placed)
    for node in group.outputs:
        if node in elsewhere:
            continue
        if node.type.size == count and node not in placed:
            rows.scalars.append(of_row(node, rows, frame))
            continue
        at = placed.get(node) or _by_its_reductions(node, rows, frame)
        key = (levels[node], at.size)
        sweeps.setdefault(key, Sweep(*key)).outputs.append(at)
        rows.dims.setdefault(at.size, (at.size,))
    for node in across:
        fitting = [k for k in sweeps if k[0] >= levels[node] and k[1] == node.type.size]
        key = min(fitting, default=(levels[node], node.type.size))
        sweeps.setdefault(key, Sweep(*key)).across.append(node)
    rows.sweeps = [sweeps[key] for key in sorted(sweeps)]
    return rows


_probed: dict[Group, tuple[Frame, Rows]] = {}  # found by `probe`, not lowered yet
_MOST_PROBED = 1024


def probe(group: Group) -> None:
    """Find the rows of a group that is to be lowered soon. LoweringError if its reductions share none."""
    frame = Frame(group)
    rows = analyse(frame)
    if len(_probed) >= _MOST_PROBED:  # of partitions that were not lowered
        _probed.clear()
    _probed[group] = frame, rows


def rows_of(group: Group) -> tuple[Frame, Rows]:
    """A frame for the group, and its rows, for the caller to change. LoweringError as `probe`."""
    known = _probed.pop(group, None)
    if known is None:
        frame = Frame(group)
        known = frame, analyse(frame)
    return known


def _levels(group: Group, reductions: Sequence[Node]) -> dict[Node, int]:
    """How many sweeps must be over before each node can be computed anywhere."""
    levels: dict[Node, int] = dict.fromkeys(group.inputs, 0)
    members = set(reductions)
    for node in group.nodes:
        level = max([levels.get(x, 0) for x in node.inputs], default=0)
        levels[node] = level + 1 if node in members else level
    return levels


def _met_by(reduction: Node, rows: Rows, frame: Frame, known: dict[Node, Placed]) -> dict[Node, Placed]:
    """The outputs that a reduction's element reads, one of them for each of its elements."""
    rule = rows.rules[reduction]
    kept, swept = variables("k", rows.shape), variables("r", rule.extents)
    scope = Scope()
    tracer = Tracer(scope, frame)
    row = ix.flatten(kept, rows.shape)
    element(tracer, reduction, rule, row, ix.flatten(swept, rule.extents))
    for other, places in tracer.reads.items():
        if any(place is not row for place in places):
            raise LoweringError(f"{reduction!r} reads {other!r} of another row")
    found = {}
    for node, places in tracer.met.items():
        if node in known or node.type.size != rows.count * prod(rule.extents):
            continue
        digits = mixed_radix(places[0], kept, rows.shape, swept, rule.extents)
        if digits is not None:
            found[node] = Placed(node, prod(rule.extents), digits)
    return found


def element(evaluator: Evaluator, node: Node, rule: Reduction, row: Expr, place: Expr) -> Expr:
    """The element number `place` of row `row` that a reduction combines."""

    def reader(x: Node) -> Callable[..., Expr]:
        return lambda index, mask=None, other=None: evaluator.value(x, index, mask, other)

    index = ix.unflatten(row, node.shape)
    return rule.element(index, ix.unflatten(place, rule.extents), [reader(x) for x in node.inputs])


def mixed_radix(
    place: Expr, kept: Index, kept_dims: Shape, swept: Index, swept_dims: Shape
) -> tuple[Digit, ...] | None:
    """`place` as digits of the row and the element, if it runs over every position exactly once."""
    at: dict[Expr, tuple[bool, int, int]] = {}
    for of_row, names, dims in ((True, kept, kept_dims), (False, swept, swept_dims)):
        stride = 1
        for var, extent in zip(reversed(names), reversed(dims), strict=True):
            if isinstance(var, Var):
                at[var] = (of_row, stride, extent)
            stride *= extent
    sums = ix.form(place)
    if sums.constant or len(sums.terms) != len(at) or any(v not in at for v, _ in sums.terms):
        return None
    digits = [Digit(*at[v], coefficient) for v, coefficient in sums.terms]
    step = 1
    for digit in reversed(digits):
        if digit.coefficient != step:
            return None
        step *= digit.extent
    return tuple(digits)


def of_row(node: Node, rows: Rows, frame: Frame) -> Placed:
    """Place an output with one value per row: its axes may stand in another order than the rows'."""
    if _rows_read(node, node.shape, frame)[1]:
        return _by_its_reductions(node, rows, frame)
    return Placed(node, 1, (Digit(True, 1, rows.count, 1),))


def _rows_read(node: Node, dims: Shape, frame: Frame) -> tuple[Index, list[Expr]]:
    """Loop variables over `dims`, and the rows at which `node` there reads the group's reductions."""
    names = variables("x", dims)
    tracer = Tracer(Scope(), frame)
    tracer.value(node, ix.unflatten(ix.flatten(names, dims), node.shape))
    return names, list(dict.fromkeys(p for reads in tracer.reads.values() for p in reads))


def _by_its_reductions(node: Node, rows: Rows, frame: Frame) -> Placed:
    """Place an output by the row at which it reads the group's reductions."""
    dims: Shape = node.shape
    for _ in range(4):
        names, places = _rows_read(node, dims, frame)
        finer = refine(dims, names, places)
        if finer == dims:
            break
        dims = finer
    if len(places) != 1:
        raise LoweringError(f"{node!r} reads {len(places)} different rows")
    coefficients = dict(ix.form(places[0]).terms)
    step = 1
    for var, coefficient in sorted(coefficients.items(), key=lambda t: t[1]):
        if var not in names or coefficient != step:
            raise LoweringError(f"{node!r} does not run over whole rows")
        step *= var.extent  # type: ignore[attr-defined]
    if step != rows.count:
        raise LoweringError(f"{node!r} does not run over all rows")
    digits, position, stride = [], 1, 1
    for var, extent in zip(reversed(names), reversed(dims), strict=True):
        if var in coefficients:
            digits.append(Digit(True, coefficients[var], extent, position))
        elif extent != 1:
            digits.append(Digit(False, stride, extent, position))
            stride *= extent
        position *= extent
    return Placed(node, stride, tuple(reversed(digits)))
