"""Index arithmetic on vectors in 32 bits, where the ranges of the variables allow it.

Index expressions are int64, but vectors of int64 take twice the registers, their divisions and products have
no instructions on most machines, and a mask such as ``0 <= i - 1 < 56`` needs only small numbers. An
expression is computed in 32 bits if it and all its parts provably fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.llvm.emit_analysis import children
from graphc.backends.llvm.emit_index import bounds
from graphc.backends.llvm.emit_scalar import binary_op, cast_op, compare_op
from graphc.backends.llvm.emit_state import Entry
from graphc.ir.types import int32, int64
from graphc.loop import ir

if TYPE_CHECKING:
    from graphc.backends.llvm.emit_values import Values

LIMIT = 2**31 - 4096  # lanes beyond a loop's end may be somewhat out of range
OPERATIONS = frozenset(["add", "sub", "mul", "div", "rem", "min", "max"])


def fits(values: Values, e: ir.Expr) -> bool:
    """Whether an int64 expression's value fits in 32 bits."""
    low, high = bounds(e, values.state.resolve)
    return low >= -LIMIT and high <= LIMIT


def is_varying(values: Values, e: ir.Expr) -> bool:
    """Whether an expression differs between the lanes of the vector loop."""
    state = values.state
    vector = state.vector
    if vector is None or not vector.lanes:
        return False
    stack, seen = [e], set()
    while stack:
        e = stack.pop()
        if isinstance(e, ir.Var):
            if e.name == vector.name:
                return True
        elif isinstance(e, ir.Local):
            entry = state.names.get(e.name)
            if entry is not None and entry.operand.lanes:
                return True
        elif id(e) not in seen:
            seen.add(id(e))
            stack.extend(children(e))
            if isinstance(e, ir.Load):
                storage = state.storage.get(e.buffer)
                if storage is not None and storage.lanes:
                    return True
                stack.extend(e.index)
    return False


def narrow(values: Values, e: ir.Expr) -> Entry | None:
    """The value of an int64 expression as i32, or None where that cannot be shown to be right."""
    state = values.state
    key = (id(e), "narrow")
    if key in state.cache:
        return state.cache[key]
    if not fits(values, e):
        return None
    if not is_varying(values, e):
        wide = values.value(e)
        state.at(wide.place)
        short = cast_op(state.builder, wide.operand, int64, int32)
        state.here()
        entry = Entry(short, wide.place, wide.bind, wide.stable)
    else:
        computed = _compute(values, e)
        if computed is None:
            return None
        entry = computed
    return state.remember(key, entry) if entry.stable else entry


def _compute(values: Values, e: ir.Expr) -> Entry | None:
    state = values.state
    if isinstance(e, ir.Var):
        return _vector_variable(values)
    if isinstance(e, ir.Local):
        definition = state.resolve(e.name)
        return None if definition is None else narrow(values, definition)
    if isinstance(e, ir.Cast) and e.x.dtype.itemsize < 8 and not e.x.dtype.is_float:
        inner = values.value(e.x)
        parts = [inner]
    elif isinstance(e, ir.Binary) and e.op in OPERATIONS:
        both = [narrow(values, e.a), narrow(values, e.b)]
        if None in both:
            return None
        parts = [part for part in both if part is not None]
    else:
        return None
    parts = [values.spread(part) for part in parts]
    place = max(part.place for part in parts)
    state.at(place)
    b = state.builder
    if isinstance(e, ir.Cast):
        operand = cast_op(b, parts[0].operand, e.x.dtype, int32)
    else:
        assert isinstance(e, ir.Binary)
        unsigned = values.divides_naturals(e)
        operand = binary_op(b, e.op, int32, parts[0].operand, parts[1].operand, unsigned)
    state.here()
    return Entry(operand, place, max(p.bind for p in parts), all(p.stable for p in parts))


def _vector_variable(values: Values) -> Entry:
    """base + (0, 1, 2, ...) in 32 bits."""
    state = values.state
    vector = state.vector
    assert vector is not None
    key = ("iota32", vector.name)
    if key not in state.cache:
        b = state.builder
        state.at(vector.scope)
        base = b.splat(cast_op(b, vector.base.operand, int64, int32), vector.lanes)
        wide = base + b.iota("i32", vector.lanes)
        state.here()
        state.remember(key, Entry(wide, vector.scope, vector.scope))
    return state.cache[key]


def narrowed(values: Values, e: ir.Expr) -> Entry | None:
    """A comparison of index expressions, or a conversion of one, done in 32 bits; None if it is neither."""
    if isinstance(e, ir.Binary) and e.op in ir.COMPARE_OPS and e.a.dtype is int64:
        operands: tuple[ir.Expr, ...] = (e.a, e.b)
    elif isinstance(e, ir.Cast) and e.x.dtype is int64 and e.dtype.kind != "b":
        operands = (e.x,)
    else:
        return None
    if not is_varying(values, e) or not all(fits(values, x) for x in operands):
        return None
    found = [narrow(values, x) for x in operands]
    if None in found:
        return None
    parts = [values.spread(part) for part in found if part is not None]
    state = values.state
    place = max(part.place for part in parts)
    state.at(place)
    if isinstance(e, ir.Cast):
        operand = cast_op(state.builder, parts[0].operand, int32, e.dtype)
    else:
        assert isinstance(e, ir.Binary)
        operand = compare_op(state.builder, e.op, int32, parts[0].operand, parts[1].operand)
    state.here()
    return Entry(operand, place, max(p.bind for p in parts), all(p.stable for p in parts))
