"""VonMises: angles around a mean direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import Centred, batch_of, broadcast_all, uniform
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.special import i0e, i1e
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float64

_ROUNDS = 20  # 0.65 of the candidates or more are accepted: one sample in 1e9 is none of these
_FLAT = 1e-5  # below this concentration the exact proposal divides by zero


class VonMises(Centred):
    """Angles in [-pi, pi) with mean direction `loc`, of density proportional to exp(concentration cos)."""

    arg_constraints = parameters(loc=constraints.real, concentration=constraints.positive)
    support = constraints.real
    has_rsample = False

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(batch_of((loc, concentration), self.loc), validate_args=validate_args)

    @property
    def variance(self) -> Tensor:
        """The circular variance, 1 less the mean of cos(x - loc)."""
        return 1 - i1e(self.concentration) / i0e(self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        k = self.concentration  # i0e(k) is exp(-k) I0(k)
        return k * ((value - self.loc).cos() - 1) - i0e(k).log() - math.log(2 * math.pi)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Angles without gradients, by rejection from wrapped Cauchy ones.

        "Efficient simulation of the von Mises distribution" (Best and Fisher, 1979): all candidates are
        drawn at once, in float64, and the first that is accepted is taken.
        """
        shape = self._extended_shape(sample_shape)
        with no_grad():
            k = self.concentration.to(float64)
            tau = 1 + (1 + 4 * k.square()).sqrt()
            rho = (tau - (2 * tau).sqrt()) / (2 * k)
            r = where(k < _FLAT, 1 / k + k, (1 + rho.square()) / (2 * rho))
            first, second = (uniform((_ROUNDS, *shape), k) for _ in range(2))
            z = (math.pi * first).cos()
            cosine = (1 + r * z) / (r + z)
            c = k * (r - cosine)
            accepted = (c * (2 - c) > second) | ((c / second).log() + 1 - c >= 0)
            chosen = accepted.to(k.dtype).argmax(0, keepdim=True)
            angle = cosine.clamp(-1.0, 1.0).gather(0, chosen).squeeze(0).acos()
            angle = where(uniform(shape, k) < 0.5, -angle, angle)
            turned = (angle + math.pi + self.loc.to(float64)).remainder(2 * math.pi) - math.pi
            return turned.to(self.loc.dtype)
