"""Vector loops: full groups of lanes, then what is left; reductions over the lanes.

A loop of n iterations in groups of L lanes becomes: a loop over full groups; if L is several machine vectors
wide, single machine vectors; then the rest, under a mask where the target has cheap masked memory accesses,
else one by one. An outer local that the loop accumulates into has L partial results meanwhile, which are
folded in a fixed tree afterwards, so the order of a reduction depends on n and L only. Where serial loops
stand around the vector loop, they are folded after the outermost of these that only adds to the local: runs
of a few vectors each would take longer to fold than to add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphc.backends.llvm import emit_memory
from graphc.backends.llvm.emit_analysis import element_count, loaded, reductions, statements, written
from graphc.backends.llvm.emit_builder import Operand
from graphc.backends.llvm.emit_memory import active_lanes, memory_element
from graphc.backends.llvm.emit_scalar import binary_op
from graphc.backends.llvm.emit_state import Entry, Scope, Storage, Vector
from graphc.ir.types import DType
from graphc.loop import ir

if TYPE_CHECKING:
    from graphc.backends.llvm.emit_loops import Statements

ALIGN = 64
Partial = dict[ir.Buffer, tuple[Storage, ir.Combine]]


def vector_loop(s: Statements, stmt: ir.For, extent: Operand) -> None:
    """Emit a vector loop; `extent` is its number of iterations (not known before running unless constant)."""
    b = s.state.builder
    if extent.const is None:
        extent = b.intrinsic("smax", extent, b.constant("i64", 0))
    most = stmt.var.extent if extent.const is None else int(extent.const)
    lanes = _useful_lanes(s, stmt.lanes, most)
    partial = _begin(s, {buffer: (lanes, how) for buffer, how in _reduced(stmt).items()})
    full = _multiple(extent, lanes)
    _groups(s, stmt, b.constant("i64", 0), full, lanes)
    narrow = min(lanes, s.granule)
    if narrow < lanes and (extent.const is None or not s.masked):
        whole = full + _multiple(extent - full, narrow)
        _groups(s, stmt, full, whole, narrow)
        full = whole
    rest = extent - full
    if rest.const == 0:
        pass
    elif not s.masked:
        _finish(s, partial)
        partial = {}
        s.counted_loop(stmt.var.name, full, extent, 1, stmt.body)
    elif rest.const is None:
        _runtime_rest(s, stmt, full, rest, narrow)
    else:
        wide = min(lanes, -(-int(rest.const) // s.granule) * s.granule)
        _group(s, stmt, full, wide, prefix=None if wide == rest.const else int(rest.const))
    _finish(s, partial)


def _useful_lanes(s: Statements, lanes: int, most: int) -> int:
    """No more lanes than there are iterations, in whole machine vectors."""
    if most >= lanes or lanes <= s.granule:
        return lanes
    if s.masked:
        return min(lanes, -(-most // s.granule) * s.granule)
    return max(s.granule, most // s.granule * s.granule)


def _multiple(extent: Operand, lanes: int) -> Operand:
    """The largest multiple of `lanes` up to extent >= 0."""
    b = extent.builder
    if extent.const is not None:
        return b.constant("i64", int(extent.const) // lanes * lanes)
    if lanes & (lanes - 1) == 0:
        return b.binary("and", extent, -lanes)
    return b.binary("udiv", extent, lanes) * lanes


def _groups(s: Statements, stmt: ir.For, start: Operand, stop: Operand, lanes: int) -> None:
    """Full groups for the iterations start ... stop-1."""
    count = (stop - start).const
    if count == lanes:
        _group(s, stmt, start, lanes)
    elif count != 0:
        s.counted_loop(stmt.var.name, start, stop, lanes, stmt.body, lanes)


def _group(s: Statements, stmt: ir.For, base: Operand, lanes: int, prefix: int | None = None) -> None:
    """One group of lanes, straight-line."""
    state = s.state
    number = state.push(Scope(state.scopes[-1].flow, True, written(stmt.body), state.mask))
    _enter(s, stmt, base, lanes, number, prefix)
    state.pop()


def _enter(s: Statements, stmt: ir.For, base: Operand, lanes: int, number: int, prefix: int | None) -> None:
    """The body in scope `number`, the loop variable being base + lane."""
    entry = Entry(base, number, number, multiple=min(lanes, s.granule))
    s.state.vector = Vector(stmt.var.name, lanes, entry, number, prefix)
    s.state.bind(stmt.var.name, entry)
    s.vector_body(stmt.body)
    s.state.vector = None


def _runtime_rest(s: Statements, stmt: ir.For, base: Operand, count: Operand, lanes: int) -> None:
    """A partial group whose size is known only when running: 0 <= count < lanes."""
    state, b = s.state, s.state.builder

    def body() -> None:
        wide = b.splat(b.cast("trunc", count, "i32"), lanes)
        state.scopes[-1].mask = b.compare("slt", b.iota("i32", lanes), wide)
        _enter(s, stmt, base, lanes, state.depth, None)

    s.branch(b.compare("ne", count, 0), stmt.body, body)


# ------------------------------------------------------------------ reductions


def serial_loop(s: Statements, stmt: ir.For, extent: Operand) -> None:
    """Emit a serial loop, around which partial results of vector loops inside it are kept."""
    partial = _begin(s, _reduced_inside(s, stmt)) if s.state.vector is None else {}
    s.counted_loop(stmt.var.name, s.state.builder.constant("i64", 0), extent, 1, stmt.body)
    _finish(s, partial)


def _reduced(loop: ir.For) -> dict[ir.Buffer, ir.Combine]:
    """The outer locals that a vector loop reduces into, and how."""
    found: dict[ir.Buffer, ir.Combine] = {}
    for buffer, combine in reductions(loop):
        if found.setdefault(buffer, combine) != combine:
            raise ValueError(f"{buffer.name} is accumulated in two different ways in one loop")
    return found


def _reduced_inside(s: Statements, loop: ir.For) -> dict[ir.Buffer, tuple[int, ir.Combine]]:
    """The locals that vector loops inside a serial loop reduce into, all with as many lanes and in one way,
    and that nothing else inside it reads or writes."""
    nested = list(statements(loop.body))
    vectors = [
        stmt for stmt in nested if isinstance(stmt, ir.For) and stmt.mode == "vector" and stmt.lanes > 1
    ]
    ways: dict[ir.Buffer, set[tuple[int, ir.Combine]]] = {}
    for inner in vectors:
        most = inner.extent.value if isinstance(inner.extent, ir.Const) else inner.var.extent
        for buffer, combine in _reduced(inner).items():
            ways.setdefault(buffer, set()).add((_useful_lanes(s, inner.lanes, int(most)), combine))
    if not ways:
        return {}
    added = _accumulated(loop.body)
    in_vectors = [b for inner in vectors for b in _accumulated(inner.body)]
    other = {stmt.buffer for stmt in nested if isinstance(stmt, ir.Alloc | ir.Store)} | loaded(nested)
    return {
        buffer: next(iter(found))
        for buffer, found in ways.items()
        if len(found) == 1 and buffer not in other and added.count(buffer) == in_vectors.count(buffer)
    }


def _accumulated(body: ir.Block) -> list[ir.Buffer]:
    return [stmt.buffer for stmt in statements(body) if isinstance(stmt, ir.Accumulate)]


def _begin(s: Statements, reduced: Mapping[ir.Buffer, tuple[int, ir.Combine]]) -> Partial:
    """Give every local of `reduced` that has none yet a vector of partial results (lanes, how to combine)."""
    b = s.state.builder
    found: Partial = {}
    for buffer, (lanes, combine) in reduced.items():
        if buffer in s.accumulators:
            continue
        storage = s.local(buffer, lanes)
        neutral = ir.identity_of(combine, buffer.dtype)
        elem = memory_element(buffer.dtype)
        for i in range(element_count(buffer)):
            where = b.offset(storage.pointer, elem, i * lanes)
            b.store(b.constant(elem, neutral.value, lanes), where, _align(i, lanes, buffer))
        found[buffer] = (storage, combine)
        s.accumulators[buffer] = storage
    return found


def _finish(s: Statements, partial: Partial) -> None:
    """Fold the lanes and combine with what the local held before."""
    b = s.state.builder
    for buffer, (storage, combine) in partial.items():
        del s.accumulators[buffer]
        elem, size = memory_element(buffer.dtype), buffer.dtype.itemsize
        for i in range(element_count(buffer)):
            where = b.offset(storage.pointer, elem, i * storage.lanes)
            part = b.load(where, elem, storage.lanes, _align(i, storage.lanes, buffer))
            total = fold(s, combine, buffer.dtype, part)
            where = b.offset(s.state.storage[buffer].pointer, elem, i)
            old = b.load(where, elem, 0, size)
            b.store(_combine(s, combine, buffer.dtype, old, total), where, size)


def _align(i: int, lanes: int, buffer: ir.Buffer) -> int:
    return ALIGN if i == 0 else buffer.dtype.itemsize


def fold(s: Statements, combine: ir.Combine, dtype: DType, x: Operand) -> Operand:
    """Combine all lanes, halving the vector until one is left (an odd lane waits for the next round)."""
    b = s.state.builder
    while x.lanes > 1:
        half = x.lanes // 2
        low = b.shuffle(x, x, range(half))
        high = b.shuffle(x, x, range(half, 2 * half))
        both = _combine(s, combine, dtype, low, high)
        if x.lanes % 2:
            last = b.extract(x, x.lanes - 1)
            first = _combine(s, combine, dtype, b.extract(both, 0), last)
            both = b.insert(both, first, 0)
        x = both
    return b.extract(x, 0)


def _combine(s: Statements, combine: ir.Combine, dtype: DType, x: Operand, y: Operand) -> Operand:
    """binary_op on values as they are in memory (bools are bytes 0 and 1 there)."""
    if dtype.kind == "b":
        return x | y if combine in ("add", "or", "max") else x & y
    return binary_op(s.state.builder, combine, dtype, x, y)


def accumulate(s: Statements, stmt: ir.Accumulate) -> None:
    """buffer[index] = combine(buffer[index], value) in the active lanes."""
    state = s.state
    vector = state.vector
    value = s.values.value(stmt.value).operand
    if vector is None or not vector.lanes:
        _read_modify_write(s, stmt, value)
    elif (partial := s.accumulators.get(stmt.buffer)) is not None:
        usual = state.storage[stmt.buffer]
        state.storage[stmt.buffer] = partial
        _read_modify_write(s, stmt, _active(s, stmt, value, vector.lanes))
        state.storage[stmt.buffer] = usual
    elif emit_memory.locate(s.values, stmt.buffer, stmt.index).is_uniform:
        _fold_into_memory(s, stmt, _active(s, stmt, value, vector.lanes))
    else:
        _read_modify_write(s, stmt, value)


def _read_modify_write(s: Statements, stmt: ir.Accumulate, value: Operand) -> None:
    old = emit_memory.load(s.values, ir.load(stmt.buffer, stmt.index)).operand
    lanes = max(old.lanes, value.lanes)
    b = s.state.builder
    new = binary_op(b, stmt.combine, stmt.buffer.dtype, b.splat(old, lanes), b.splat(value, lanes))
    emit_memory.store(s.values, stmt.buffer, stmt.index, new)


def _fold_into_memory(s: Statements, stmt: ir.Accumulate, value: Operand) -> None:
    """All lanes go to one place that is not a local: fold them right away."""
    b, dtype = s.state.builder, stmt.buffer.dtype
    wide = b.cast("zext", value, "i8") if dtype.kind == "b" else value
    total = fold(s, stmt.combine, dtype, wide)
    at = emit_memory.locate(s.values, stmt.buffer, stmt.index)
    address = emit_memory.pointer(s.values, at)
    old = b.load(address, memory_element(dtype), 0, dtype.itemsize)
    b.store(_combine(s, stmt.combine, dtype, old, total), address, dtype.itemsize)


def _active(s: Statements, stmt: ir.Accumulate, value: Operand, lanes: int) -> Operand:
    """The value in the lanes that are active, the neutral element in the others."""
    b = s.state.builder
    value = b.splat(value, lanes)
    mask = active_lanes(s.state)
    if mask is None:
        return value
    neutral = ir.identity_of(stmt.combine, stmt.buffer.dtype)
    return b.select(mask, value, value.like(neutral.value))
