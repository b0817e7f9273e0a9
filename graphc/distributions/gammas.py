"""Gamma variates with gradients: the sampler behind Gamma, Beta, Dirichlet, StudentT and others.

Marsaglia and Tsang's rejection method ("A simple method for generating gamma variables", 2000) accepts more
than 95% of its candidates, so that a fixed number of rounds is enough, and no loop depends on data. A
sample's derivative is implicit ("Implicit reparameterization gradients", Figurnov et al., 2018):
dx/da = -(dF(x; a)/da) / F'(x; a), an integral that is computed by quadrature.
"""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontend.functions.random import normal_node, uniform_node
from graphc.frontend.functions.special import digamma_node
from graphc.frontend.nodes import cast, number
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import float64

_ROUNDS = 8  # 0.05 ** 8: one sample in 2e10 is its last candidate, accepted or not


def standard_gamma(concentration: Tensor) -> Tensor:
    """Gamma variates of scale 1, one for each element of `concentration`, with gradients to it."""
    kind = concentration._cell.node.type
    rounds = (_ROUNDS, *kind.shape)
    normals = normal_node(rounds, float64)
    chances = uniform_node(rounds, float64)
    boost = uniform_node(kind.shape, float64)

    def build(n: Node) -> Node:
        a = cast(n, float64)
        x = _draw(ops.stop_gradient(a), normals, chances, boost)
        tiny = float(np.finfo(kind.dtype.numpy).tiny)
        x = ops.maximum(x, number(tiny, float64, kind.shape))
        slope = ops.stop_gradient(gamma_slope(ops.stop_gradient(a), x))
        return cast(ops.with_gradient(x, ops.mul(a, slope)), kind.dtype)

    return apply("StandardGammaBackward0", build, concentration)


def _draw(a: Node, normals: Node, chances: Node, boost: Node) -> Node:
    """Variates for concentrations `a`: of a + 1 where a < 1, times u ** (1 / a)."""
    shape = a.shape
    one = number(1.0, float64, shape)
    small = ops.lt(a, one)
    d = ops.sub(ops.select(small, ops.add(a, one), a), number(1 / 3, float64, shape))
    c = ops.div(one, ops.sqrt(ops.mul(number(9.0, float64, shape), d)))
    found = one
    for i in reversed(range(_ROUNDS)):  # the first that is accepted is chosen last
        x = ops.reshape(ops.slice_axis(normals, 0, i, i + 1), shape)
        u = ops.reshape(ops.slice_axis(chances, 0, i, i + 1), shape)
        root = ops.add(one, ops.mul(c, x))
        inside = ops.gt(root, number(0.0, float64, shape))
        root = ops.select(inside, root, one)
        v = ops.mul(root, ops.mul(root, root))
        limit = ops.mul(ops.mul(x, x), number(0.5, float64, shape))
        limit = ops.add(limit, ops.mul(d, ops.add(ops.sub(one, v), ops.log(v))))
        positive = ops.sub(one, u)  # in (0, 1]
        accepted = ops.bit_and(inside, ops.lt(ops.log(positive), limit))
        found = v if i == _ROUNDS - 1 else ops.select(accepted, v, found)
    power = ops.exp(ops.div(ops.log(ops.sub(one, boost)), ops.select(small, a, one)))
    return ops.mul(ops.mul(d, found), ops.select(small, power, one))


_STEPS = np.arange(-3.2, 4.8, 0.1)  # of the double exponential rule for integrands that decay like exp(-w)
_POINTS = np.exp(_STEPS - np.exp(-_STEPS))
_WEIGHTS = 0.1 * _POINTS * (1 + np.exp(-_STEPS))


def gamma_slope(a: Node, x: Node) -> Node:
    """dx/da of a gamma variate x of concentration a at a constant quantile (float64 nodes of one shape).

    With t = x exp(s w / a), and s = -1 for the lower tail, 1 for the upper one (whichever is the smaller),
    dx/da = s (x / a) * integral over w > 0 of exp(x (1 - t / x) + s w) (log t - digamma(a)).
    """
    shape = (*a.shape, len(_POINTS))
    lead = tuple(range(a.type.rank))

    def wide(n: Node) -> Node:
        return ops.broadcast(n, shape, lead)

    one = number(1.0, float64, a.shape)
    upper = ops.gt(x, a)
    sign = ops.select(upper, one, ops.neg(one))
    rate = ops.abs(ops.sub(ops.div(x, a), one))  # the integrand decays like exp(-rate w - x (w / a) ** 2 / 2)
    scale = ops.div(one, ops.maximum(rate, ops.div(ops.sqrt(x), a)))
    points = ops.broadcast(ops.constant(_POINTS), shape, (len(lead),))
    weights = ops.broadcast(ops.constant(_WEIGHTS), shape, (len(lead),))
    w = ops.mul(points, wide(ops.mul(scale, sign)))  # with its sign
    growth = ops.div(w, wide(a))
    exponent = ops.sub(w, ops.mul(wide(x), ops.expm1(growth)))
    difference = ops.add(wide(ops.sub(ops.log(x), digamma_node(a))), growth)
    total = ops.reduce_sum(ops.mul(ops.mul(weights, ops.exp(exponent)), difference), (len(lead),))
    return ops.mul(ops.mul(sign, ops.mul(ops.div(x, a), scale)), total)
