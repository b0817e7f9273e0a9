"""Arithmetic, rounding, and the larger and smaller of two values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.node import Node
from graphc.ops.compare import eq, lt, select
from graphc.ops.elementwise import INF, NUMBERS, SPECIALS, Binary, Unary, Vjp, binary_op, unary_op
from graphc.ops.sample import Arg
from graphc.ops.spread import like

_HALVES = (0.5, -0.5, 1.5, 2.5, -2.5, 1e7 + 0.5, 0.49999997, *SPECIALS)
_BETWEEN = Arg((3, 5), low=0.1, high=0.4)  # no integer near: rounding is constant there


def floats_only(vjp: Vjp, arity: int) -> Vjp:
    """No gradients for integers."""
    return lambda ct, node: vjp(ct, node) if node.type.dtype.is_float else (None,) * arity


def flat(ct: Node, node: Node) -> tuple[Node]:
    """The VJP of piecewise constant functions."""
    return (like(ct, 0),)


def _sign(x: np.ndarray) -> np.ndarray:
    found = np.sign(x)
    return np.where(np.isnan(found), found.dtype.type(0), found) if found.dtype.kind == "f" else found


# ------------------------------------------------------------- one operand

neg: Unary = unary_op("neg", "-x.", evaluate=np.negative, vjp=lambda ct, node: (neg(ct),), dtypes=NUMBERS)
sign = unary_op(
    "sign",
    "-1, 0 or 1, and 0 for NaN as in PyTorch; its gradient is 0.",
    evaluate=_sign,
    vjp=flat,
    dtypes=NUMBERS,
    domain=Arg((3, 5), low=0.5),
)
abs_ = unary_op(
    "abs",
    "|x|; the gradient at 0 is 0.",
    evaluate=np.absolute,
    vjp=lambda ct, node: (mul(ct, sign(node.inputs[0])),),
    dtypes=NUMBERS,
    domain=Arg((3, 5), low=0.5),
)
floor = unary_op("floor", "The integer below.", evaluate=np.floor, vjp=flat, domain=_BETWEEN, edges=_HALVES)
ceil = unary_op("ceil", "The integer above.", evaluate=np.ceil, vjp=flat, domain=_BETWEEN, edges=_HALVES)
round_ = unary_op(
    "round",
    "The nearest integer, halves to even.",
    evaluate=np.rint,
    vjp=flat,
    domain=_BETWEEN,
    edges=_HALVES,
)
trunc = unary_op(
    "trunc", "The integer towards zero.", evaluate=np.trunc, vjp=flat, domain=_BETWEEN, edges=_HALVES
)

# ------------------------------------------------------------ two operands

add = binary_op("add", "a + b.", evaluate=np.add, vjp=lambda ct, node: (ct, ct))
sub = binary_op("sub", "a - b.", evaluate=np.subtract, vjp=lambda ct, node: (ct, neg(ct)))
mul: Binary = binary_op(
    "mul",
    "a * b.",
    evaluate=np.multiply,
    vjp=lambda ct, node: (mul(ct, node.inputs[1]), mul(ct, node.inputs[0])),
)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.true_divide(a, b) if a.dtype.kind == "f" else np.floor_divide(a, b)


def _vjp_div(ct: Node, node: Node) -> Sequence[Node | None]:
    da = div(ct, node.inputs[1])
    return da, neg(mul(da, node))


div = binary_op(
    "div",
    "a / b: true division of floats, floor division of integers (0 where b is 0).",
    evaluate=_divide,
    vjp=floats_only(_vjp_div, 2),
    domain=((2, 3), Arg((2, 3), low=0.5)),
    cost=4.0,
)
rem = binary_op(
    "rem",
    "a - b * floor(a / b), exactly: Python's %, with the sign of b (integers: 0 where b is 0).",
    evaluate=np.remainder,
    vjp=floats_only(lambda ct, node: (ct, neg(mul(ct, floor(div(*node.inputs))))), 2),
    domain=(Arg((2, 3), low=3.1, high=3.9), Arg((2, 3), low=1.3, high=1.5)),
    edges=(0.5, -0.5, 3.0, -3.0, 7.25, -7.25, 2.0, INF, 0.0),
    cost=8.0,
)


def _extremum_vjp(loses: Callable[[Node, Node], Node]) -> Vjp:
    """The whole cotangent to the winner, half to each on a tie (PyTorch's rule)."""

    def vjp(ct: Node, node: Node) -> Sequence[Node | None]:
        a, b = node.inputs
        shared = select(eq(a, b), mul(ct, like(ct, 0.5)), ct)
        zero = like(ct, 0)
        return select(loses(a, b), zero, shared), select(loses(b, a), zero, shared)

    return floats_only(vjp, 2)


_APART = (Arg((4, 5), distinct=True), Arg((4, 5), low=-2.013, high=1.987, distinct=True))
maximum = binary_op(
    "maximum",
    "The larger; NaN if either is NaN.",
    evaluate=np.maximum,
    vjp=_extremum_vjp(lambda a, b: lt(a, b)),
    loop="max",
    domain=_APART,
)
minimum = binary_op(
    "minimum",
    "The smaller; NaN if either is NaN.",
    evaluate=np.minimum,
    vjp=_extremum_vjp(lambda a, b: lt(b, a)),
    loop="min",
    domain=_APART,
)
