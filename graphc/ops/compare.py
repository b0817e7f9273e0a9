"""Comparisons, bits, choice between values, and conversion: ops whose gradients need no arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.node import NO_ATTRS, Attrs, Kind, Node, make
from graphc.ir.types import DType, TensorType, bool_, float32, float64, int32, int64, uint8, uint32
from graphc.loop.ir import cast as cast_expr
from graphc.loop.ir import select as select_expr
from graphc.ops.constant import wrong
from graphc.ops.elementwise import ANY, BITS, INTEGERS, NAN, SPECIALS, binary_op, unary_op
from graphc.ops.op import fail, register
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample, Typed
from graphc.ops.spread import like

# ----------------------------------------------------------------- comparisons

eq = binary_op("eq", "a == b, as bool.", evaluate=np.equal, dtypes=ANY, result=bool_)
ne = binary_op("ne", "a != b, as bool.", evaluate=np.not_equal, dtypes=ANY, result=bool_)
lt = binary_op("lt", "a < b, as bool.", evaluate=np.less, dtypes=ANY, result=bool_)
le = binary_op("le", "a <= b, as bool.", evaluate=np.less_equal, dtypes=ANY, result=bool_)
gt = binary_op("gt", "a > b, as bool.", evaluate=np.greater, dtypes=ANY, result=bool_)
ge = binary_op("ge", "a >= b, as bool.", evaluate=np.greater_equal, dtypes=ANY, result=bool_)

isnan = unary_op("isnan", "Whether x is NaN.", evaluate=np.isnan, result=bool_)
isinf = unary_op("isinf", "Whether x is an infinity.", evaluate=np.isinf, result=bool_)
isfinite = unary_op(
    "isfinite", "Whether x is neither NaN nor an infinity.", evaluate=np.isfinite, result=bool_
)

# ------------------------------------------------------------------------ bits

logical_not = unary_op(
    "logical_not", "not x, of bools.", evaluate=np.logical_not, dtypes=frozenset({bool_}), loop="not"
)
bit_and = binary_op("bit_and", "a & b; of bools: and.", evaluate=np.bitwise_and, dtypes=BITS, loop="and")
bit_or = binary_op("bit_or", "a | b; of bools: or.", evaluate=np.bitwise_or, dtypes=BITS, loop="or")
bit_xor = binary_op(
    "bit_xor", "a ^ b; of bools: exclusive or.", evaluate=np.bitwise_xor, dtypes=BITS, loop="xor"
)

_SHIFTS = (Arg((5, 7), low=-9, high=10), Arg((5, 7), low=0, high=8))
shl = binary_op(
    "shl",
    "a << b; 0 <= b < number of bits.",
    evaluate=np.left_shift,
    dtypes=INTEGERS,
    whole=_SHIFTS,
)
shr = binary_op(
    "shr",
    "a >> b, keeping the sign of signed integers; 0 <= b < number of bits.",
    evaluate=np.right_shift,
    dtypes=INTEGERS,
    whole=_SHIFTS,
)

# ---------------------------------------------------------------------- select


def _infer_select(types: Sequence[TensorType], attrs: Any) -> TensorType:
    condition, a, b = types
    if condition.dtype is not bool_:
        raise fail("select", "the condition must be bool; compare with ne(x, 0) first", types, TypeError)
    if a.shape != b.shape or condition.shape != a.shape:
        raise fail("select", "operands must have equal shapes; broadcast first", types)
    if a.dtype is not b.dtype:
        raise fail("select", "both choices must have equal dtypes; cast first", types, TypeError)
    return a


def _vjp_select(ct: Node, node: Node) -> Sequence[Node | None]:
    if not node.type.dtype.is_float:
        return None, None, None
    condition, zero = node.inputs[0], like(ct, 0)
    return None, select(condition, ct, zero), select(condition, zero, ct)


def _select_samples() -> Iterable[Sample | ErrorSample]:
    dtypes = tuple(sorted(ANY, key=lambda t: t.name))
    yield Sample(
        lambda c, a, b: select(c, a, b), [Arg((3, 4), bool_), (3, 4), (3, 4)], dtypes, expect=np.where
    )
    condition = Typed((2,), bool_)
    yield wrong(select, (2,), (2,), (2,), says="select: the condition must be bool", error=TypeError)
    yield wrong(select, condition, (2,), (3,), says="select: operands must have equal shapes")
    yield wrong(
        select, condition, (2,), Typed((2,), int64), says="select: both choices must", error=TypeError
    )


SELECT = register(
    "select",
    Kind.ELEMENTWISE,
    infer=_infer_select,
    evaluate=lambda arrays, attrs: np.where(*arrays),
    vjp=_vjp_select,
    lower=lambda node, index, reads: select_expr(*[read(index) for read in reads]),
    samples=_select_samples,
)


def select(condition: Node, a: Node, b: Node) -> Node:
    """a where the bool condition holds, else b; gradients pass only to the one chosen."""
    return make(SELECT, (condition, a, b), NO_ATTRS)


# ------------------------------------------------------------------------ cast


@dataclass(frozen=True, eq=False)
class CastAttrs(Attrs):
    dtype: DType


def _vjp_cast(ct: Node, node: Node) -> Sequence[Node | None]:
    """Only between floats is a cast differentiable."""
    source = node.inputs[0].type.dtype
    return (cast(ct, source) if source.is_float and ct.type.dtype.is_float else None,)


def _cast_samples() -> Iterable[Sample | ErrorSample]:
    small = Arg((3, 5), low=0, high=100)
    for target in (float32, float64, int64, int32, uint8, uint32, bool_):
        name = target.numpy
        yield Sample(
            lambda x, t=target: cast(x, t),
            [small],
            tuple(sorted(ANY, key=lambda t: t.name)),
            gradient=False,
            expect=lambda x, n=name: x.astype(n),
            label=target.name,
        )
    yield Sample(lambda x: cast(x, int32), [Arg((5,), specials=(1.9, -1.9, 0.0, -0.0, 2.5))], FLOATS, False)
    yield Sample(lambda x: cast(x, bool_), [Arg((len(SPECIALS),), specials=SPECIALS)], FLOATS, False)
    yield Sample(
        lambda x: cast(x, float32),
        [Arg((4,), float64, specials=(1e300, 1e-300, 0.1, NAN))],
        (float64,),
        False,
    )
    yield Sample(lambda x: cast(x, int32), [Arg((4,), int64, low=-(2**40), high=2**40)], (int64,), False)


CAST = register(
    "cast",
    Kind.ELEMENTWISE,
    infer=lambda types, attrs: TensorType(types[0].shape, attrs.dtype),
    evaluate=lambda arrays, attrs: arrays[0].astype(attrs.dtype.numpy),
    vjp=_vjp_cast,
    lower=lambda node, index, reads: cast_expr(reads[0](index), node.type.dtype),
    attrs=CastAttrs,
    samples=_cast_samples,
)


def cast(x: Node, dtype: DType) -> Node:
    """Convert as NumPy's astype: floats are truncated to integers, integers wrap, x != 0 to bool.

    A float outside the range of the integer type gives an unspecified integer.
    """
    return x if x.type.dtype is dtype else make(CAST, (x,), CastAttrs(dtype))
