"""Distributions of real numbers: Normal, Laplace, Cauchy, Uniform, Gumbel, StudentT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import special
from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import Centred, Distribution, batch_of, broadcast_all, normal, uniform
from graphc.distributions.gammas import standard_gamma
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import value as known_value
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.functions.random import rand
from graphc.frontend.tensor import Tensor, is_concrete


class _LocationScale(Centred):
    """`loc` plus `scale` times a standard outcome."""

    arg_constraints = parameters(loc=constraints.real, scale=constraints.positive)
    support = constraints.real
    has_rsample = True
    scale: Tensor

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(batch_of((loc, scale), self.loc), validate_args=validate_args)

    def _standard(self, shape: Sequence[int]) -> Tensor:
        raise self._lacks("rsample")

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + self._standard(self._extended_shape(sample_shape)) * self.scale

    def _scaled(self, value: Tensor) -> Tensor:
        """`value` as an outcome of the standard distribution, checked."""
        self._validate_sample(value)
        return (value - self.loc) / self.scale


class Normal(_LocationScale):
    """The normal distribution with mean `loc` and standard deviation `scale`."""

    def _standard(self, shape: Sequence[int]) -> Tensor:
        return normal(shape, self.loc)

    @property
    def variance(self) -> Tensor:
        return self.stddev.pow(2)

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        z = self._scaled(value)
        return -0.5 * z * z - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        return special.ndtr(self._scaled(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * special.ndtri(value)

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()


class Laplace(_LocationScale):
    """The Laplace distribution: density exp(-abs(x - loc) / scale) / (2 scale)."""

    def _standard(self, shape: Sequence[int]) -> Tensor:
        u = uniform(shape, self.loc) - 0.5
        return -u.sign() * (-2 * u.abs().clamp(max=0.5 - finfo(u.dtype).eps / 4)).log1p()

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale.pow(2)

    @property
    def stddev(self) -> Tensor:
        return math.sqrt(2) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        return -self._scaled(value).abs() - (2 * self.scale).log()

    def cdf(self, value: Tensor) -> Tensor:
        z = self._scaled(value)
        return 0.5 - 0.5 * z.sign() * (-z.abs()).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        term = value - 0.5
        return self.loc - self.scale * term.sign() * (-2 * term.abs()).log1p()

    def entropy(self) -> Tensor:
        return 1 + (2 * self.scale).log()


class Cauchy(_LocationScale):
    """The Cauchy distribution, with median `loc` and half width at half maximum `scale`."""

    def _standard(self, shape: Sequence[int]) -> Tensor:
        return (math.pi * (uniform(shape, self.loc) - 0.5)).tan()

    @property
    def mean(self) -> Tensor:
        return self.loc.new_full(self.loc.shape, math.nan)

    @property
    def variance(self) -> Tensor:
        return self.loc.new_full(self.loc.shape, math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        return -math.log(math.pi) - self.scale.log() - self._scaled(value).pow(2).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        return self._scaled(value).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The Gumbel distribution: the limit of the largest of many exponential numbers."""

    def _standard(self, shape: Sequence[int]) -> Tensor:
        eps = finfo(self.loc.dtype).eps
        return -(-uniform(shape, self.loc).clamp(max=1 - eps / 2).log()).log()

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * _EULER

    @property
    def stddev(self) -> Tensor:
        return (math.pi / math.sqrt(6)) * self.scale

    @property
    def variance(self) -> Tensor:
        return self.stddev.pow(2)

    def log_prob(self, value: Tensor) -> Tensor:
        y = -self._scaled(value)
        return (y - y.exp()) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        return (-(-self._scaled(value)).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + _EULER)


_EULER = 0.57721566490153286061


class Uniform(Distribution):
    """Numbers uniform in [low, high)."""

    has_rsample = True
    arg_constraints = parameters(low=constraints.dependent, high=constraints.dependent)

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(batch_of((low, high), self.low), validate_args=validate_args)
        known = self._validate_args and is_concrete(self.low) and is_concrete(self.high)
        if known and not (known_value(self.low) < known_value(self.high)).all():
            raise fail(ValueError, "Uniform is not defined when low>= high")

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """From `low` to `high`."""
        return constraints.interval(self.low, self.high)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = rand(self._extended_shape(sample_shape), dtype=self.low.dtype)
        return self.low + drawn * (self.high - self.low)

    @property
    def mean(self) -> Tensor:
        return (self.high + self.low) / 2

    @property
    def mode(self) -> Tensor:
        return self.high.new_full(self.high.shape, math.nan)

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low).pow(2) / 12

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        inside = (self.low <= value).logical_and(self.high > value)
        return inside.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(min=0, max=1)

    def icdf(self, value: Tensor) -> Tensor:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class StudentT(Distribution):
    """Student's t distribution with `df` degrees of freedom, moved by `loc` and scaled by `scale`."""

    arg_constraints = parameters(df=constraints.positive, loc=constraints.real, scale=constraints.positive)
    support = constraints.real
    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(tuple(self.df.shape), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return where(self.df > 1, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        wide = self.scale.pow(2) * self.df / (where(self.df > 2, self.df, 3.0) - 2)
        spread = where(self.df > 2, wide, math.inf)
        return where(self.df > 1, spread, math.nan)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        chi2 = 2 * standard_gamma((self.df / 2).expand(shape))
        return self.loc + self.scale * normal(shape, self.df) * (self.df / chi2).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        y = (value - self.loc) / self.scale
        half = 0.5 * self.df
        norm = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + half.lgamma()
        return -0.5 * (self.df + 1) * (y.pow(2) / self.df).log1p() - norm + (half + 0.5).lgamma()

    def entropy(self) -> Tensor:
        half = 0.5 * self.df
        beta = half.lgamma() + math.lgamma(0.5) - (half + 0.5).lgamma()
        return (
            self.scale.log()
            + (half + 0.5) * ((half + 0.5).digamma() - half.digamma())
            + 0.5 * self.df.log()
            + beta
        )
