"""Expressions of the loop IR to LLVM values, each in the outermost place where it can be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.llvm import emit_memory
from graphc.backends.llvm.emit_analysis import children
from graphc.backends.llvm.emit_builder import Operand
from graphc.backends.llvm.emit_index import bounds
from graphc.backends.llvm.emit_narrow import narrowed
from graphc.backends.llvm.emit_scalar import binary_op, cast_op, compare_op, unary_op
from graphc.backends.llvm.emit_state import Entry, State, element
from graphc.ir.types import int64
from graphc.loop import ir

if TYPE_CHECKING:
    from graphc.backends.llvm.emit_records import Records


class Values:
    """Computes expressions in a `State`.

    Inside a vector loop a value that depends on the loop's variable is a vector of its lanes, every other
    value stays a scalar (and is computed outside the loop if it can be). `lane0` asks for the value in the
    group's first iteration as a scalar; addresses are made of those.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.records: Records | None = None  # of the vector loop around

    def column(self, e: ir.Load, at: emit_memory.Location) -> Operand | None:
        """What a load gives that is made together with others (`emit_records.py`); None if it is not."""
        return None if self.records is None else self.records.column(e, at)

    # ------------------------------------------------------------ entry points

    def value(self, expr: ir.Expr) -> Entry:
        """The value of an expression: a scalar if it is the same in all lanes, else a vector."""
        done: dict[int, Entry] = {}
        stack = [expr]
        while stack:
            e = stack[-1]
            if id(e) in done:
                stack.pop()
                continue
            if (found := self._known(e)) is not None:
                done[id(e)] = found
                stack.pop()
                continue
            entry = narrowed(self, e)
            if entry is None:
                waiting = [c for c in children(e) if id(c) not in done]
                if waiting:
                    stack.extend(waiting)
                    continue
                entry = self._compute(e, [done[id(c)] for c in children(e)])
            if entry.stable:
                self.state.remember((id(e), False), entry)
            done[id(e)] = entry
            stack.pop()
        return done[id(expr)]

    def vector(self, expr: ir.Expr) -> Operand:
        """The value of an expression in every lane (a scalar outside vector loops)."""
        return self.spread(self.value(expr)).operand

    def scalar(self, expr: ir.Expr) -> Operand:
        """The value of an expression that must not depend on the vector loop's variable."""
        operand = self.value(expr).operand
        if operand.lanes:
            raise ValueError("an extent or stride must not depend on the variable of a vector loop")
        return operand

    def spread(self, entry: Entry) -> Entry:
        """The entry in every lane of the vector loop."""
        state = self.state
        if entry.operand.lanes or state.vector is None or not state.vector.lanes:
            return entry
        lanes = state.vector.lanes
        key = ("splat", entry.operand.elem, entry.operand.text, lanes)
        if key in state.cache:
            return state.cache[key]
        state.at(entry.place)
        wide = state.builder.splat(entry.operand, lanes)
        state.here()
        return state.remember(key, Entry(wide, entry.place, max(entry.place, entry.bind)))

    def lane0(self, expr: ir.Expr) -> Entry:
        """The scalar value of an index expression in the first lane."""
        state = self.state
        if state.vector is None or not state.vector.lanes:
            return self.value(expr)
        key = (id(expr), True)
        if key in state.cache:
            return state.cache[key]
        if isinstance(expr, ir.Var) and expr.name == state.vector.name:
            return state.vector.base
        if isinstance(expr, ir.Local) and (definition := state.resolve(expr.name)) is not None:
            return self.lane0(definition)
        if isinstance(expr, ir.Binary | ir.Unary | ir.Cast | ir.Select):
            entry = self._compute(expr, [self.lane0(c) for c in children(expr)])
            return state.remember(key, entry) if entry.stable else entry
        entry = self.value(expr)
        if not entry.operand.lanes:
            return entry
        first = state.builder.extract(entry.operand, 0)
        return Entry(first, state.depth, state.depth, False)

    # ------------------------------------------------------------ one expression

    def _known(self, e: ir.Expr) -> Entry | None:
        """What is bound or cached already."""
        state = self.state
        if isinstance(e, ir.Const):
            return Entry(state.builder.constant(element(e.dtype), e.value))
        if isinstance(e, ir.Var):
            if state.vector is not None and state.vector.lanes and e.name == state.vector.name:
                return self._vector_variable()
            return self._named(e.name)
        if isinstance(e, ir.Local):
            return self._named(e.name)
        return state.cache.get((id(e), False))

    def _named(self, name: str) -> Entry:
        entry = self.state.names.get(name)
        if entry is None:
            raise ValueError(f"loop IR uses {name!r} outside of its scope")
        return entry

    def _vector_variable(self) -> Entry:
        """base + (0, 1, 2, ...)."""
        state = self.state
        vector = state.vector
        assert vector is not None
        key = ("iota", vector.name)
        if key not in state.cache:
            state.at(vector.scope)
            base = state.builder.splat(vector.base.operand, vector.lanes)
            wide = base + state.builder.iota("i64", vector.lanes)
            state.here()
            state.remember(key, Entry(wide, vector.scope, vector.scope))
        return state.cache[key]

    def _compute(self, e: ir.Expr, args: list[Entry]) -> Entry:
        """Emit one operation whose operands are computed."""
        state = self.state
        if isinstance(e, ir.Load):
            return emit_memory.load(self, e)
        if any(a.operand.lanes for a in args):
            keep = 1 if isinstance(e, ir.Select) and not args[0].operand.lanes else 0
            args = args[:keep] + [self.spread(a) for a in args[keep:]]
        place = max(a.place for a in args)
        bind = max(a.bind for a in args)
        state.at(place)
        operand = self._operation(e, [a.operand for a in args])
        state.here()
        return Entry(operand, place, bind, all(a.stable for a in args))

    def _operation(self, e: ir.Expr, x: list[Operand]) -> Operand:
        b = self.state.builder
        if isinstance(e, ir.Unary):
            return unary_op(b, e.op, e.x.dtype, x[0])
        if isinstance(e, ir.Binary):
            if e.op in ir.COMPARE_OPS:
                return compare_op(b, e.op, e.a.dtype, x[0], x[1])
            return binary_op(b, e.op, e.a.dtype, x[0], x[1], self.divides_naturals(e))
        if isinstance(e, ir.Select):
            return b.select(x[0], x[1], x[2])
        if isinstance(e, ir.Cast):
            return cast_op(b, x[0], e.x.dtype, e.dtype)
        raise TypeError(f"the loop IR has no expression {type(e).__name__}")

    def divides_naturals(self, e: ir.Binary) -> bool:
        """Whether a division needs no care for signs and zero: dividend >= 0, divisor > 0."""
        if e.op not in ("div", "rem") or e.dtype is not int64:
            return False
        resolve = self.state.resolve
        return bounds(e.a, resolve)[0] >= 0 and bounds(e.b, resolve)[0] > 0
