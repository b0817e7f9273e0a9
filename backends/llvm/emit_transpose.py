"""Transposing copies: loops in which memory is contiguous along one loop and vectors run along the other.

A vector loop over j around a serial loop over k that reads a[j*S + k] would load every vector lane by lane.
Instead, for each block of L lanes and L steps, the L rows of the block are loaded whole and transposed in
registers; the body then runs for the L steps on vectors that are already there. Stores to b[j*S + k] are
collected and transposed back likewise. The same with the loops the other way round, when their
iterations are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backends.llvm import emit_memory
from graphc.backends.llvm.emit_analysis import depends, expressions, is_pure_index
from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.emit_index import Resolve, affine
from graphc.backends.llvm.emit_memory import MAX_SHUFFLE_STRIDE, memory_element
from graphc.backends.llvm.emit_state import Entry, Scope
from graphc.ir.types import row_major_strides
from graphc.loop import ir

if TYPE_CHECKING:
    from graphc.backends.llvm.emit_loops import Statements

SHORTEST = 4  # steps of the serial loop from which a block pays


@dataclass(frozen=True, slots=True)
class Block:
    """The accesses of a serial loop's body that are transposed, and the lanes of their vectors."""

    lanes: int
    loads: tuple[ir.Load, ...]
    stores: frozenset[ir.Store]


# -------------------------------------------------------------------- analysis


def find(s: Statements, loop: ir.For, across: str, lanes: int) -> Block | None:
    """The transposed accesses of serial `loop` inside a vector loop over `across`."""
    if not all(isinstance(stmt, ir.Let | ir.Store) for stmt in loop.body):
        return None
    lets = {stmt.local.name: stmt.value for stmt in loop.body if isinstance(stmt, ir.Let)}
    names = {loop.var.name, across}
    for name, value in lets.items():
        if depends(value, names):
            names.add(name)

    def resolve(name: str) -> ir.Expr | None:
        value = lets.get(name)
        if value is not None:
            return value if is_pure_index(value) else None
        return s.state.resolve(name)

    stored = {stmt.buffer for stmt in loop.body if isinstance(stmt, ir.Store)}
    loads = {id(e): e for e in expressions(loop.body) if isinstance(e, ir.Load)}
    if any(e.buffer in stored for e in loads.values()):
        return None

    def crosses(buffer: ir.Buffer, index: tuple[ir.Expr, ...]) -> bool:
        if buffer.space == "local" or s.granule * 4 != lanes * buffer.dtype.itemsize:
            return False
        steps = _steps(buffer, index, resolve, names, (loop.var.name, across))
        return steps is not None and steps[0] == 1 and abs(steps[1]) > MAX_SHUFFLE_STRIDE

    found = tuple(e for e in loads.values() if e.mask is None and crosses(e.buffer, e.index))
    stores = frozenset(t for t in loop.body if isinstance(t, ir.Store) and crosses(t.buffer, t.index))
    return Block(lanes, found, stores) if found or stores else None


def _steps(
    buffer: ir.Buffer,
    index: tuple[ir.Expr, ...],
    resolve: Resolve,
    names: set[str],
    variables: tuple[str, str],
) -> tuple[int, int] | None:
    """How far the place moves with each of two variables; None if it is not affine in them."""
    form = affine(index, row_major_strides(buffer.shape), resolve)
    steps = dict.fromkeys(variables, 0)
    for atom, scale in form.terms.values():
        if isinstance(atom, ir.Var) and atom.name in steps:
            steps[atom.name] = scale
        elif depends(atom, names):
            return None
    return steps[variables[0]], steps[variables[1]]


def interchanged(s: Statements, outer: ir.For) -> ir.For | None:
    """A serial loop around one vector loop, turned inside out, if that makes a transposing block."""
    if len(outer.body) != 1 or not isinstance(inner := outer.body[0], ir.For) or inner.mode != "vector":
        return None
    if not isinstance(outer.extent, ir.Const) or not isinstance(inner.extent, ir.Const):
        return None
    stores = [stmt for stmt in inner.body if isinstance(stmt, ir.Store)]
    lanes = s.granule * 4 // max((stmt.buffer.dtype.itemsize for stmt in stores), default=4)
    serial = ir.For(outer.var, outer.extent, inner.body)
    if outer.extent.value < SHORTEST or inner.extent.value < lanes or lanes & (lanes - 1):
        return None
    block = find(s, serial, inner.var.name, lanes)
    if block is None or not block.loads:
        return None
    spans = (int(outer.extent.value), int(inner.extent.value))
    if not all(_one_to_one(s, stmt, (outer.var.name, inner.var.name), spans) for stmt in stores):
        return None
    return ir.For(inner.var, inner.extent, (serial,), "vector", lanes)


def _one_to_one(s: Statements, stmt: ir.Store, variables: tuple[str, str], spans: tuple[int, int]) -> bool:
    """Whether no two iterations of the two loops store to the same place."""
    steps = _steps(stmt.buffer, stmt.index, s.state.resolve, set(variables), variables)
    if steps is None:
        return False
    (a, b), (m, n) = map(abs, steps), spans
    return (b > 0 and a >= b * n) or (a > 0 and b >= a * m)


# -------------------------------------------------------------------- emission


def serial_loop(s: Statements, loop: ir.For, extent: Operand) -> bool:
    """Emit a serial loop inside a vector loop by transposed blocks; False if nothing is to be transposed."""
    vector = s.state.vector
    if vector is None or vector.lanes < 2 or s.state.mask is not None or vector.lanes & (vector.lanes - 1):
        return False
    if extent.const is None or extent.const < (SHORTEST if s.masked else vector.lanes):
        return False
    block = find(s, loop, vector.name, vector.lanes)
    if block is None:
        return False
    b = s.state.builder
    full = int(extent.const) // block.lanes * block.lanes
    stop = b.constant("i64", full)
    s.counted_loop(
        loop.var.name,
        b.constant("i64", 0),
        stop,
        block.lanes,
        loop.body,
        emit=lambda: _steps_of(s, loop, block),
    )
    rest = int(extent.const) - full
    if rest and s.masked:
        number = s.state.push(Scope(s.state.scopes[-1].flow, True, frozenset(), None))
        s.state.bind(loop.var.name, Entry(stop, number, number))
        _steps_of(s, loop, block, rest)
        s.state.pop()
    elif rest:
        s.counted_loop(loop.var.name, stop, extent, 1, loop.body)
    return True


def _steps_of(s: Statements, loop: ir.For, block: Block, count: int | None = None) -> None:
    """`count` steps (as many as lanes, if None) of the loop, whose variable is bound to the first of them."""
    state = s.state
    first = state.names[loop.var.name]
    assert first is not None
    columns = {id(e): _load_columns(s, e, block.lanes, count) for e in block.loads}
    targets: dict[ir.Stmt, tuple[emit_memory.Location, Operand]] = {}  # and address, in the first step
    collected: dict[ir.Stmt, list[Operand]] = {stmt: [] for stmt in block.stores}
    for step in range(count or block.lanes):
        number = state.push(Scope(state.scopes[-1].flow, True, frozenset(), None))
        multiple = first.multiple if step == 0 else 1
        state.bind(loop.var.name, Entry(first.operand + step, first.place, number, multiple=multiple))
        for e in block.loads:
            state.remember((id(e), False), Entry(columns[id(e)][step], number, number))
        for stmt in loop.body:
            if stmt in collected:
                assert isinstance(stmt, ir.Store)
                if stmt not in targets:
                    at = emit_memory.locate(s.values, stmt.buffer, stmt.index)
                    targets[stmt] = at, emit_memory.pointer(s.values, at)
                collected[stmt].append(s.values.vector(stmt.value))
            else:
                s.block((stmt,))
        state.pop()
    for stmt, (at, base) in targets.items():
        _store_rows(s, at, base, collected[stmt], block.lanes)


def _load_columns(s: Statements, e: ir.Load, lanes: int, count: int | None) -> list[Operand]:
    """The vectors that `e` is in `lanes` steps: one contiguous load for each lane, transposed."""
    state, b = s.state, s.state.builder
    at = emit_memory.locate(s.values, e.buffer, e.index)
    base = emit_memory.pointer(s.values, at)
    elem = memory_element(e.dtype)
    active = state.vector.prefix if state.vector is not None else None
    mask = None if count is None else b.vector("i1", [k < count for k in range(lanes)])
    rows = []
    for lane in range(lanes):
        if active is not None and lane >= active:
            rows.append(b.constant(elem, 0, lanes))
            continue
        address = b.offset(base, elem, lane * at.stride)
        if mask is None:
            rows.append(emit_memory.read(b, at, address, lanes))
        else:
            rows.append(emit_memory.masked_load(s.values, address, e.dtype, mask, None))
    return transpose(b, rows)


def _store_rows(
    s: Statements, at: emit_memory.Location, base: Operand, columns: list[Operand], lanes: int
) -> None:
    """Store the vectors of successive steps: transposed, one contiguous store for each lane."""
    state, b = s.state, s.state.builder
    elem = memory_element(at.buffer.dtype)
    count = len(columns)
    rows = transpose(b, columns + [b.poison(elem, lanes)] * (lanes - count))
    active = lanes if state.vector is None or state.vector.prefix is None else state.vector.prefix
    mask = None if count == lanes else b.vector("i1", [k < count for k in range(lanes)])
    past = emit_memory.goes_past(at, lanes, at.stride)
    for lane in range(active):
        address = b.offset(base, elem, lane * at.stride)
        emit_memory.wide_store(b, rows[lane], address, at.buffer.dtype, mask, past)


def transpose(b: Builder, rows: list[Operand]) -> list[Operand]:
    """The transpose of n vectors of n lanes (n a power of two), in steps of one instruction each on x86.

    First within 128-bit quarters by interleaving, then the quarters themselves by halving.
    """
    n = len(rows)
    if n == 1:
        return rows
    within = 2 if rows[0].elem in ("double", "i64") else min(4, n)
    step = 1
    while step < within:
        rows = _interleave(b, rows, step, within)
        step *= 2
    rows = [_fence(b, row) for row in rows]
    if within == 4:  # two steps of interleaving leave the columns in bit-reversed order
        rows = [rows[i + k] for i in range(0, n, 4) for k in (0, 2, 1, 3)]
    parts = n // within
    result: list[Operand | None] = [None] * n
    for j in range(within):
        for part, vector in enumerate(_quarters(b, [rows[within * i + j] for i in range(parts)], within)):
            result[within * part + j] = vector
    return [r for r in result if r is not None]


def _fence(b: Builder, row: Operand) -> Operand:
    """The same vector, opaque to LLVM, which would otherwise spend half of its time on a kernel looking
    through shuffles of shuffles for better ones."""
    if row.elem not in ("float", "double"):
        return row
    suffix = "f32" if row.elem == "float" else "f64"
    return b.call(f"llvm.arithmetic.fence.v{row.lanes}{suffix}", row.elem, row.lanes, [row])


def _interleave(b: Builder, rows: list[Operand], step: int, within: int) -> list[Operand]:
    """Interleave runs of `step` lanes of rows `step` apart, inside each quarter of `within` lanes."""
    n = len(rows)
    result: list[Operand | None] = [None] * n
    for i in range(n):
        if i // step % 2:
            continue
        low: list[int] = []
        high: list[int] = []
        for quarter in range(0, n, within):
            for run in range(0, within // 2, step):
                for target, start in ((low, run), (high, run + within // 2)):
                    place = quarter + start
                    target += [place + k for k in range(step)] + [n + place + k for k in range(step)]
        result[i] = b.shuffle(rows[i], rows[i + step], low)
        result[i + step] = b.shuffle(rows[i], rows[i + step], high)
    return [r for r in result if r is not None]


def _quarters(b: Builder, rows: list[Operand], within: int) -> list[Operand]:
    """Transpose the matrix of quarters (runs of `within` lanes) of as many vectors as each has quarters."""
    parts = len(rows)
    if parts == 1:
        return rows

    def lanes(quarters: list[int]) -> list[int]:
        return [q * within + k for q in quarters for k in range(within)]

    if parts == 2:
        return [b.shuffle(rows[0], rows[1], lanes([0, 2])), b.shuffle(rows[0], rows[1], lanes([1, 3]))]
    even = [b.shuffle(rows[i], rows[i + 1], lanes([0, 2, 4, 6])) for i in (0, 2)]
    odd = [b.shuffle(rows[i], rows[i + 1], lanes([1, 3, 5, 7])) for i in (0, 2)]
    return [
        b.shuffle(pair[0], pair[1], lanes(pick))
        for pick in ([0, 2, 4, 6], [1, 3, 5, 7])
        for pair in (even, odd)
    ]
