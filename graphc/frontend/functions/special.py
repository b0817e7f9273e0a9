"""Special functions: the gamma function's logarithm and its derivatives, inverses of the error function.

float32 is computed in float64 and rounded once. Values are compositions whose own derivatives are
accurate, so gradients of any order come from autodiff.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.checks import no_tensor
from graphc.frontend.functions.elementwise import Build, pointwise, result_dtype
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.unary import Unary, scaled
from graphc.frontend.nodes import cast, number
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import float64

_SHIFT = 10  # arguments below are moved up by the recurrence, to where the asymptotic series hold
# Bernoulli's numbers B(2), B(4), ...: ten terms reach 1e-17 from _SHIFT on
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
              -174611 / 330)  # fmt: skip


def _like(n: Node, value: float) -> Node:
    return number(value, n.dtype, n.shape)


def polynomial(x: Node, coefficients: Sequence[float]) -> Node:
    """The polynomial with these coefficients, that of the highest power first."""
    found = _like(x, coefficients[0])
    for c in coefficients[1:]:
        found = ops.add(ops.mul(found, x), _like(x, c))
    return found


def precisely(build: Unary) -> Unary:
    """`build` of a float64 node, its result in the dtype of the argument (integers: the default dtype)."""

    def function(n: Node) -> Node:
        out = n.dtype if n.dtype.is_float else get_default_dtype()
        return cast(build(cast(n, float64)), out)

    return function


def _lgamma_positive(x: Node) -> Node:
    """log(gamma(x)) for x > 0: Stirling's series, after steps of gamma(x + 1) = x gamma(x)."""
    one = _like(x, 1.0)
    small = ops.lt(x, _like(x, float(_SHIFT)))
    low = ops.select(small, x, one)
    product = low
    for k in range(1, _SHIFT):
        product = ops.mul(product, ops.add(low, _like(x, float(k))))
    z = ops.select(small, ops.add(x, _like(x, float(_SHIFT))), x)
    inverse = ops.div(one, z)
    terms = [b / ((2 * j) * (2 * j - 1)) for j, b in enumerate(_BERNOULLI, 1)]
    series = ops.mul(inverse, polynomial(ops.mul(inverse, inverse), terms[::-1]))
    main = ops.mul(ops.sub(z, _like(x, 0.5)), ops.sub(ops.log(z), one))
    found = ops.add(ops.add(main, _like(x, 0.5 * math.log(2 * math.pi) - 0.5)), series)
    return ops.sub(found, ops.select(small, ops.log(product), _like(x, 0.0)))


def lgamma_node(x: Node) -> Node:
    """log(abs(gamma(x))) of a float64 node."""
    one, zero = _like(x, 1.0), _like(x, 0.0)
    left = ops.lt(x, _like(x, 0.5))  # reflected: gamma(x) gamma(1 - x) = pi / sin(pi x)
    right = _lgamma_positive(ops.select(left, ops.sub(one, x), x))
    part = ops.select(left, ops.sub(x, ops.stop_gradient(ops.round(x))), _like(x, 0.5))
    sine = ops.abs(ops.sin(scaled(part, math.pi)))
    mirrored = ops.sub(ops.log(ops.div(_like(x, math.pi), sine)), right)
    found = ops.select(left, mirrored, right)
    endless = ops.isinf(x)  # (also: the series is infinity minus infinity there)
    return ops.select(endless, ops.select(ops.lt(x, zero), ops.neg(x), x), found)


def _digamma_positive(x: Node) -> Node:
    one = _like(x, 1.0)
    small = ops.lt(x, _like(x, float(_SHIFT)))
    low = ops.select(small, x, one)
    steps = ops.div(one, low)
    for k in range(1, _SHIFT):
        steps = ops.add(steps, ops.div(one, ops.add(low, _like(x, float(k)))))
    z = ops.select(small, ops.add(x, _like(x, float(_SHIFT))), x)
    inverse = ops.div(one, z)
    square = ops.mul(inverse, inverse)
    terms = [b / (2 * j) for j, b in enumerate(_BERNOULLI, 1)]
    series = ops.add(scaled(inverse, 0.5), ops.mul(square, polynomial(square, terms[::-1])))
    return ops.sub(ops.sub(ops.log(z), series), ops.select(small, steps, _like(x, 0.0)))


def digamma_node(x: Node) -> Node:
    """The derivative of lgamma, of a float64 node: minus infinity at 0, NaN at negative integers."""
    one, zero = _like(x, 1.0), _like(x, 0.0)
    left = ops.lt(x, _like(x, 0.5))
    right = _digamma_positive(ops.select(left, ops.sub(one, x), x))
    part = ops.select(left, ops.sub(x, ops.stop_gradient(ops.round(x))), _like(x, 0.5))
    pole = ops.eq(part, zero)
    angle = scaled(ops.select(pole, _like(x, 0.5), part), math.pi)
    mirrored = ops.sub(right, ops.div(_like(x, math.pi), ops.tan(angle)))
    at_pole = ops.select(ops.eq(x, zero), ops.div(_like(x, -1.0), x), _like(x, math.nan))
    return ops.select(left, ops.select(pole, at_pole, mirrored), right)


def zeta_node(s: Node, q: Node) -> Node:
    """Hurwitz' zeta function, the sum of (q + k) ** -s over k >= 0, for s > 1 (Euler-Maclaurin).

    For q > 0, and for whole s from q = -10 on.
    """
    one = _like(q, 1.0)
    total = ops.pow(q, ops.neg(s))
    for k in range(1, 2 * _SHIFT):
        total = ops.add(total, ops.pow(ops.add(q, _like(q, float(k))), ops.neg(s)))
    z = ops.add(q, _like(q, 2.0 * _SHIFT))
    power = ops.pow(z, ops.neg(s))
    total = ops.add(total, ops.add(ops.div(ops.mul(z, power), ops.sub(s, one)), scaled(power, 0.5)))
    factor = ops.mul(s, ops.div(power, z))  # s (s + 1) ... (s + 2j - 2) z ** (-s - 2j + 1)
    square = ops.div(one, ops.mul(z, z))
    for j, b in enumerate(_BERNOULLI, 1):
        total = ops.add(total, scaled(factor, b / math.factorial(2 * j)))
        more = ops.mul(ops.add(s, _like(s, 2.0 * j - 1)), ops.add(s, _like(s, 2.0 * j)))
        factor = ops.mul(ops.mul(factor, more), square)
    return total


def _need(name: str, input: Any) -> None:
    if not isinstance(input, Tensor):
        raise no_tensor(name, "'input'", input)


@method("lgamma", inplace=True)
def lgamma(input: Tensor) -> Tensor:
    """Elementwise: the logarithm of the absolute value of the gamma function (to 1e-13 absolute)."""
    _need("lgamma", input)
    return apply("LgammaBackward0", precisely(lgamma_node), input)


@method("digamma", inplace=True)
def digamma(input: Tensor) -> Tensor:
    """Elementwise: the derivative of `lgamma`."""
    _need("digamma", input)
    return apply("DigammaBackward0", precisely(digamma_node), input)


@method("polygamma", function=False, inplace=True)
def polygamma_method(self: Tensor, n: int) -> Tensor:
    """Elementwise: the n-th derivative of `digamma`, as `graphc.polygamma(n, self)`."""
    return polygamma(n, self)


def polygamma(n: int, input: Tensor) -> Tensor:
    """Elementwise: the n-th derivative of `digamma`. RuntimeError for n < 0.

    For n > 1 arguments must not be below -10.
    """
    _need("polygamma", input)
    if n < 0:
        raise fail(RuntimeError, "polygamma(n, x) does not support negative n.")
    if n == 0:
        return digamma(input)
    sign = float(math.factorial(n)) * (-1.0) ** (n + 1)

    def build(x: Node) -> Node:
        if n > 1:
            return scaled(zeta_node(_like(x, n + 1.0), x), sign)
        left = ops.lt(x, _like(x, 0.5))  # trigamma(x) + trigamma(1 - x) = (pi / sin(pi x)) ** 2
        right = zeta_node(_like(x, 2.0), ops.select(left, ops.sub(_like(x, 1.0), x), x))
        part = ops.select(left, ops.sub(x, ops.stop_gradient(ops.round(x))), _like(x, 0.5))
        ratio = ops.div(_like(x, math.pi), ops.sin(scaled(part, math.pi)))
        return ops.select(left, ops.sub(ops.mul(ratio, ratio), right), right)

    return apply("PolygammaBackward0", precisely(build), input)


method("polygamma", only_function=True)(polygamma)


@method("mvlgamma", inplace=True)
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """Elementwise: the logarithm of the multivariate gamma function of dimension p >= 1."""
    _need("mvlgamma", input)
    if p < 1:
        raise fail(RuntimeError, "p has to be greater than or equal to 1")
    constant = p * (p - 1) / 4 * math.log(math.pi)

    def build(x: Node) -> Node:
        total = _like(x, constant)
        for j in range(p):
            total = ops.add(total, lgamma_node(ops.sub(x, _like(x, j / 2))))
        return total

    return apply("MvlgammaBackward0", precisely(build), input)


# ---------------------------------------------------------- the normal distribution's quantiles

# Wichura's algorithm AS 241 (1988), PPND16: rational functions for the middle, the tails and the far tails.
_MIDDLE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.3871328727963666080),
    (5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867,
     5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0),
)  # fmt: skip
_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 0.241780725177450611770, 1.27045825245236838258,
     3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
     0.148103976427480074590, 0.689767334985100004550, 1.67638483018380384940, 2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
     2.65321895265761230930e-2, 0.296560571828504891230, 1.78482653991729133580, 5.46378491116411436990,
     6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
     7.86869131145613259100e-4, 1.48753612908506148525e-2, 0.136929880922735805310, 0.599832206555887937690,
     1.0),
)  # fmt: skip


def _ratio(r: Node, table: tuple[Sequence[float], Sequence[float]]) -> Node:
    return ops.div(polynomial(r, table[0]), polynomial(r, table[1]))


def _quantile_node(centred: Node, tail: Node) -> Node:
    """The standard normal quantile of p, given p - 1/2 and min(p, 1 - p); infinite at the ends."""
    q = centred
    inner = ops.le(ops.abs(q), _like(q, 0.425))
    safe = ops.select(inner, q, _like(q, 0.0))
    middle = ops.mul(safe, _ratio(ops.sub(_like(q, 0.180625), ops.mul(safe, safe)), _MIDDLE))
    outside = ops.logical_not(ops.bit_or(inner, ops.le(tail, _like(q, 0.0))))
    r = ops.sqrt(ops.neg(ops.log(ops.select(outside, tail, _like(q, 0.05)))))
    far = ops.gt(r, _like(q, 5.0))
    near = _ratio(ops.sub(ops.select(far, _like(q, 5.0), r), _like(q, 1.6)), _TAIL)
    further = _ratio(ops.sub(ops.select(far, r, _like(q, 5.0)), _like(q, 5.0)), _FAR)
    size = ops.select(far, further, near)
    size = ops.select(ops.eq(tail, _like(q, 0.0)), _like(q, math.inf), size)
    size = ops.select(ops.lt(tail, _like(q, 0.0)), _like(q, math.nan), size)
    found = ops.select(inner, middle, ops.select(ops.lt(q, _like(q, 0.0)), ops.neg(size), size))
    return ops.select(ops.isnan(q), q, found)


def _erfinv_node(x: Node) -> Node:
    quantile = _quantile_node(scaled(x, 0.5), scaled(ops.sub(_like(x, 1.0), ops.abs(x)), 0.5))
    return scaled(quantile, math.sqrt(0.5))


def ndtri_node(p: Node) -> Node:
    """The p-quantile of the standard normal distribution, of a float64 node."""
    rest = ops.sub(_like(p, 1.0), p)
    return _quantile_node(ops.sub(p, _like(p, 0.5)), ops.select(ops.lt(p, rest), p, rest))


@method("erfinv", inplace=True)
def erfinv(input: Tensor) -> Tensor:
    """Elementwise: the inverse of `erf`; infinite at -1 and 1, NaN outside."""
    _need("erfinv", input)
    return apply("ErfinvBackward0", precisely(_erfinv_node), input)


# ------------------------------------------------------ the error function's complement, scaled

# Cody's rational functions (Math. Comp. 23, 1969) for exp(x * x) erfc(x): from 0.46875 to 4, and beyond.
_COMPLEMENT = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 66.1191906371416295,
     298.635138197400131, 881.952221241769090, 1712.04761263407058, 2051.07837782607147, 1230.33935479799725),
    (1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019,
     3290.79923573345963, 4362.61909014324716, 3439.36767414372164, 1230.33935480374942),
)  # fmt: skip
_COMPLEMENT_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _scaled_complement(x: Node) -> Node:
    """exp(x * x) erfc(x) for x >= 0.46875."""
    far = ops.gt(x, _like(x, 4.0))
    near = _ratio(ops.select(far, _like(x, 4.0), x), _COMPLEMENT)
    y = ops.select(far, x, _like(x, 4.0))
    z = ops.div(_like(x, 1.0), ops.mul(y, y))
    rest = ops.mul(z, _ratio(z, _COMPLEMENT_FAR))
    beyond = ops.div(ops.sub(_like(x, 1.0 / math.sqrt(math.pi)), rest), y)
    return ops.select(far, beyond, near)


def erfcx_node(x: Node) -> Node:
    """exp(x * x) erfc(x) of a float64 node; infinite below -26.6."""
    high = ops.ge(x, _like(x, 0.46875))
    tail = _scaled_complement(ops.select(high, x, _like(x, 1.0)))
    low = ops.select(high, _like(x, 0.0), x)
    return ops.select(high, tail, ops.mul(ops.exp(ops.mul(low, low)), ops.sub(_like(x, 1.0), ops.erf(low))))


def log_ndtr_node(x: Node) -> Node:
    """The logarithm of the standard normal distribution function, of a float64 node."""
    left = ops.lt(x, _like(x, -1.0))
    y = scaled(ops.select(left, x, _like(x, -1.0)), -math.sqrt(0.5))
    tail = ops.sub(ops.log(scaled(_scaled_complement(y), 0.5)), ops.mul(y, y))
    low = scaled(ops.select(left, _like(x, 0.0), x), math.sqrt(0.5))
    upper = scaled(ops.sub(_like(x, 1.0), ops.erf(low)), -0.5)
    return ops.select(left, tail, ops.log1p(upper))


def ndtr_node(x: Node) -> Node:
    """The standard normal distribution function of a float64 node, exact in the lower tail too."""
    left = ops.lt(x, _like(x, -1.0))
    y = scaled(ops.select(left, x, _like(x, -1.0)), -math.sqrt(0.5))
    tail = scaled(ops.mul(ops.exp(ops.neg(ops.mul(y, y))), _scaled_complement(y)), 0.5)
    low = scaled(ops.select(left, _like(x, 0.0), x), math.sqrt(0.5))
    return ops.select(left, tail, scaled(ops.add(_like(x, 1.0), ops.erf(low)), 0.5))


# ------------------------------------------------------------------ modified Bessel functions

_BESSEL = (
    15.0  # from here on the asymptotic series is exact to 1e-13, below forty terms of the power series are
)


def scaled_bessel_node(x: Node, order: int) -> Node:
    """exp(-abs(x)) times the modified Bessel function of the first kind, of order 0 or 1 (float64 node)."""
    size = ops.abs(x)
    far = ops.gt(size, _like(x, _BESSEL))
    low = ops.select(far, _like(x, 0.0), size)
    quarter = scaled(ops.mul(low, low), 0.25)
    weights = [1.0 / (math.factorial(k) * math.factorial(k + order)) for k in range(40)]
    near = ops.mul(polynomial(quarter, weights[::-1]), ops.exp(ops.neg(low)))
    if order == 1:
        near = ops.mul(near, scaled(ops.select(far, _like(x, 0.0), x), 0.5))
    high = ops.select(far, size, _like(x, _BESSEL))
    terms = [1.0]
    for k in range(1, 20):
        terms.append(terms[-1] * ((2 * k - 1) ** 2 - 4.0 * order) / (8.0 * k))
    series = polynomial(ops.div(_like(x, 1.0), high), terms[::-1])
    beyond = ops.div(series, ops.sqrt(scaled(high, 2 * math.pi)))
    if order == 1:
        beyond = ops.select(ops.lt(x, _like(x, 0.0)), ops.neg(beyond), beyond)
    return ops.select(far, beyond, near)


def _bessel(order: int, exponential: bool) -> Unary:
    def build(x: Node) -> Node:
        found = scaled_bessel_node(x, order)
        return ops.mul(found, ops.exp(ops.abs(x))) if exponential else found

    return build


@method("i0", inplace=True)
def i0(input: Tensor) -> Tensor:
    """Elementwise: the modified Bessel function of the first kind, of order 0."""
    _need("i0", input)
    return apply("I0Backward0", precisely(_bessel(0, True)), input)


def special_function(name: str, build: Unary, doc: str) -> Any:
    """A public elementwise function: `build` on float64 nodes."""

    def function(input: Tensor) -> Tensor:
        _need(name, input)
        return apply(f"Special{name.title().replace('_', '')}Backward0", precisely(build), input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise: {doc}."
    return function


def _entr_node(x: Node) -> Node:
    zero = _like(x, 0.0)
    positive = ops.gt(x, zero)
    safe = ops.select(positive, x, _like(x, 1.0))
    edge = ops.select(ops.eq(x, zero), zero, ops.select(ops.isnan(x), x, _like(x, -math.inf)))
    return ops.select(positive, ops.neg(ops.mul(safe, ops.log(safe))), edge)


entr = special_function("entr", _entr_node, "-x log(x), 0 at 0, minus infinity below")
erfcx = special_function("erfcx", erfcx_node, "exp(x * x) erfc(x)")
ndtr = special_function("ndtr", ndtr_node, "the standard normal distribution function")
ndtri = special_function("ndtri", ndtri_node, "the quantile of the standard normal distribution")
log_ndtr = special_function("log_ndtr", log_ndtr_node, "the logarithm of `ndtr`, exact in the lower tail")
i0e = special_function("i0e", _bessel(0, False), "exp(-abs(x)) i0(x)")
i1 = special_function("i1", _bessel(1, True), "the modified Bessel function of the first kind, of order 1")
i1e = special_function("i1e", _bessel(1, False), "exp(-abs(x)) i1(x)")


def xlog1py(input: Any, other: Any) -> Tensor:
    """input * log1p(other), 0 where input is 0 (and other is no NaN); tensors or numbers."""

    def build(x: Node, y: Node) -> Node:
        nothing = ops.bit_and(ops.eq(x, _like(x, 0.0)), ops.logical_not(ops.isnan(y)))
        safe = ops.select(nothing, _like(y, 0.0), y)
        return ops.mul(x, ops.log1p(safe))

    return _of_two("SpecialXlog1PyBackward0", build, input, other)


def zeta(input: Any, other: Any) -> Tensor:
    """Hurwitz' zeta function, the sum over k >= 0 of (other + k) ** -input.

    Infinite where input is 1 (or other is 0), NaN where input < 1 or other < 0.
    """

    def build(s: Node, q: Node) -> Node:
        one, zero = _like(s, 1.0), _like(s, 0.0)
        inside = ops.bit_and(ops.gt(s, one), ops.gt(q, zero))
        found = zeta_node(ops.select(inside, s, _like(s, 2.0)), ops.select(inside, q, one))
        pole = ops.bit_and(ops.ge(s, one), ops.ge(q, zero))
        return ops.select(inside, found, ops.select(pole, _like(s, math.inf), _like(s, math.nan)))

    return _of_two("SpecialZetaBackward0", build, input, other)


def _of_two(label: str, build: Build, input: Any, other: Any) -> Tensor:
    """`build(x, y)` elementwise on float64 nodes of tensors (one may be a number), rounded at the end."""
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        raise fail(
            TypeError,
            "received an invalid combination of arguments - got "
            f"({type(input).__name__}, {type(other).__name__}), but one of them must be a Tensor",
        )
    dtype = result_dtype(input, other)
    out = dtype if dtype.is_float else get_default_dtype()
    return pointwise(
        label, lambda a, b: cast(build(cast(a, float64), cast(b, float64)), out), (input, other), out
    )
