"""TransformedDistribution, and the distributions that are defined by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.discrete import Chances
from graphc.distributions.distribution import (
    Distribution,
    broadcast_all,
    clamp_chance,
    one_of,
    sum_right,
    uniform,
)
from graphc.distributions.independent import Independent
from graphc.distributions.location import Normal
from graphc.distributions.positive import Exponential
from graphc.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    StickBreakingTransform,
    Transform,
)
from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn.functional.activation import softplus


class TransformedDistribution(Distribution):
    """The distribution of transforms[-1](... transforms[0](x)) for x from `base_distribution`.

    ValueError if a transform takes more dims together than there are.
    """

    def __init__(
        self,
        base_distribution: Distribution,
        transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ) -> None:
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        for t in self.transforms:
            if not isinstance(t, Transform):
                raise fail(ValueError, f"transforms must be a Transform or a list of them, got {t!r}")
        shape = (*base_distribution.batch_shape, *base_distribution.event_shape)
        whole = ComposeTransform(self.transforms)
        if len(shape) < whole.domain.event_dim:
            raise fail(
                ValueError,
                f"base_distribution needs to have shape with size at least {whole.domain.event_dim}, but got "
                f"{shape}.",
            )
        after = whole.forward_shape(shape)
        before = whole.inverse_shape(after)
        if before != shape:
            own = len(base_distribution.event_shape)
            base_distribution = base_distribution.expand(before[: len(before) - own])
        more = whole.domain.event_dim - len(base_distribution.event_shape)
        if more > 0:
            base_distribution = Independent(base_distribution, more, validate_args=False)
        self.base_dist = base_distribution
        # a transform of fewer dims than the base's events leaves the others part of the event
        events = max(
            len(base_distribution.event_shape) + whole.codomain.event_dim - whole.domain.event_dim,
            whole.codomain.event_dim,
        )
        split = len(after) - events
        super().__init__(after[:split], after[split:], validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether samples have gradients."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        """Where the last transform leads."""
        if not self.transforms:
            return self.base_dist.support
        found = self.transforms[-1].codomain
        more = len(self._event_shape) - found.event_dim
        return constraints.independent(found, more) if more > 0 else found

    def expand(self, batch_shape: Sequence[int]) -> TransformedDistribution:
        new = super().expand(batch_shape)
        assert isinstance(new, TransformedDistribution)
        whole = ComposeTransform(self.transforms)
        shape = whole.inverse_shape((*batch_shape, *self._event_shape))
        new.base_dist = self.base_dist.expand(shape[: len(shape) - len(self.base_dist.event_shape)])
        return new

    def _moved(self, x: Tensor) -> Tensor:
        for t in self.transforms:
            x = t(x)
        return x

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return self._moved(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._moved(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        total: Any = 0.0
        events, y = len(self._event_shape), value
        for t in reversed(self.transforms):
            x = t.inv(y)
            events += t.domain.event_dim - t.codomain.event_dim
            total = total - sum_right(t.log_abs_det_jacobian(x, y), events - t.domain.event_dim)
            y = x
        inner = self.base_dist.log_prob(y)
        return total + sum_right(inner, events - len(self.base_dist.event_shape))

    def _through(self, value: Tensor, inverse: bool) -> tuple[Tensor, Any]:
        """A probability turned round where the transforms are decreasing; and a value led back."""
        sign: Any = 1
        for t in reversed(self.transforms):
            sign = sign * t.sign
            value = t.inv(value) if inverse else value
        return value, sign

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        found, sign = self._through(value, True)
        return sign * (self.base_dist.cdf(found) - 0.5) + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        _, sign = self._through(value, False)
        return self._moved(self.base_dist.icdf(sign * (value - 0.5) + 0.5))


class LogNormal(TransformedDistribution):
    """The distribution of exp(x) for x normal with mean `loc` and standard deviation `scale`."""

    arg_constraints = parameters(loc=constraints.real, scale=constraints.positive)

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args), ExpTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of the logarithm."""
        return self.base_dist.loc  # type: ignore[attr-defined,no-any-return]

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the logarithm."""
        return self.base_dist.scale  # type: ignore[attr-defined,no-any-return]

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale.pow(2) / 2).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        squared = self.scale.pow(2)
        return squared.expm1() * (2 * self.loc + squared).exp()

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc


class Pareto(TransformedDistribution):
    """Pareto's distribution of type 1, from `scale` on with the exponent `alpha`."""

    arg_constraints = parameters(alpha=constraints.positive, scale=constraints.positive)

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        base = Exponential(self.alpha, validate_args)
        super().__init__(base, [ExpTransform(), AffineTransform(0, self.scale)], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> Pareto:
        shape = tuple(batch_shape)
        return Pareto(self.scale.expand(shape), self.alpha.expand(shape), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        a = self.alpha.clamp(min=2)
        return self.scale.pow(2) * a / ((a - 1).pow(2) * (a - 2))

    def entropy(self) -> Tensor:
        return (self.scale / self.alpha).log() + (1 + self.alpha.reciprocal())


class Weibull(TransformedDistribution):
    """Weibull's distribution with `scale` and the shape `concentration`."""

    arg_constraints = parameters(scale=constraints.positive, concentration=constraints.positive)

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        base = Exponential(self.scale.new_ones(tuple(self.scale.shape)), validate_args)
        steps = [PowerTransform(self.concentration.reciprocal()), AffineTransform(0, self.scale)]
        super().__init__(base, steps, validate_args=validate_args)

    support = constraints.positive

    def expand(self, batch_shape: Sequence[int]) -> Weibull:
        shape = tuple(batch_shape)
        return Weibull(self.scale.expand(shape), self.concentration.expand(shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.scale * (1 + self.concentration.reciprocal()).lgamma().exp()

    @property
    def mode(self) -> Tensor:
        k = self.concentration
        return self.scale * ((k - 1) / k).pow(k.reciprocal())

    @property
    def variance(self) -> Tensor:
        inverse = self.concentration.reciprocal()
        first = (1 + inverse).lgamma()
        return self.scale.pow(2) * ((1 + 2 * inverse).lgamma().exp() - (2 * first).exp())

    def entropy(self) -> Tensor:
        euler = 0.57721566490153286061
        return euler * (1 - self.concentration.reciprocal()) + (self.scale / self.concentration).log() + 1


class LogisticNormal(TransformedDistribution):
    """Vectors of positive numbers with sum 1: a normal vector with one element fewer, by stick breaking."""

    arg_constraints = parameters(loc=constraints.real, scale=constraints.positive)
    support = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args)
        if not base.batch_shape:
            base = base.expand([1])  # type: ignore[assignment]
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of the normal vector."""
        return self.base_dist.base_dist.loc  # type: ignore[attr-defined,no-any-return]

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the normal vector."""
        return self.base_dist.base_dist.scale  # type: ignore[attr-defined,no-any-return]


class _LogitRelaxedBernoulli(Chances):
    """Logits of RelaxedBernoulli's samples."""

    support = constraints.real
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any, logits: Any, validate_args: bool | None) -> None:
        self.temperature = temperature
        (param,) = self._chances(probs, logits)
        super().__init__(tuple(param.shape), validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        chance = clamp_chance(self.probs.expand(self._extended_shape(sample_shape)))
        u = clamp_chance(uniform(tuple(chance.shape), self._param))
        odds = u.log() - (-u).log1p() + chance.log() - (-chance).log1p()
        return odds / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        apart = logits - value * self.temperature
        return _log(self.temperature, value) + apart - 2 * softplus(apart)


def _log(number: Any, like: Tensor) -> Tensor:
    return number.log() if isinstance(number, Tensor) else like.new_tensor(math.log(number))


class RelaxedBernoulli(TransformedDistribution):
    """Bernoulli's continuous relaxation at a `temperature` (Maddison et al. and Jang et al., 2017)."""

    arg_constraints = parameters(probs=constraints.unit_interval, logits=constraints.real)
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        base = _LogitRelaxedBernoulli(temperature, probs, logits, validate_args)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)

    temperature = property(lambda self: self.base_dist.temperature, doc="The temperature.")
    probs = property(lambda self: self.base_dist.probs, doc="The probability.")
    logits = property(lambda self: self.base_dist.logits, doc="The logarithm of the odds.")


class _ExpRelaxedCategorical(Distribution):
    """Logarithms of RelaxedOneHotCategorical's samples."""

    arg_constraints = parameters(probs=constraints.simplex, logits=constraints.real_vector)
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any, logits: Any, validate_args: bool | None) -> None:
        name, given = one_of("RelaxedOneHotCategorical", probs, logits)
        self.temperature = temperature
        if name == "probs":
            given = clamp_chance(given / given.sum(-1, keepdim=True)).log()
        self.logits = given - given.logsumexp(-1, keepdim=True)
        super().__init__(tuple(given.shape[:-1]), tuple(given.shape[-1:]), validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self.logits.softmax(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = clamp_chance(uniform(self._extended_shape(sample_shape), self.logits))
        scores = (self.logits - (-u.log()).log()) / self.temperature
        return scores - scores.logsumexp(-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        count = self._event_shape[0]
        logits, value = broadcast_all(self.logits, value)
        norm = math.lgamma(count) + (count - 1) * _log(self.temperature, value)
        score = logits - value * self.temperature
        return (score - score.logsumexp(-1, keepdim=True)).sum(-1) + norm


class RelaxedOneHotCategorical(TransformedDistribution):
    """OneHotCategorical's continuous relaxation at a `temperature`: the Gumbel-softmax distribution."""

    arg_constraints = parameters(probs=constraints.simplex, logits=constraints.real_vector)
    support = constraints.simplex
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        base = _ExpRelaxedCategorical(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args=validate_args)

    temperature = property(lambda self: self.base_dist.temperature, doc="The temperature.")
    probs = property(lambda self: self.base_dist.probs, doc="The probabilities.")
    logits = property(lambda self: self.base_dist.logits, doc="The logarithms of the probabilities.")
