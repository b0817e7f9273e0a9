"""Distributions on intervals: Kumaraswamy, ContinuousBernoulli, GeneralizedPareto."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint, parameters
from graphc.distributions.discrete import Chances
from graphc.distributions.distribution import (
    Derived,
    Distribution,
    batch_of,
    broadcast_all,
    clamp_chance,
    uniform,
)
from graphc.distributions.location import Uniform
from graphc.distributions.transformed import TransformedDistribution
from graphc.distributions.transforms import AffineTransform, PowerTransform
from graphc.frontend.functions.elementwise import where
from graphc.frontend.tensor import Tensor
from graphc.nn.functional.loss import binary_cross_entropy_with_logits

_EULER = 0.57721566490153286061


class Kumaraswamy(TransformedDistribution):
    """Kumaraswamy's distribution on [0, 1], like Beta's: 1 - (1 - x ** concentration1) ** concentration0."""

    arg_constraints = parameters(concentration1=constraints.positive, concentration0=constraints.positive)
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        shape = batch_of((concentration1, concentration0), self.concentration0)
        zero = self.concentration0.new_zeros(shape)
        steps = [
            PowerTransform(self.concentration0.reciprocal()),
            AffineTransform(1.0, -1.0),
            PowerTransform(self.concentration1.reciprocal()),
        ]
        super().__init__(Uniform(zero, zero + 1, validate_args), steps, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> Kumaraswamy:
        one, zero = (c.expand(tuple(batch_shape)) for c in (self.concentration1, self.concentration0))
        return Kumaraswamy(one, zero, validate_args=False)

    def _moment(self, n: int) -> Tensor:
        """The mean of x ** n."""
        a, b = 1 + n / self.concentration1, self.concentration0
        return b * (a.lgamma() + b.lgamma() - (a + b).lgamma()).exp()

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        log_mode = (-b).log1p() / b - (-a * b).log1p()
        return where((a < 1).logical_or(b < 1), math.nan, log_mode).exp()

    @property
    def variance(self) -> Tensor:
        return self._moment(2) - self.mean.square()

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + _EULER
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()


class ContinuousBernoulli(Chances):
    """Numbers in [0, 1] of density c p ** x (1 - p) ** (1 - x), for `probs` p or their `logits`.

    "The continuous Bernoulli: fixing a pervasive error in variational autoencoders" (Loaiza-Ganem and
    Cunningham, 2019). Formulas that divide by 1 - 2 p are replaced by series between the two `lims`.
    """

    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        (param,) = self._chances(probs, logits)
        self._lims = lims
        super().__init__(batch_of([probs if logits is None else logits], param), validate_args=validate_args)
        if logits is None:
            self.__dict__["probs"] = clamp_chance(param)

    @Derived
    def probs(self) -> Tensor:
        """The parameter p."""
        return clamp_chance(self.logits.sigmoid())

    def _is_steep(self) -> Tensor:
        """Whether p is outside the limits."""
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut(self) -> Tensor:
        """p where it is outside the limits, and the lower one elsewhere."""
        return where(self._is_steep(), self.probs, self._lims[0])

    def _log_norm(self) -> Tensor:
        """log c = log(2 artanh(1 - 2 p) / (1 - 2 p))."""
        cut = self._cut()
        steep = (((-cut).log1p() - cut.log()) / (1 - 2 * cut)).log()
        x = (self.probs - 0.5).square()
        return where(self._is_steep(), steep, math.log(2.0) + (4 / 3 + 104 / 45 * x) * x)

    @property
    def mean(self) -> Tensor:
        cut, x = self._cut(), self.probs - 0.5
        steep = cut / (2 * cut - 1) + 1 / ((-cut).log1p() - cut.log())
        return where(self._is_steep(), steep, 0.5 + (1 / 3 + 16 / 45 * x.square()) * x)

    @property
    def variance(self) -> Tensor:
        cut, x = self._cut(), (self.probs - 0.5).square()
        steep = cut * (cut - 1) / (1 - 2 * cut).square() + 1 / ((-cut).log1p() - cut.log()).square()
        return where(self._is_steep(), steep, 1 / 12 - (1 / 15 - 128 / 945 * x) * x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.icdf(uniform(self._extended_shape(sample_shape), self.probs))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return self._log_norm() - binary_cross_entropy_with_logits(logits, value, reduction="none")

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        cut = self._cut()
        steep = (cut.pow(value) * (1 - cut).pow(1 - value) + cut - 1) / (2 * cut - 1)
        return where(self._is_steep(), steep, value).clamp(0.0, 1.0)

    def icdf(self, value: Tensor) -> Tensor:
        cut = self._cut()
        steep = (-cut + value * (2 * cut - 1)).log1p() - (-cut).log1p()
        return where(self._is_steep(), steep / (cut.log() - (-cut).log1p()), value)

    def entropy(self) -> Tensor:
        low, high = (-self.probs).log1p(), self.probs.log()
        return self.mean * (low - high) - self._log_norm() - low


class GeneralizedPareto(Distribution):
    """The distribution of what exceeds `loc`: cdf 1 - (1 + c z) ** (-1 / c) with z = (x - loc) / scale.

    c is the `concentration`: 0 is Exponential's, and below 0 there is an upper bound, loc - scale / c.
    """

    arg_constraints = parameters(
        loc=constraints.real, scale=constraints.positive, concentration=constraints.real
    )
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        given = (loc, scale, concentration)
        self.loc, self.scale, self.concentration = broadcast_all(*given)
        super().__init__(batch_of(given, self.loc), validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        """From `loc` on; up to an end where the concentration is negative."""
        c = self.concentration
        end = self.loc - self.scale / where(c < 0, c, -1.0)
        return constraints.interval(self.loc, where(c < 0, end, math.inf))

    def _safe(self) -> tuple[Tensor, Tensor]:
        """Whether the concentration is (nearly) 0, and what to divide by instead."""
        none = self.concentration.abs() <= 1e-8
        return none, where(none, 1.0, self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        none, c = self._safe()
        z = (value - self.loc) / self.scale
        return -self.scale.log() - where(none, z, (1 / c + 1) * (c * z).log1p())

    def log_survival_function(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of outcomes above `value`."""
        self._validate_sample(value)
        none, c = self._safe()
        z = (value - self.loc) / self.scale
        return where(none, -z, -(c * z).log1p() / c)

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of `cdf`."""
        return (-self.log_survival_function(value).exp()).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        return -self.log_survival_function(value).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        none, c = self._safe()
        left = (-value).log1p()
        return self.loc + self.scale * where(none, -left, (-c * left).expm1() / c)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.icdf(uniform(self._extended_shape(sample_shape), self.loc))

    @property
    def mean(self) -> Tensor:
        c = self.concentration
        return where(c < 1, self.loc + self.scale / (1 - where(c < 1, c, 0.5)), math.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        c = where(self.concentration < 0.5, self.concentration, 0.25)
        found = self.scale.square() / ((1 - c).square() * (1 - 2 * c))
        return where(self.concentration < 0.5, found, math.nan)

    def entropy(self) -> Tensor:
        return self.scale.log() + self.concentration + 1


def divergence(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    """kl_divergence of two continuous Bernoulli distributions."""
    here = p.mean * (p.logits - q.logits) + p._log_norm() + (-p.probs).log1p()
    return here - q._log_norm() - (-q.probs).log1p()
