"""Statements of the loop IR: loops, stores, accumulators, tiles, checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphc.ir.types import DType
from graphc.loop import ir

from . import emit_memory
from .emit_builder import Operand
from .emit_memory import memory_element
from .emit_scalar import binary_op
from .emit_state import Entry, Flow, Scope, State, Storage, Vector, element
from .emit_values import Values, children, is_pure_index

ALIGN = 64


class Statements:
    """Emits blocks of statements. `masked`: partial vector groups are masked rather than looped over."""

    def __init__(self, state: State, masked: bool, scratch: dict[ir.Buffer, Operand]) -> None:
        self.state = state
        self.values = Values(state)
        self.masked = masked
        self.scratch = scratch
        self.accumulators: dict[ir.Buffer, Storage] = {}
        self._emitters = {
            ir.For: self._for, ir.Alloc: self._alloc, ir.Let: self._let, ir.Store: self._store,
            ir.Accumulate: self._accumulate, ir.Tile: self._tile, ir.Check: self._check, ir.If: self._if,
        }  # fmt: skip

    def block(self, body: ir.Block) -> None:
        for stmt in body:
            self._emitters[type(stmt)](stmt)  # type: ignore[operator]

    # ------------------------------------------------------------ loops

    def counted_loop(
        self, name: str, start: Operand, stop: Operand, step: int, body: ir.Block, vector_lanes: int = 0
    ) -> None:
        """for name in range(start, stop, step): body. `stop - start` is a multiple of `step`.

        With `vector_lanes` the variable is the first of that many iterations done at once.
        """
        state, b = self.state, self.state.builder
        static = start.const is not None and stop.const is not None
        if static and start.const >= stop.const:  # type: ignore[operator]
            return
        outer = state.scopes[-1].flow
        head = b.new_block("loop")
        variable = Operand(b, "i64", 0, b.fresh())
        scope = Scope(Flow(head), static, written(body), state.mask)
        number = state.push(scope)
        entry = Entry(variable, number, number)
        if vector_lanes:
            state.vector = Vector(name, vector_lanes, entry, number)
        state.bind(name, entry)
        self.block(body)
        following = variable + step
        more = b.compare("slt", following, stop)
        latch = scope.flow.block
        state.pop()
        if vector_lanes:
            state.vector = None
        done = b.new_block("done")
        latch.lines.append(f"br i1 {more.text}, label %{head.label}, label %{done.label}")
        before = outer.block
        if static:
            before.lines.append(f"br label %{head.label}")
        else:
            some = b.compare("slt", start, stop)
            before.lines.append(f"br i1 {some.text}, label %{head.label}, label %{done.label}")
        head.lines.insert(
            0, f"{variable.text} = phi i64 [ {start.text}, %{before.label} ], "
            f"[ {following.text}, %{latch.label} ]"
        )  # fmt: skip
        outer.block = done

    def _for(self, stmt: ir.For) -> None:
        state = self.state
        extent = self.values.scalar(stmt.extent)
        if stmt.mode == "vector" and stmt.lanes > 1:
            if state.vector is not None:
                raise ValueError(f"vector loop {stmt.var.name} inside a vector loop")
            self._vector_loop(stmt, extent)
        elif extent.const is not None and (stmt.mode == "unroll" or extent.const == 1):
            for i in range(int(extent.const)):
                self._iteration(stmt.var.name, state.builder.constant("i64", i), stmt.body)
        else:
            self.counted_loop(stmt.var.name, state.builder.constant("i64", 0), extent, 1, stmt.body)

    def _iteration(self, name: str, value: Operand, body: ir.Block) -> None:
        """The body once, with the variable a constant."""
        state = self.state
        number = state.push(Scope(state.scopes[-1].flow, True, written(body), state.mask))
        state.bind(name, Entry(value, 0, number))
        self.block(body)
        state.pop()

    # ------------------------------------------------------------ vector loops

    def _vector_loop(self, stmt: ir.For, extent: Operand) -> None:
        """Full groups in a loop, then the partial group."""
        b = self.state.builder
        lanes, zero = stmt.lanes, self.state.builder.constant("i64", 0)
        reduced = self._begin_accumulators(stmt, extent)
        if extent.const is not None:
            full = b.constant("i64", int(extent.const) // lanes * lanes)
        else:
            full = (
                b.binary("and", extent, -lanes)
                if lanes & (lanes - 1) == 0
                else (b.binary("udiv", extent, lanes) * lanes)
            )
        if full.const == lanes:
            self._group(stmt, zero, lanes)
        elif full.const != 0:
            self.counted_loop(stmt.var.name, zero, full, lanes, stmt.body, lanes)
        tail = extent - full
        if tail.const != 0:
            if self.masked and tail.const is not None:
                self._group(stmt, full, lanes, prefix=int(tail.const))
            elif self.masked:
                self._runtime_tail(stmt, full, tail)
            else:
                self._finish_accumulators(reduced)
                reduced = {}
                self.counted_loop(stmt.var.name, full, extent, 1, stmt.body)
        self._finish_accumulators(reduced)

    def _group(self, stmt: ir.For, base: Operand, lanes: int, prefix: int | None = None) -> None:
        """One group of lanes, straight-line."""
        state = self.state
        number = state.push(Scope(state.scopes[-1].flow, True, written(stmt.body), state.mask))
        entry = Entry(base, number, number)
        state.vector = Vector(stmt.var.name, lanes, entry, number, prefix)
        state.bind(stmt.var.name, entry)
        self.block(stmt.body)
        state.vector = None
        state.pop()

    def _runtime_tail(self, stmt: ir.For, base: Operand, count: Operand) -> None:
        """A partial group whose size is known only when running: 0 <= count < lanes."""
        state, b = self.state, self.state.builder
        some = b.compare("ne", count, 0)

        def body() -> None:
            number = state.depth
            wide = b.splat(b.cast("trunc", count, "i32"), stmt.lanes)
            state.scopes[-1].mask = b.compare("slt", b.iota("i32", stmt.lanes), wide)
            entry = Entry(base, number, number)
            state.vector = Vector(stmt.var.name, stmt.lanes, entry, number)
            state.bind(stmt.var.name, entry)
            self.block(stmt.body)
            state.vector = None

        self._branch(some, stmt.body, body)

    # ------------------------------------------------------------ accumulators

    def _begin_accumulators(self, stmt: ir.For, extent: Operand) -> dict[ir.Buffer, tuple[Storage, str]]:
        """Give every outer local that the loop reduces into a vector of partial results."""
        b = self.state.builder
        found: dict[ir.Buffer, tuple[Storage, str]] = {}
        for buffer, combine in reductions(stmt):
            old = found.get(buffer)
            if old is not None:
                if old[1] != combine:
                    raise ValueError(f"{buffer.name} is accumulated in two different ways in one loop")
                continue
            storage = self._local(buffer, stmt.lanes)
            neutral = ir.identity_of(combine, buffer.dtype)  # type: ignore[arg-type]
            elem = memory_element(buffer.dtype)
            for i in range(_size(buffer)):
                where = b.offset(storage.pointer, elem, i * stmt.lanes)
                b.store(b.constant(elem, neutral.value, stmt.lanes), where, ALIGN)
            found[buffer] = (storage, combine)
            self.accumulators[buffer] = storage
        return found

    def _finish_accumulators(self, reduced: dict[ir.Buffer, tuple[Storage, str]]) -> None:
        """Fold the lanes in a fixed tree and combine with what the local held before."""
        b = self.state.builder
        for buffer, (storage, combine) in reduced.items():
            del self.accumulators[buffer]
            elem, size = memory_element(buffer.dtype), buffer.dtype.itemsize
            for i in range(_size(buffer)):
                part = b.load(b.offset(storage.pointer, elem, i * storage.lanes), elem, storage.lanes, ALIGN)
                total = self.fold(combine, buffer.dtype, part)
                where = b.offset(self.state.storage[buffer].pointer, elem, i)
                old = b.load(where, elem, 0, size)
                b.store(self._combine(combine, buffer.dtype, old, total), where, size)

    def fold(self, combine: str, dtype: DType, x: Operand) -> Operand:
        """Combine all lanes, halving the vector until one is left (an odd lane waits for the next round)."""
        b = self.state.builder
        while x.lanes > 1:
            half = x.lanes // 2
            low = b.shuffle(x, x, range(half))
            high = b.shuffle(x, x, range(half, 2 * half))
            both = self._combine(combine, dtype, low, high)
            if x.lanes % 2:
                last = b.extract(x, x.lanes - 1)
                first = self._combine(combine, dtype, b.extract(both, 0), last)
                both = b.insert(both, first, 0)
            x = both
        return b.extract(x, 0)

    def _combine(self, combine: str, dtype: DType, x: Operand, y: Operand) -> Operand:
        """binary_op on values as they are in memory (bools are bytes 0 and 1 there)."""
        b = self.state.builder
        if dtype.kind == "b":
            return x | y if combine in ("add", "or", "max") else x & y
        return binary_op(b, combine, dtype, x, y)

    # ------------------------------------------------------------ simple statements

    def _alloc(self, stmt: ir.Alloc) -> None:
        buffer, vector = stmt.buffer, self.state.vector
        if buffer.space == "local":
            self.state.storage[buffer] = self._local(buffer, vector.lanes if vector else 0)
        elif vector is not None:
            raise ValueError(f"scratch buffer {buffer.name} is allocated inside a vector loop")
        else:
            self.state.storage[buffer] = Storage(self.scratch[buffer])

    def _local(self, buffer: ir.Buffer, lanes: int) -> Storage:
        """Stack memory (registers after mem2reg), allocated once at function entry."""
        count = None if buffer.shape == () else max(_size(buffer), 1)
        slot = self.state.builder.alloca(memory_element(buffer.dtype), lanes, count, ALIGN)
        return Storage(slot, lanes)

    def _let(self, stmt: ir.Let) -> None:
        state = self.state
        entry = self.values.value(stmt.value)
        if not entry.stable:
            entry = Entry(entry.operand, entry.place, max(entry.bind, state.depth))
        definition = stmt.value if is_pure_index(stmt.value) else None
        state.bind(stmt.local.name, entry, definition)

    def _store(self, stmt: ir.Store) -> None:
        value = self.values.value(stmt.value).operand
        emit_memory.store(self.values, stmt.buffer, stmt.index, value)

    def _accumulate(self, stmt: ir.Accumulate) -> None:
        state, b = self.state, self.state.builder
        special = self.accumulators.get(stmt.buffer)
        vector = state.vector
        value = self.values.value(stmt.value).operand
        if vector is None or not vector.lanes:
            self._read_modify_write(stmt, value)
            return
        if special is not None:
            normal = state.storage[stmt.buffer]
            state.storage[stmt.buffer] = special
            self._read_modify_write(stmt, self._active(stmt, b.splat(value, vector.lanes)))
            state.storage[stmt.buffer] = normal
            return
        where = emit_memory.locate(self.values, stmt.buffer, stmt.index)
        if where.is_uniform:
            wide = self._active(stmt, b.splat(value, vector.lanes))
            value = self.fold(stmt.combine, stmt.buffer.dtype, self._as_memory(stmt.buffer.dtype, wide))
            address = emit_memory.pointer(self.values, where)
            elem, size = memory_element(stmt.buffer.dtype), stmt.buffer.dtype.itemsize
            old = b.load(address, elem, 0, size)
            b.store(self._combine(stmt.combine, stmt.buffer.dtype, old, value), address, size)
            return
        self._read_modify_write(stmt, value)

    def _read_modify_write(self, stmt: ir.Accumulate, value: Operand) -> None:
        old = emit_memory.load(self.values, ir.load(stmt.buffer, stmt.index)).operand
        dtype = stmt.buffer.dtype
        lanes = max(old.lanes, value.lanes)
        b = self.state.builder
        new = binary_op(b, stmt.combine, dtype, b.splat(old, lanes), b.splat(value, lanes))
        emit_memory.store(self.values, stmt.buffer, stmt.index, new)

    def _as_memory(self, dtype: DType, x: Operand) -> Operand:
        return self.state.builder.cast("zext", x, "i8") if dtype.kind == "b" else x

    def _active(self, stmt: ir.Accumulate, value: Operand) -> Operand:
        """The value where lanes are active, the neutral element elsewhere."""
        mask = emit_memory._prefix_mask(self.state)
        if mask is None:
            return value
        neutral = ir.identity_of(stmt.combine, stmt.buffer.dtype)
        return self.state.builder.select(mask, value, value.like(neutral.value))

    def _check(self, stmt: ir.Check) -> None:
        """Record the code if the condition is false in any active lane."""
        state, b = self.state, self.state.builder
        holds = self.values.value(stmt.condition).operand
        failed = ~holds
        if holds.lanes:
            mask = emit_memory._prefix_mask(state)
            failed = failed if mask is None else failed & mask
            failed = b.call(f"llvm.vector.reduce.or.v{holds.lanes}i1", "i1", 0, [failed])
        elif state.mask is not None:
            some = b.call(f"llvm.vector.reduce.or.v{state.mask.lanes}i1", "i1", 0, [state.mask])
            failed = failed & some

        def record() -> None:
            status = Operand(b, "ptr", 0, "%status")
            old = b.load(status, "i32", 0, 4)
            b.store(b.select(old.equals(0), stmt.code, old), status, 4)  # the first failure stays

        self._branch(failed, (), record)

    def _if(self, stmt: ir.If) -> None:
        """A branch if the condition is the same in all lanes, else a mask."""
        state = self.state
        condition = self.values.value(stmt.condition).operand
        if not condition.lanes:
            self._branch(condition, stmt.body, lambda: self.block(stmt.body))
            return
        mask = condition if state.mask is None else condition & state.mask
        state.push(Scope(state.scopes[-1].flow, False, written(stmt.body), mask))
        self.block(stmt.body)
        state.pop()

    def _branch(self, condition: Operand, body: ir.Block, emit: object) -> None:
        """if condition: emit()"""
        state, b = self.state, self.state.builder
        outer = state.scopes[-1].flow
        then = b.new_block("then")
        scope = Scope(Flow(then), False, written(body), state.mask)
        state.push(scope)
        emit()  # type: ignore[operator]
        state.pop()
        done = b.new_block("endif")
        outer.block.lines.append(f"br i1 {condition.text}, label %{then.label}, label %{done.label}")
        scope.flow.block.lines.append(f"br label %{done.label}")
        outer.block = done

    def _tile(self, stmt: ir.Tile) -> None:
        """A call of the target's register-tile function."""
        if self.state.vector is not None:
            raise ValueError("Tile inside a vector loop")
        scalar = self.values.scalar
        ends = []
        for address in (stmt.a, stmt.b, stmt.c):
            at = emit_memory.locate(self.values, address.buffer, address.index)
            ends.append(emit_memory.pointer(self.values, at))
        mode = "acc" if stmt.accumulate else "set"
        name = f"graphc_tile_{stmt.c.dtype.short}_{stmt.rows}x{stmt.lanes}_{mode}"
        a, panel, c = ends
        args = [a, scalar(stmt.a_row), scalar(stmt.a_step), panel, scalar(stmt.b_step), c]
        self.state.builder.call_void(name, [*args, scalar(stmt.c_row), scalar(stmt.depth)])


# ------------------------------------------------------------------- analysis


def _size(buffer: ir.Buffer) -> int:
    result = 1
    for extent in buffer.shape:
        result *= extent
    return result


def statements(body: ir.Block) -> Iterator[ir.Stmt]:
    """All statements of a block, nested ones too."""
    stack = list(reversed(body))
    while stack:
        stmt = stack.pop()
        yield stmt
        if isinstance(stmt, ir.For | ir.If):
            stack.extend(reversed(stmt.body))


def written(body: ir.Block) -> frozenset[ir.Buffer]:
    """Buffers that a block writes."""
    result = set()
    for stmt in statements(body):
        if isinstance(stmt, ir.Store | ir.Accumulate):
            result.add(stmt.buffer)
        elif isinstance(stmt, ir.Tile):
            result.add(stmt.c.buffer)
    return frozenset(result)


def reductions(loop: ir.For) -> Iterable[tuple[ir.Buffer, str]]:
    """Locals from outside the loop that it accumulates into, independently of its variable."""
    tainted = {loop.var.name}
    inner: set[ir.Buffer] = set()
    for stmt in statements(loop.body):
        if isinstance(stmt, ir.Alloc):
            inner.add(stmt.buffer)
        elif isinstance(stmt, ir.Let) and _depends(stmt.value, tainted):
            tainted.add(stmt.local.name)
        elif isinstance(stmt, ir.Accumulate):
            outer = stmt.buffer.space == "local" and stmt.buffer not in inner
            if outer and not any(_depends(e, tainted) for e in stmt.index):
                yield stmt.buffer, stmt.combine


def _depends(expr: ir.Expr, names: set[str]) -> bool:
    stack, seen = [expr], set()
    while stack:
        e = stack.pop()
        if isinstance(e, ir.Var | ir.Local):
            if e.name in names:
                return True
        elif id(e) not in seen:
            seen.add(id(e))
            stack.extend(children(e))
            if isinstance(e, ir.Load):
                stack.extend(e.index)
    return False


__all__ = ["Statements", "element", "statements", "written"]
