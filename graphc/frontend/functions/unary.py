"""Elementwise functions of one tensor: exp and log family, trigonometry, rounding, tests."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.checks import no_tensor
from graphc.frontend.functions.methods import method
from graphc.frontend.nodes import cast, number
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import bool_, int64

Unary = Callable[[Node], Node]


def _float(node: Node) -> Node:
    return node if node.dtype.is_float else ops.cast(node, get_default_dtype())


def scaled(node: Node, factor: float) -> Node:
    """node * factor."""
    return ops.mul(node, number(factor, node.dtype, node.shape))


def _function(label: str, name: str, build: Unary, doc: str) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            raise no_tensor(name, "'input'", input)
        return apply(label, build, input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _exp2(n: Node) -> Node:
    return ops.exp(scaled(n, math.log(2.0)))


def _log10(n: Node) -> Node:
    return scaled(ops.log(n), 1.0 / math.log(10.0))


def _reciprocal(n: Node) -> Node:
    return ops.div(ops.ones(n.type), n)


def _sinc(n: Node) -> Node:
    zero = ops.eq(n, ops.zeros(n.type))
    angle = scaled(ops.select(zero, ops.ones(n.type), n), math.pi)
    return ops.select(zero, ops.ones(n.type), ops.div(ops.sin(angle), angle))


def _erfc(n: Node) -> Node:
    return ops.sub(ops.ones(n.type), ops.erf(n))


# name -> (function of a float node, in words); integers become the default float dtype first
_FLOATING: dict[str, tuple[Unary, str]] = {
    "exp": (ops.exp, "e ** input"),
    "exp2": (_exp2, "2 ** input"),
    "expm1": (ops.expm1, "e ** input - 1, exact near 0"),
    "log": (ops.log, "the natural logarithm"),
    "log1p": (ops.log1p, "log(1 + input), exact near 0"),
    "log2": (ops.log2, "the logarithm to base 2"),
    "log10": (_log10, "the logarithm to base 10"),
    "sqrt": (ops.sqrt, "the square root"),
    "rsqrt": (ops.rsqrt, "1 / sqrt(input)"),
    "sin": (ops.sin, "the sine"),
    "cos": (ops.cos, "the cosine"),
    "tan": (ops.tan, "the tangent"),
    "asin": (ops.asin, "the inverse sine"),
    "acos": (ops.acos, "the inverse cosine"),
    "atan": (ops.atan, "the inverse tangent"),
    "sinh": (ops.sinh, "the hyperbolic sine"),
    "cosh": (ops.cosh, "the hyperbolic cosine"),
    "tanh": (ops.tanh, "the hyperbolic tangent"),
    "asinh": (ops.asinh, "the inverse hyperbolic sine"),
    "acosh": (ops.acosh, "the inverse hyperbolic cosine"),
    "atanh": (ops.atanh, "the inverse hyperbolic tangent"),
    "erf": (ops.erf, "the error function"),
    "erfc": (_erfc, "1 - erf(input)"),
    "sigmoid": (ops.sigmoid, "1 / (1 + exp(-input))"),
    "reciprocal": (_reciprocal, "1 / input"),
    "sinc": (_sinc, "sin(pi input) / (pi input)"),
    "deg2rad": (lambda n: scaled(n, math.pi / 180), "degrees as radians"),
    "rad2deg": (lambda n: scaled(n, 180 / math.pi), "radians as degrees"),
}
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
            "atanh": "arctanh", "sigmoid": "expit"}  # fmt: skip


def _of_floats(build: Unary) -> Unary:
    return lambda n: build(_float(n))


def _label(name: str) -> str:
    return f"{name.capitalize()}Backward0"


for _name, (_build, _doc) in _FLOATING.items():
    _names = (_name, _ALIASES[_name]) if _name in _ALIASES else (_name,)
    _f = _function(_label(_name), _name, _of_floats(_build), f"Elementwise: {_doc}.")
    method(*_names, inplace=True, repeats=True)(_f)


def _keep_integers(build: Unary) -> Unary:
    return lambda n: build(n) if n.dtype.is_float else n


def _negate(n: Node) -> Node:
    if n.dtype is bool_:
        raise fail(
            RuntimeError,
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a "
            "mask, "
            "use the `~` or `logical_not()` operator instead.",
        )
    return ops.neg(n)


def _square(n: Node) -> Node:
    n = cast(n, int64) if n.dtype is bool_ else n
    return ops.mul(n, n)


def _sign(n: Node) -> Node:
    return n if n.dtype is bool_ else ops.sign(n)


def _relu(n: Node) -> Node:
    """Zero for negative elements; the gradient at 0 is 0, as in PyTorch."""
    zero = ops.zeros(n.type)
    return ops.select(ops.le(n, zero), zero, n)


for _names, _build, _doc in (
    (("neg", "negative"), _negate, "-input"),
    (("abs", "absolute"), lambda n: n if n.dtype is bool_ else ops.abs(n), "the absolute value"),
    (("sign", "sgn"), _sign, "-1, 0 or 1"),
    (("floor",), _keep_integers(ops.floor), "rounded down"),
    (("ceil",), _keep_integers(ops.ceil), "rounded up"),
    (("trunc", "fix"), _keep_integers(ops.trunc), "rounded towards zero"),
    (("square",), _square, "input ** 2"),
    (("relu",), _relu, "the larger of 0 and input"),
):
    method(*_names, inplace=True)(_function(_label(_names[0]), _names[0], _build, f"Elementwise: {_doc}."))


@method(inplace=True)
def round_(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded to `decimals` places, halves to even."""
    if not input.dtype.is_float:
        return apply("", lambda n: n, input)
    if decimals == 0:
        return apply("RoundBackward0", ops.round, input)
    ten = 10.0 ** abs(decimals)

    def build(n: Node) -> Node:
        factor = number(ten, n.dtype, n.shape)
        if decimals > 0:
            return ops.div(ops.round(ops.mul(n, factor)), factor)
        return ops.mul(ops.round(ops.div(n, factor)), factor)

    return apply("RoundBackward1", build, input)


@method(inplace=True)
def frac(input: Tensor) -> Tensor:
    """The part after the point, with the sign of the input."""
    return apply("FracBackward0", lambda n: ops.sub(n, ops.trunc(n)), input)


@method(inplace=True)
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(p / (1 - p)), with p limited to [eps, 1 - eps]."""

    def build(n: Node) -> Node:
        n = _float(n)
        if eps is not None:
            low, high = number(eps, n.dtype, n.shape), number(1 - eps, n.dtype, n.shape)
            n = ops.select(ops.lt(n, low), low, ops.select(ops.gt(n, high), high, n))
        return ops.log(ops.div(n, ops.sub(ops.ones(n.type), n)))

    return apply("LogitBackward0", build, input)


@method(inplace=True)
def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN and infinities replaced by numbers (by default 0 and the largest finite ones)."""
    if not input.dtype.is_float:
        return apply("", lambda n: n, input)
    largest = float(_largest(input.dtype.name))

    def build(n: Node) -> Node:
        zero = ops.zeros(n.type)
        high = number(largest if posinf is None else posinf, n.dtype, n.shape)
        low = number(-largest if neginf is None else neginf, n.dtype, n.shape)
        finite = ops.select(ops.isinf(n), ops.select(ops.gt(n, zero), high, low), n)
        return ops.select(ops.isnan(n), number(nan, n.dtype, n.shape), finite)

    return apply("NanToNumBackward0", build, input)


def _largest(name: str) -> float:
    return {"float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}[name]


@method()
def positive(input: Tensor) -> Tensor:
    """The input itself."""
    return input


def _test(name: str, build: Unary, otherwise: bool, doc: str) -> None:
    def test(n: Node) -> Node:
        return build(n) if n.dtype.is_float else ops.full(n.shape, otherwise, bool_)

    method(name)(_function("", name, test, f"Elementwise: whether the element is {doc}."))


_test("isnan", ops.isnan, False, "NaN")
_test("isinf", ops.isinf, False, "infinite")
_test("isfinite", ops.isfinite, True, "finite")
_test("isposinf", lambda n: ops.eq(n, ops.like(n, math.inf)), False, "positive infinity")
_test("isneginf", lambda n: ops.eq(n, ops.like(n, -math.inf)), False, "negative infinity")


@method()
def isreal(input: Tensor) -> Tensor:
    """True everywhere: there are no complex numbers."""
    return apply("", lambda n: ops.full(n.shape, True, bool_), input)


@method()
def signbit(input: Tensor) -> Tensor:
    """Whether an element is below zero (or is -0.0)."""

    def build(n: Node) -> Node:
        zero = ops.zeros(n.type)
        if not n.dtype.is_float:
            return ops.lt(cast(n, n.dtype), zero)
        return ops.bit_or(
            ops.lt(n, zero), ops.bit_and(ops.eq(n, zero), ops.lt(ops.div(ops.ones(n.type), n), zero))
        )

    return apply("", build, input)
