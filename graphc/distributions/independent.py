"""Independent: batch dims read as dims of the event; and mixtures of distributions of one family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.categorical import Categorical
from graphc.distributions.distribution import Distribution, sum_right
from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor


class Independent(Distribution):
    """`base_distribution` with its last `reinterpreted_batch_ndims` batch dims as dims of the event.

    log_prob and entropy are summed over them. ValueError if the batch has not that many dims.
    """

    def __init__(
        self,
        base_distribution: Distribution,
        reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ) -> None:
        batch = base_distribution.batch_shape
        if reinterpreted_batch_ndims > len(batch):
            raise fail(
                ValueError,
                "Expected reinterpreted_batch_ndims <= len(base_distribution.batch_shape), actual "
                f"{reinterpreted_batch_ndims} vs {len(batch)}",
            )
        split = len(batch) - reinterpreted_batch_ndims
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, reinterpreted_batch_ndims
        super().__init__(
            batch[:split], (*batch[split:], *base_distribution.event_shape), validate_args=validate_args
        )

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether samples have gradients."""
        return self.base_dist.has_rsample

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether outcomes can be listed: not those of several dims together."""
        return self.reinterpreted_batch_ndims == 0 and self.base_dist.has_enumerate_support

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """That of the base, over more dims."""
        found: constraints.Constraint = self.base_dist.support
        count = self.reinterpreted_batch_ndims
        return constraints.independent(found, count) if count else found

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def expand(self, batch_shape: Sequence[int]) -> Independent:
        own = self._event_shape[: self.reinterpreted_batch_ndims]
        base = self.base_dist.expand((*batch_shape, *own))
        return Independent(base, self.reinterpreted_batch_ndims, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_right(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        return sum_right(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        if self.reinterpreted_batch_ndims > 0:
            raise fail(NotImplementedError, "Enumeration over cartesian product is not implemented")
        return self.base_dist.enumerate_support(expand)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamily(Distribution):
    """A mixture: a Categorical chooses along the last batch dim of `component_distribution`.

    ValueError unless the first is a Categorical over as many classes as that dim has, and the batches fit.
    """

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise fail(
                ValueError,
                " The Mixture distribution needs to be an instance of torch.distributions.Categorical",
            )
        if not isinstance(component_distribution, Distribution):
            raise fail(
                ValueError,
                "The Component distribution need to be an instance of torch.distributions.Distribution",
            )
        batch = component_distribution.batch_shape
        if tuple(mixture_distribution.batch_shape) not in ((), tuple(batch[:-1])):
            raise fail(
                ValueError,
                f"`mixture_distribution.batch_shape` ({mixture_distribution.batch_shape}) is not compatible "
                f"with `component_distribution.batch_shape`({batch})",
            )
        count = mixture_distribution.param_shape[-1]
        if batch[-1] != count:
            raise fail(
                ValueError,
                f"`mixture_distribution component` ({count}) does not equal "
                f"`component_distribution.batch_shape[-1]` ({batch[-1]})",
            )
        self._mixture_distribution, self._component_distribution = (
            mixture_distribution,
            component_distribution,
        )
        super().__init__(batch[:-1], component_distribution.event_shape, validate_args=validate_args)

    @property
    def mixture_distribution(self) -> Categorical:
        """The choice of a component."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components, along the last batch dim."""
        return self._component_distribution

    @property
    def support(self) -> Any:
        """That of the components."""
        return self._component_distribution.support

    def expand(self, batch_shape: Sequence[int]) -> MixtureSameFamily:
        count = self._mixture_distribution.param_shape[-1]
        chosen = self._mixture_distribution.expand(batch_shape)
        assert isinstance(chosen, Categorical)
        return MixtureSameFamily(
            chosen, self._component_distribution.expand((*batch_shape, count)), validate_args=False
        )

    def _weights(self) -> Tensor:
        """The chances of the components, with dims of size 1 for the event."""
        chances = self._mixture_distribution.probs
        return chances.reshape((*chances.shape, *[1] * len(self._event_shape)))

    @property
    def mean(self) -> Tensor:
        at = -1 - len(self._event_shape)
        return (self._weights() * self._component_distribution.mean).sum(at)

    @property
    def variance(self) -> Tensor:
        at = -1 - len(self._event_shape)
        inner = self._component_distribution
        apart = (inner.mean - self.mean.unsqueeze(at)).pow(2)
        return (self._weights() * (inner.variance + apart)).sum(at)

    def cdf(self, value: Tensor) -> Tensor:
        value = value.unsqueeze(-1 - len(self._event_shape))
        return (self._component_distribution.cdf(value) * self._mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        value = value.unsqueeze(-1 - len(self._event_shape))
        each = self._component_distribution.log_prob(value)
        return (each + self._mixture_distribution.logits).logsumexp(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            at = len(sample_shape) + len(self._batch_shape)
            chosen = self._mixture_distribution.expand(self._batch_shape).sample(sample_shape)
            samples = self._component_distribution.sample(sample_shape)
            index = chosen.reshape((*chosen.shape, *[1] * (1 + len(self._event_shape))))
            index = index.expand((*chosen.shape, 1, *self._event_shape))
            return samples.gather(at, index).squeeze(at)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture_distribution!r},\n  {self._component_distribution!r})"
