"""Statements of the loop IR: loops, stores, accumulators, tiles, checks."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm import emit_memory, emit_transpose, emit_vector
from graphc.backends.llvm.emit_analysis import element_count, is_pure_index, written
from graphc.backends.llvm.emit_builder import Operand
from graphc.backends.llvm.emit_memory import memory_element
from graphc.backends.llvm.emit_records import Records
from graphc.backends.llvm.emit_state import Entry, Flow, Scope, State, Storage, Vector
from graphc.backends.llvm.emit_values import Values
from graphc.backends.llvm.tile import spec_of
from graphc.loop import ir

ALIGN = 64


class Statements:
    """Emits blocks of statements.

    `masked`: partial vector groups are masked rather than looped over; `granule`: lanes of one machine vector
    of 4-byte elements; `scratch`: where the scratch buffers are.
    """

    def __init__(self, state: State, masked: bool, granule: int, scratch: dict[ir.Buffer, Operand]) -> None:
        self.state = state
        self.values = Values(state)
        self.masked = masked
        self.granule = granule
        self.scratch = scratch
        self.accumulators: dict[ir.Buffer, Storage] = {}
        self._emitters = {
            ir.For: self._for, ir.Alloc: self._alloc, ir.Let: self._let, ir.Store: self._store,
            ir.Accumulate: self._accumulate, ir.Tile: self._tile, ir.Check: self._check, ir.If: self._if,
            ir.Prefetch: self._prefetch, ir.Note: self._note,
        }  # fmt: skip

    def vector_body(self, body: ir.Block) -> None:
        """The body of a vector loop, for the lanes that `state.vector` says."""
        self.values.records = Records(self, body)
        self.block(body)
        self.values.records = None

    def block(self, body: ir.Block) -> None:
        for stmt in body:
            self._emitters[type(stmt)](stmt)  # type: ignore[operator]

    # ------------------------------------------------------------ loops

    def counted_loop(
        self,
        name: str,
        start: Operand,
        stop: Operand,
        step: int,
        body: ir.Block,
        vector_lanes: int = 0,
        emit: Callable[[], None] | None = None,
    ) -> None:
        """for name in range(start, stop, step): body. `stop - start` is a multiple of `step`.

        With `vector_lanes` the variable is the first of that many iterations done at once, and `start` is a
        multiple of `step`. `emit` emits the body, if it is not to be emitted as it stands.
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
        counts = vector_lanes or (start.const is not None and start.const % step == 0)
        entry = Entry(variable, number, number, multiple=step if counts else 1)
        if vector_lanes:
            state.vector = Vector(name, vector_lanes, entry, number)
        state.bind(name, entry)
        if emit is not None:
            emit()
        elif vector_lanes:
            self.vector_body(body)
        else:
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
            emit_vector.vector_loop(self, stmt, extent)
        elif extent.const is not None and (stmt.mode == "unroll" or extent.const == 1):
            for i in range(int(extent.const)):
                self._iteration(stmt.var.name, state.builder.constant("i64", i), stmt.body)
        elif (swapped := emit_transpose.interchanged(self, stmt)) is not None:
            self._for(swapped)
        elif not emit_transpose.serial_loop(self, stmt, extent):
            emit_vector.serial_loop(self, stmt, extent)

    def _iteration(self, name: str, value: Operand, body: ir.Block) -> None:
        """The body once, with the variable a constant."""
        state = self.state
        number = state.push(Scope(state.scopes[-1].flow, True, written(body), state.mask))
        state.bind(name, Entry(value, 0, number))
        self.block(body)
        state.pop()

    # ------------------------------------------------------------ simple statements

    def _alloc(self, stmt: ir.Alloc) -> None:
        buffer, vector = stmt.buffer, self.state.vector
        if buffer.space == "local":
            self.state.storage[buffer] = self.local(buffer, vector.lanes if vector else 0)
        elif vector is not None:
            raise ValueError(f"scratch buffer {buffer.name} is allocated inside a vector loop")
        else:
            self.state.storage[buffer] = Storage(self.scratch[buffer])

    def local(self, buffer: ir.Buffer, lanes: int) -> Storage:
        """Stack memory (registers after mem2reg), allocated once at function entry."""
        count = None if buffer.shape == () else max(element_count(buffer), 1)
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
        if self.values.records is not None and self.values.records.hold(stmt, value):
            return
        emit_memory.store(self.values, stmt.buffer, stmt.index, value)

    def _accumulate(self, stmt: ir.Accumulate) -> None:
        emit_vector.accumulate(self, stmt)

    def _check(self, stmt: ir.Check) -> None:
        """Record the code if the condition is false in any active lane."""
        state, b = self.state, self.state.builder
        holds = self.values.value(stmt.condition).operand
        failed = ~holds
        if holds.lanes:
            mask = emit_memory.active_lanes(state)
            failed = failed if mask is None else failed & mask
            failed = b.call(f"llvm.vector.reduce.or.v{holds.lanes}i1", "i1", 0, [failed])
        elif state.mask is not None:
            some = b.call(f"llvm.vector.reduce.or.v{state.mask.lanes}i1", "i1", 0, [state.mask])
            failed = failed & some

        def record() -> None:
            status = Operand(b, "ptr", 0, "%status")
            old = b.load(status, "i32", 0, 4)
            b.store(b.select(old.equals(0), stmt.code, old), status, 4)  # the first failure stays

        self.branch(failed, (), record)

    def _if(self, stmt: ir.If) -> None:
        """A branch if the condition is the same in all lanes, else a mask."""
        state = self.state
        condition = self.values.value(stmt.condition).operand
        if not condition.lanes:
            self.branch(condition, stmt.body, lambda: self.block(stmt.body))
            return
        mask = condition if state.mask is None else condition & state.mask
        state.push(Scope(state.scopes[-1].flow, False, written(stmt.body), mask))
        self.block(stmt.body)
        state.pop()

    def branch(self, condition: Operand, body: ir.Block, emit: Callable[[], None]) -> None:
        """if condition: emit()"""
        state, b = self.state, self.state.builder
        outer = state.scopes[-1].flow
        then = b.new_block("then")
        scope = Scope(Flow(then), False, written(body), state.mask)
        state.push(scope)
        emit()
        state.pop()
        done = b.new_block("endif")
        outer.block.lines.append(f"br i1 {condition.text}, label %{then.label}, label %{done.label}")
        scope.flow.block.lines.append(f"br label %{done.label}")
        outer.block = done

    def _prefetch(self, stmt: ir.Prefetch) -> None:
        """A hint to fetch a line for reading, into every cache or all but the first."""
        at = emit_memory.locate(self.values, stmt.buffer, stmt.index)
        pointer = emit_memory.pointer(self.values, at)
        level = "i32 3" if stmt.near else "i32 2"
        self.state.builder.call_void("llvm.prefetch.p0", [pointer, "i32 0", level, "i32 1"])

    def _note(self, stmt: ir.Note) -> None:
        """An entry of a list of places."""
        at = emit_memory.locate(self.values, stmt.buffer, stmt.index)
        pointer = emit_memory.pointer(self.values, at)
        place = self.state.builder.cast("ptrtoint", pointer, "i64")
        emit_memory.store(self.values, stmt.places, (stmt.slot,), place)

    def _tile(self, stmt: ir.Tile) -> None:
        """A call of the target's register-tile function."""
        if self.state.vector is not None:
            raise ValueError("Tile inside a vector loop")
        scalar = self.values.scalar

        def end(address: ir.Address) -> Operand:
            at = emit_memory.locate(self.values, address.buffer, address.index)
            return emit_memory.pointer(self.values, at)

        a, panel, c = end(stmt.a), end(stmt.b), end(stmt.c)
        args = [a, scalar(stmt.a_row), scalar(stmt.a_step), panel, scalar(stmt.b_step), c]
        args += [scalar(stmt.c_row), scalar(stmt.depth)]
        if stmt.walk is not None:
            args.append(end(stmt.walk.at))
        if (fetch := stmt.fetch) is not None:
            args.append(end(fetch.at))
            if isinstance(fetch, ir.Fetch):
                args.append(scalar(fetch.step))
        self.state.builder.call_void(spec_of(stmt).symbol, args)
