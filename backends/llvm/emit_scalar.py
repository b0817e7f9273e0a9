"""The meaning of each loop-IR operation on operands of LLVM, scalar or vector alike."""

from __future__ import annotations

from graphc.backends.llvm import math
from graphc.backends.llvm.emit_builder import BITS, Builder, Operand
from graphc.backends.llvm.emit_state import element
from graphc.ir.types import DType
from graphc.loop.ir import BIT_TYPE

_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
_ROUNDING = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
    "sqrt": "sqrt",
    "abs": "fabs",
}


# --------------------------------------------------------------------- unary


def unary_op(b: Builder, op: str, dtype: DType, x: Operand) -> Operand:
    """A Unary; predicates give i1."""
    if not dtype.is_float:
        return _integer_unary(b, op, dtype, x)
    if op in _ROUNDING:
        return b.intrinsic(_ROUNDING[op], x)
    if op == "neg":
        return -x
    if op == "sign":
        return b.select(b.compare("one", x, 0.0), b.intrinsic("copysign", x.like(1.0), x), x.like(0.0))
    if op == "isnan":
        return b.compare("uno", x, x)
    if op == "isinf":
        return b.compare("oeq", b.intrinsic("fabs", x), float("inf"))
    if op == "isfinite":
        return b.compare("olt", b.intrinsic("fabs", x), float("inf"))
    if op == "not":
        return b.compare("oeq", x, 0.0)
    if op == "bits":
        return b.cast("bitcast", x, element(BIT_TYPE[dtype]))
    return math.unary(b, op, x)


def _integer_unary(b: Builder, op: str, dtype: DType, x: Operand) -> Operand:
    if op == "not":
        return ~x
    if op in ("floor", "ceil", "round", "trunc") or dtype.kind == "b":
        return x
    if op in ("isnan", "isinf"):
        return b.constant("i1", False, x.lanes)
    if op == "isfinite":
        return b.constant("i1", True, x.lanes)
    if op == "neg":
        return 0 - x
    if op == "abs":
        return x if dtype.kind == "u" else b.select(x < 0, 0 - x, x)
    if op == "sign":
        positive = b.cast("zext", b.compare("ne", x, 0), x.elem)
        return positive if dtype.kind == "u" else b.select(x < 0, -1, positive)
    raise ValueError(f"{op} of {dtype.name}: cast to a float type first")


# -------------------------------------------------------------------- binary


def compare_op(b: Builder, op: str, dtype: DType, x: Operand, y: Operand) -> Operand:
    """eq ne lt le gt ge; only `ne` is true of NaN."""
    if dtype.is_float:
        return b.compare("une" if op == "ne" else "o" + op, x, y)
    if op in ("eq", "ne"):
        return b.compare(op, x, y)
    return b.compare(("s" if dtype.kind == "i" else "u") + op, x, y)


def binary_op(b: Builder, op: str, dtype: DType, x: Operand, y: Operand, unsigned: bool = False) -> Operand:
    """A Binary of equal-typed operands. `unsigned`: integers known to be x >= 0, y > 0."""
    if dtype.is_float:
        return _float_binary(b, op, x, y)
    if dtype.kind == "b":
        return _bool_binary(b, op, x, y)
    if op in _INTEGER:
        return b.binary(_INTEGER[op], x, y)
    if op in ("max", "min"):
        return b.intrinsic(("s" if dtype.kind == "i" else "u") + op, x, y)
    if op in ("div", "rem"):
        return _divide(b, op, x, y, signed=dtype.kind == "i" and not unsigned, safe=unsigned)
    if op in ("shl", "shr"):
        return _shift(b, op, dtype, x, y)
    if op == "mulhi":
        wide = b.cast("zext", x, "i64") * b.cast("zext", y, "i64")
        return b.cast("trunc", b.binary("lshr", wide, 32), x.elem)
    if op == "pow":
        return math.integer_power(b, x, y, dtype.kind == "i")
    raise ValueError(f"{op} of {dtype.name}")


def _float_binary(b: Builder, op: str, x: Operand, y: Operand) -> Operand:
    if op in _FLOAT:
        return b.binary(_FLOAT[op], x, y, "" if op == "div" else "contract ")
    if op in ("max", "min"):
        return extreme(b, op, x, y)
    if op in ("pow", "atan2", "rem"):
        return math.binary(b, op, x, y)
    raise ValueError(f"{op} of floats")


def extreme(b: Builder, op: str, x: Operand, y: Operand) -> Operand:
    """max or min that gives NaN if either operand is NaN.

    `select(x > y, x, y)` is one machine instruction and gives y when either is NaN; if x is a constant
    that is already right, else a NaN in x is put back.
    """
    if y.const is not None and x.const is None:
        x, y = y, x
    best = b.select(b.compare("ogt" if op == "max" else "olt", x, y), x, y)
    if x.const is not None and x.const == x.const:
        return best
    return b.select(b.compare("uno", x, x), x, best)


def _bool_binary(b: Builder, op: str, x: Operand, y: Operand) -> Operand:
    if op in ("add", "or", "max"):
        return x | y
    if op in ("mul", "and", "min"):
        return x & y
    if op in ("xor", "sub"):
        return x ^ y
    raise ValueError(f"{op} of bool")


def _divide(b: Builder, op: str, x: Operand, y: Operand, signed: bool, safe: bool) -> Operand:
    """Floor division and its remainder. x/0 and x%0 are 0 (as NumPy), never a trap."""
    word = "div" if op == "div" else "rem"
    if not signed:
        if safe or y.const:
            return b.binary("u" + word, x, y)
        zero = b.compare("eq", y, 0)
        return b.select(zero, 0, b.binary("u" + word, x, b.select(zero, 1, y)))
    divisor, bad = y, None
    if not y.const or y.const == -1:
        # x / -1 overflows for the lowest x: both bad divisors become 1 and the result is mended
        minus = b.compare("eq", y, -1)
        bad = b.compare("eq", y, 0)
        divisor = b.select(bad | minus, 1, y)
    quotient = b.binary("sdiv", x, divisor)
    rest = x - quotient * divisor
    off = b.compare("ne", rest, 0) & b.compare("slt", rest ^ divisor, 0)
    if op == "div":
        result = quotient - b.cast("zext", off, x.elem)
        return result if bad is None else b.select(bad, 0, b.select(minus, 0 - x, result))
    result = b.select(off, rest + divisor, rest)
    return result if bad is None else b.select(bad, 0, result)


def _shift(b: Builder, op: str, dtype: DType, x: Operand, y: Operand) -> Operand:
    """Shifts by the type's width or more give 0 (-1 for a negative number shifted right), as NumPy."""
    bits = BITS[x.elem]
    arithmetic = op == "shr" and dtype.kind == "i"
    word = "shl" if op == "shl" else "ashr" if arithmetic else "lshr"
    if y.const is not None and 0 <= y.const < bits:
        return b.binary(word, x, y)
    inside = b.compare("ult", y, bits)
    if arithmetic:
        return b.binary(word, x, b.select(inside, y, bits - 1))
    return b.select(inside, b.binary(word, x, b.select(inside, y, 0)), 0)


# -------------------------------------------------------------------- casts


def cast_op(b: Builder, x: Operand, source: DType, target: DType) -> Operand:
    """Conversion as NumPy's astype."""
    to = element(target)
    if source is target:
        return x
    if target.kind == "b":
        return b.compare("une" if source.is_float else "ne", x, 0)
    if source.is_float:
        return _from_float(b, x, target)
    if target.is_float:
        return b.cast("sitofp" if source.kind == "i" else "uitofp", x, to)
    if BITS[to] == BITS[x.elem]:
        return x
    if BITS[to] < BITS[x.elem]:
        return b.cast("trunc", x, to)
    return b.cast("sext" if source.kind == "i" else "zext", x, to)


def _from_float(b: Builder, x: Operand, target: DType) -> Operand:
    to = element(target)
    if target.is_float:
        return b.cast("fptrunc" if x.elem == "double" else "fpext", x, to)
    # out of range is undefined in NumPy too; freeze keeps it an ordinary wrong number
    wide = {"i8": "i32", "i32": "i32", "i64": "i64"}[to]
    if target.name == "uint32":
        wide = "i64"
    number = b.cast("fptosi", x, wide)
    number = b.instruction(number.elem, number.lanes, f"freeze {number.typed}")
    return number if wide == to else b.cast("trunc", number, to)
