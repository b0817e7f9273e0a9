"""Roots, exponentials, logarithms, trigonometric and hyperbolic functions, powers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.node import Node
from graphc.ops.arithmetic import add, div, floats_only, mul, neg, sub
from graphc.ops.compare import bit_and, eq, ge, select
from graphc.ops.elementwise import FLOATING, INF, NAN, SPECIALS, Unary, Vjp, binary_op, unary_op
from graphc.ops.sample import Arg
from graphc.ops.spread import like, scalar_value

_POSITIVE = Arg((3, 5), low=0.3, high=4.0)
_INSIDE = Arg((3, 5), low=-0.8, high=0.8)
_ERF = np.frompyfunc(math.erf, 1, 1)


def _times(factor: Callable[[Node, Node], Node]) -> Vjp:
    """A VJP ct * f'(x), given f' in terms of x and y = f(x)."""
    return lambda ct, node: (mul(ct, factor(node.inputs[0], node)),)


def _function(
    name: str,
    doc: str,
    evaluate: Callable[[np.ndarray], np.ndarray],
    vjp: Vjp,
    domain: Arg | None = None,
    cost: float = 12.0,
    edges: Sequence[float] = SPECIALS,
) -> Unary:
    return unary_op(name, doc, evaluate=evaluate, vjp=vjp, domain=domain, cost=cost, edges=edges)


def _square(x: Node) -> Node:
    return mul(x, x)


def _one_minus(x: Node) -> Node:
    return sub(like(x, 1), x)


def _one_plus(x: Node) -> Node:
    return add(x, like(x, 1))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(_ERF(x.astype(np.float64))).astype(x.dtype)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """exp of a negative number only, so that nothing overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def _rsqrt(x: np.ndarray) -> np.ndarray:
    return (1 / np.sqrt(x)).astype(x.dtype)


# ------------------------------------------------------- roots, exp and log

sqrt = _function(
    "sqrt",
    "The square root; NaN below 0.",
    np.sqrt,
    lambda ct, y: (div(ct, add(y, y)),),
    _POSITIVE,
    4.0,
)
rsqrt = _function(
    "rsqrt",
    "1 / sqrt(x).",
    _rsqrt,
    _times(lambda x, y: mul(like(y, -0.5), mul(y, _square(y)))),
    _POSITIVE,
    6.0,
)
exp = _function("exp", "e to the power x.", np.exp, _times(lambda x, y: y))
expm1 = _function("expm1", "exp(x) - 1, exact near 0.", np.expm1, _times(lambda x, y: _one_plus(y)))
log = _function("log", "The natural logarithm.", np.log, lambda ct, y: (div(ct, y.inputs[0]),), _POSITIVE)
log1p = _function(
    "log1p",
    "log(1 + x), exact near 0.",
    np.log1p,
    lambda ct, y: (div(ct, _one_plus(y.inputs[0])),),
    _POSITIVE,
)
log2 = _function(
    "log2",
    "The logarithm to base 2.",
    np.log2,
    lambda ct, y: (div(ct, mul(y.inputs[0], like(ct, math.log(2.0)))),),
    _POSITIVE,
)

# ------------------------------------------------------------ trigonometric

_ANGLES = (*SPECIALS[:6], 1e-30, 100.0, *SPECIALS[8:])
sin = _function("sin", "The sine.", np.sin, _times(lambda x, y: cos(x)), edges=_ANGLES)
cos: Unary = _function("cos", "The cosine.", np.cos, _times(lambda x, y: neg(sin(x))), edges=_ANGLES)
tan = _function(
    "tan", "The tangent.", np.tan, _times(lambda x, y: _one_plus(_square(y))), _INSIDE, 20.0, _ANGLES
)
asin = _function(
    "asin", "The arc sine.", np.arcsin, _times(lambda x, y: rsqrt(_one_minus(_square(x)))), _INSIDE
)
acos = _function(
    "acos", "The arc cosine.", np.arccos, _times(lambda x, y: neg(rsqrt(_one_minus(_square(x))))), _INSIDE
)
atan = _function(
    "atan", "The arc tangent.", np.arctan, lambda ct, y: (div(ct, _one_plus(_square(y.inputs[0]))),)
)


def _vjp_atan2(ct: Node, node: Node) -> Sequence[Node]:
    a, b = node.inputs
    length = add(_square(a), _square(b))
    origin = eq(length, like(length, 0.0))  # has no angle: a gradient of zero, not NaN
    scaled = div(ct, select(origin, like(length, 1.0), length))
    return mul(scaled, b), neg(mul(scaled, a))


atan2 = binary_op(
    "atan2",
    "The angle of the point (b, a), in [-pi, pi].",
    evaluate=np.arctan2,
    vjp=_vjp_atan2,
    dtypes=FLOATING,
    domain=(Arg((3, 5), low=0.5), (3, 5)),
    cost=24.0,
)

# --------------------------------------------------------------- hyperbolic

sinh = _function("sinh", "The hyperbolic sine.", np.sinh, _times(lambda x, y: cosh(x)), edges=_ANGLES)
cosh: Unary = _function(
    "cosh", "The hyperbolic cosine.", np.cosh, _times(lambda x, y: sinh(x)), edges=_ANGLES
)
tanh = _function("tanh", "The hyperbolic tangent.", np.tanh, _times(lambda x, y: _one_minus(_square(y))))
asinh = _function(
    "asinh",
    "The inverse of sinh.",
    np.arcsinh,
    _times(lambda x, y: rsqrt(_one_plus(_square(x)))),
    edges=_ANGLES,
)
acosh = _function(
    "acosh",
    "The inverse of cosh; NaN below 1.",
    np.arccosh,
    _times(lambda x, y: rsqrt(sub(_square(x), like(x, 1)))),
    Arg((3, 5), low=1.3, high=3.0),
    edges=_ANGLES,
)
atanh = _function(
    "atanh",
    "The inverse of tanh.",
    np.arctanh,
    lambda ct, y: (div(ct, _one_minus(_square(y.inputs[0]))),),
    _INSIDE,
)

# ------------------------------------------------------------ erf and sigmoid

erf = _function(
    "erf",
    "The error function.",
    _erf,
    _times(lambda x, y: mul(like(x, 2 / math.sqrt(math.pi)), exp(neg(_square(x))))),
)
sigmoid = _function("sigmoid", "1 / (1 + exp(-x)).", _sigmoid, _times(lambda x, y: mul(y, _one_minus(y))))

# --------------------------------------------------------------------- powers


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NumPy's power; a negative power of an integer is truncated to an integer, as in PyTorch."""
    if a.dtype.kind != "i":
        return np.power(a, b)
    unit = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0))
    return np.where(b < 0, unit, np.power(a, np.maximum(b, 0))).astype(a.dtype)


def _vjp_pow(ct: Node, node: Node) -> Sequence[Node]:
    """d/da = b a^(b-1), but 0 where b is 0; d/db = a^b log a, but 0 where a is 0 and b is not negative."""
    a, b = node.inputs
    zero, one = like(a, 0), like(a, 1)
    flat = bit_and(eq(a, zero), ge(b, zero))
    db = mul(ct, mul(node, log(select(flat, one, a))))
    known = scalar_value(b)
    if known is None:
        less = sub(select(eq(b, zero), one, b), one)
        return mul(ct, mul(b, pow_(a, less))), db
    if known == 0:
        return zero, db
    slope = one if known == 1 else a if known == 2 else pow_(a, like(b, known - 1))
    return mul(ct, mul(b, slope)), db


pow_ = binary_op(
    "pow",
    "a to the power b. Integers: a negative power is truncated to an integer, so 0 unless a is 1 or -1.",
    evaluate=_power,
    vjp=floats_only(_vjp_pow, 2),
    typed_vjp=False,
    domain=(Arg((3, 5), low=0.4), (3, 5)),
    whole=(Arg((5, 7), low=-3, high=4), Arg((5, 7), low=-2, high=4)),
    edges=(0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.75, -0.75, 2.5, INF, -INF, NAN),
    cost=32.0,
)
