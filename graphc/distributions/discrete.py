"""Distributions of whole numbers: Bernoulli, Geometric, Binomial, NegativeBinomial, Poisson."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import (
    Derived,
    Distribution,
    EitherParameter,
    batch_of,
    broadcast_all,
    clamp_chance,
    one_of,
    uniform,
)
from graphc.distributions.gammas import standard_gamma
from graphc.frontend.drawn import evaluate
from graphc.frontend.errors import TracerError, fail
from graphc.frontend.evaluation.lazy import value as known_value
from graphc.frontend.functions.creation import arange
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.random import bernoulli, next_key
from graphc.frontend.modes import MODE, no_grad
from graphc.frontend.tensor import Tensor, from_array
from graphc.nn.functional.activation import softplus
from graphc.nn.functional.loss import binary_cross_entropy_with_logits


class Chances(EitherParameter):
    """A distribution with a parameter that is given as `probs` or as `logits` of an event.

    Either can be read; the other one is computed from the one that is given.
    """

    arg_constraints = parameters(probs=constraints.unit_interval, logits=constraints.real)

    def _chances(self, probs: Any, logits: Any, *others: Any) -> list[Tensor]:
        """Keep the one that is given; it and `others`, broadcast."""
        name, given = one_of(type(self).__name__, probs, logits)
        found = broadcast_all(given, *others)
        self.__dict__[name] = found[0]
        return found

    @Derived
    def probs(self) -> Tensor:
        """The probability."""
        return self.logits.sigmoid()

    @Derived
    def logits(self) -> Tensor:
        """The logarithm of the odds."""
        chance = clamp_chance(self.probs)
        return chance.log() - (-chance).log1p()


class Bernoulli(Chances):
    """1 with probability `probs` (or sigmoid(`logits`)), else 0."""

    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        (param,) = self._chances(probs, logits)
        super().__init__(batch_of([probs if logits is None else logits], param), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        chance = self.probs
        found = (chance >= 0.5).to(chance.dtype)
        return where(chance == 0.5, float("nan"), found)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return _count_up(2, self._param, self._batch_shape, expand)


def _count_up(count: int, like: Tensor, batch: Sequence[int], expand: bool) -> Tensor:
    """0, 1, ..., count - 1 along a new first dim."""
    values = arange(count, dtype=like.dtype).reshape((count,) + (1,) * len(batch))
    return values.expand((count, *batch)) if expand else values


class Geometric(Chances):
    """The number of failures before the first success, each trial having the probability `probs`."""

    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        (param,) = self._chances(probs, logits)
        super().__init__(batch_of([probs if logits is None else logits], param), validate_args=validate_args)
        if self._validate_args and probs is not None:
            self._require(constraints.positive, param, "Expected parameter probs", "be positive, and to ")

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return self.probs.new_zeros(tuple(self.probs.shape))

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            u = uniform(self._extended_shape(sample_shape), self._param)
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        value, chance = broadcast_all(value, self.probs)
        sure = chance.eq(1).logical_and(value.eq(0))
        chance = where(sure, 0.0, chance)
        return value * (-chance).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


def _from_numpy(name: str, draw: Callable[[np.random.Generator], np.ndarray], like: Tensor) -> Tensor:
    """Counts that NumPy draws, from a stream that graphc's generator seeds; outside traces only."""
    if MODE.trace is not None:
        raise fail(
            TracerError,
            f"{name}.sample() inside a traced function is not supported: its counts come from a loop of "
            "unknown length; draw outside and pass them",
        )
    key, stream = next_key()
    words = evaluate(ops.random_bits(key, (4,), stream))
    rng = np.random.Generator(
        np.random.Philox(key=words.astype(np.uint64)[:2] << 32 | words.astype(np.uint64)[2:])
    )
    return from_array(np.asarray(draw(rng)).astype(like.dtype.numpy))


class Binomial(Chances):
    """The number of successes in `total_count` trials."""

    arg_constraints = parameters(total_count=constraints.nonnegative_integer, **Chances.arg_constraints)
    has_enumerate_support = True

    def __init__(
        self,
        total_count: Any = 1,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        param, count = self._chances(probs, logits, total_count)
        self.total_count = count.to(param.dtype)
        super().__init__(tuple(param.shape), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """From 0 to `total_count`."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        count, chance = known_value(self.total_count), known_value(self.probs.detach())
        return _from_numpy(
            "Binomial", lambda rng: rng.binomial(count.astype(int), chance, shape), self._param
        )

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        ways = (
            (self.total_count + 1).lgamma() - (value + 1).lgamma() - (self.total_count - value + 1).lgamma()
        )
        # value * log(p) + (n - value) * log(1 - p), in terms of the logits
        return ways + value * self.logits - self.total_count * softplus(self.logits)

    def entropy(self) -> Tensor:
        return _mean_over_support(self)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        counts = known_value(self.total_count)
        if not (counts == counts.flat[0]).all():
            raise fail(NotImplementedError, "Inhomogeneous total count not supported by `enumerate_support`.")
        return _count_up(1 + int(counts.flat[0]), self._param, self._batch_shape, expand)


def _mean_over_support(found: Distribution) -> Tensor:
    """The entropy of a distribution with few outcomes: the sum over them."""
    log_prob = found.log_prob(found.enumerate_support(False))
    return -(log_prob.exp() * log_prob).sum(0)


class NegativeBinomial(Chances):
    """The number of successes before `total_count` failures."""

    arg_constraints = parameters(
        total_count=constraints.nonnegative,
        probs=constraints.half_open_interval(0.0, 1.0),
        logits=constraints.real,
    )
    support = constraints.nonnegative_integer

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        param, count = self._chances(probs, logits, total_count)
        self.total_count = count.to(param.dtype)
        super().__init__(tuple(param.shape), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            shape = self._extended_shape(sample_shape)
            rates = standard_gamma(self.total_count.expand(shape)) * self.logits.exp()
        return _from_numpy("NegativeBinomial", lambda rng: rng.poisson(known_value(rates)), self._param)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        odds = -(self.total_count * softplus(self.logits)) - value * softplus(-self.logits)
        ways = (self.total_count + value).lgamma() - (1.0 + value).lgamma() - self.total_count.lgamma()
        return odds + where(self.total_count + value == 0.0, 0.0, ways)


class Poisson(Distribution):
    """The number of events at a mean of `rate`."""

    arg_constraints = parameters(rate=constraints.nonnegative)
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(batch_of([rate], self.rate), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        rate = self.rate.detach()
        return _from_numpy("Poisson", lambda rng: rng.poisson(known_value(rate), shape), self.rate)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        rate, value = broadcast_all(self.rate, value)
        return value.xlogy(rate) - rate - (value + 1).lgamma()
