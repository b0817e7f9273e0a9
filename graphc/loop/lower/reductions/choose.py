"""Choosing the loops of a group with reductions: factors of rows and elements, vectors, number of tasks."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from graphc.ir.partition import Group
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Var
from graphc.loop.lower import cost
from graphc.loop.lower.box import Box, make_box
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import (
    PHASES,
    ROUNDS,
    Footprint,
    Grid,
    Index,
    collapse,
    divisions,
    lanes_for,
    refine,
    variables,
)
from graphc.loop.lower.reductions.rows import Rows, Tracer
from graphc.loop.lower.reductions.sweeps import Plan
from graphc.loop.lower.scope import Scope
from graphc.program import LINE, Machine

STREAM_WIDE = 8  # with more vectors of rows than this, columns are added up in cache, row by row of memory
STREAM_DEEP = 32  # least elements of a column for that
RUN_LINES = 8  # least cache lines of a piece's run: of fewer, most are read before they can be foreseen
RUN_VECTORS = 4  # least vectors of it: what rows carry along is read and written for every element
PART_ROWS = 8  # least rows of a task that leaves sums across them: these are written and read again
UNROLLED = 16  # windows of no more elements are written out, element by element
UNROLLED_LETS = 400  # unless that makes a body of more values than this
LANE_STEP = 3  # operations of halving a vector whose lanes are added up: move, add, wait
ROWS = -1  # where a table by row size holds what belongs to the rows themselves


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
    longest = 0
    for sweep in rows.sweeps:
        before = len(scope.block)
        place = ix.flatten(names[sweep.size], rows.dims[sweep.size]) if sweep.size else ix.ZERO
        for value in rows.terms(tracer, sweep, row, place):
            found.add_value(value)
        for output in sweep.outputs:
            position = output.position(row, place)
            tracer.value(output.node, ix.unflatten(position, output.node.shape))
            found.places.append((position, output.node.dtype.itemsize))
        longest = max(longest, len(scope.block) - before)
    for output in rows.scalars:
        position = output.position(row, ix.ZERO)
        tracer.value(output.node, ix.unflatten(position, output.node.shape))
        found.places.append((position, output.node.dtype.itemsize))
    found.add_block(scope.block)
    found.lets = longest
    return found


def choose(rows: Rows, found: Footprint, group: Group, machine: Machine) -> Plan:
    """Vectors along the elements or across the rows, and the cut into tasks."""
    width = machine.lanes(cost.widest((*group.inputs, *group.outputs)))
    most = cost.vectors_wanted(found.lets)
    wanted = cost.tasks_wanted(cost.flops(group) + cost.traffic(group))
    if rows.across:
        wanted = max(1, min(wanted, rows.count // PART_ROWS))
    inner = {s: _best(d, found, found.names[s], width) for s, d in rows.dims.items()}
    outer = _best(rows.shape, found, found.names[ROWS], width)
    size = max(rows.dims, default=0)
    along = size and _waste(rows.dims[size], found, found.names[size], inner[size], width) <= _waste(
        rows.shape, found, found.names[ROWS], outer, width
    )
    short = size <= UNROLLED and size * found.lets <= UNROLLED_LETS
    along = along and not (short and _too_short(rows, found, outer, width))
    if along or rows.across:
        box = make_box(rows.shape, None, 1, wanted)
        boxes = {s: make_box(d, inner[s], lanes_for(d[inner[s]], width, most)) for s, d in rows.dims.items()}
    else:
        unroll = _phases(rows, found, outer) if short else ()
        lanes = lanes_for(rows.shape[outer], width, cost.vectors_wanted(found.lets * (size if short else 1)))
        box = make_box(rows.shape, outer, lanes, wanted, unroll)
        boxes = {s: Box(d, unroll=tuple(range(len(d))) if short else ()) for s, d in rows.dims.items()}
    if rows.across:
        return Plan("crossing", box, boxes)
    name = "rows" if along else "columns"
    if len(rows.sweeps) == 1 and size and rows.sweeps[0].reductions:
        if not along and size >= STREAM_DEEP and _are_wide(rows, outer, width, group, machine):
            name, box = "stream", _around_columns(rows.shape, box.lanes, wanted)
        elif along and _are_runs(rows, found, size, inner[size], machine):
            return _in_runs(rows, size, boxes[size], width, wanted)
        splits = wanted // box.tasks
        if splits > 1:
            old = boxes[size]
            boxes[size] = make_box(old.dims, old.vector, old.lanes, splits)
            return Plan(name, box, boxes, boxes[size].tasks)
    elif not (along or short) and (wide := _in_pieces(rows, box, group, machine)):
        name, box = "pieces", wide
    return Plan(name, box, boxes)


def _in_pieces(rows: Rows, box: Box, group: Group, machine: Machine) -> Box | None:
    """Loops over columns that come from memory, cut into pieces of which half of the second cache holds all
    that is swept; None if runs of a piece's width would be too short."""
    size, values = max(rows.dims, default=0), (*group.inputs, *group.outputs)
    items = [n.dtype.itemsize for n in values if n.type.size == rows.count * size]
    if not items or box.vector != len(rows.shape) - 1 or cost.traffic(group) <= machine.l2_bytes:
        return None
    most = machine.l2_bytes // 2 // (size * (sum(items) + max(items)))  # and one value that is kept
    block = box.inner.block
    if box.inner.size % block:  # equal pieces only: of others, index arithmetic does not know where they end
        return None
    widths = [w for w in range(box.lanes, min(most, block) + 1, box.lanes) if block % w == 0]
    if not widths or widths[-1] < max(RUN_VECTORS * box.lanes, RUN_LINES * LINE // max(items)):
        return None
    return replace(box, piece=widths[-1] if widths[-1] < block else 0)


def _are_wide(rows: Rows, vector: int, width: int, group: Group, machine: Machine) -> bool:
    """Whether columns are so many that they are better added up row by row of memory: of several matrices, if
    these do not come from the second cache, where the order of reading matters little, and no element is in
    several columns, as it is in several windows (then most are in the first cache)."""
    if len(rows.shape) > 1:
        once = rows.count * max(rows.dims) <= max([x.type.size for x in group.inputs], default=0)
        if not once or vector != len(rows.shape) - 1 or cost.traffic(group) <= machine.l2_bytes:
            return False
    return rows.shape[vector] >= STREAM_WIDE * width


def _around_columns(shape: Shape, lanes: int, wanted: int) -> Box:
    """Columns of matrices, of which a task has a few: it does not cut their rows."""
    matrices = make_box(shape[:-1], None, 1, wanted)
    whole = Grid(shape[-1], shape[-1])
    return Box(shape, len(shape) - 1, lanes, matrices.lead, matrices.outer, whole)


def _are_runs(rows: Rows, found: Footprint, size: int, vector: int, machine: Machine) -> bool:
    """Whether rows are runs between which those of the other rows lie, of arrays too large for the second
    cache: from further away memory comes fastest in its order."""
    dims, names = rows.dims[size], found.names[size]
    (sweep,) = rows.sweeps
    item = max(n.inputs[0].dtype.itemsize for n in sweep.reductions)
    if len(rows.shape) != 1 or len(dims) < 2 or vector != len(dims) - 1:
        return False
    sums = rows.count * item * len(sweep.reductions)
    if rows.count * size * item <= machine.l2_bytes or 4 * sums > machine.l2_bytes:
        return False
    row, run = found.names[ROWS][0], names[-1]
    if not isinstance(row, Var) or not isinstance(run, Var):
        return False
    steps = {(found.step(p, row), found.step(p, run)) for p, _ in found.places}
    return (dims[-1], 1) in steps and steps <= {(dims[-1], 1), (1, 0), (0, 1), (0, 0)}


def _in_runs(rows: Rows, size: int, elements: Box, width: int, wanted: int) -> Plan:
    """Runs of all rows in the order of memory, cut into tasks."""
    dims, run = elements.dims, elements.dims[-1]
    around = make_box(dims[:-1], None, 1, wanted)  # tasks do not cut a run
    elements = Box(dims, len(dims) - 1, elements.lanes, around.lead, around.outer, Grid(run, run))
    every_row = make_box(rows.shape, 0, lanes_for(rows.count, width, 1))
    return Plan("runs", every_row, {size: elements}, elements.tasks)


def _too_short(rows: Rows, found: Footprint, outer: int, width: int) -> bool:
    """Whether rows are so short that adding up the lanes of vectors along them takes longer than picking the
    elements of a vector across them one by one: the first is done once for a reduction, in steps that wait
    for each other, the second for every element."""
    var = found.names[ROWS][outer]
    if len(rows.dims) != 1 or rows.shape[outer] < width or not isinstance(var, Var):
        return False
    (size,) = rows.dims
    strided = sum(found.step(place, var) not in (0, 1) for place in {p: None for p, _ in found.places})
    reductions = sum(len(sweep.reductions) for sweep in rows.sweeps)
    along = -(-size // width) * found.lets + reductions * LANE_STEP * (width - 1).bit_length()
    across = size * found.lets / width + size * strided
    return across < along


def _phases(rows: Rows, found: Footprint, vector: int) -> tuple[int, ...]:
    """Small factors of the rows that select window taps: with a constant there, most taps drop out."""
    divided = {v for atom, _ in divisions(found.expressions) for v in ix.variables(atom)}
    small = [
        d
        for d, (extent, var) in enumerate(zip(rows.shape, found.names[ROWS], strict=True))
        if d != vector and extent <= PHASES and var in divided
    ]
    return tuple(small) if prod([rows.shape[d] for d in small]) <= UNROLLED else ()


def _waste(dims: Shape, found: Footprint, names: Index, d: int, width: int) -> tuple[float, ...]:
    """How badly vectors over factor `d` do: strided accesses, then empty lanes."""
    var, extent = names[d], dims[d]
    if not isinstance(var, Var):
        return (1e9, 1.0)
    strided = 0.0
    for place, _ in dict.fromkeys(found.places):
        if found.step(place, var) not in (0, 1):
            strided += _share(place, found)
    filled = extent / (-(-extent // width) * width)
    return (strided + (2.0 if extent < 4 else 0.0), -min(filled, 0.5))


def _share(place: Expr, found: Footprint) -> float:
    """For how many elements of a row, of all, a place is read or written: once a row, unless it depends on
    the element."""
    size = max(found.names, default=ROWS)
    swept = {v for s, names in found.names.items() if s != ROWS for v in names}
    follows = any(v in swept or not swept.isdisjoint(found.sources.get(v, ())) for v in ix.variables(place))
    return 1.0 if follows or size < 1 else 1.0 / size


def _best(dims: Shape, found: Footprint, names: Index, width: int) -> int:
    """The factor that vectors should run over (the innermost of the best)."""
    return min(reversed(range(len(dims))), key=lambda d: _waste(dims, found, names, d, width))
