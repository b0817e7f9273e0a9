"""Distributions over classes: Categorical, one-hot vectors, Multinomial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import Derived, Distribution, EitherParameter, clamp_chance, one_of
from graphc.frontend.errors import fail
from graphc.frontend.functions.counting import one_hot
from graphc.frontend.functions.creation import arange, eye
from graphc.frontend.functions.random import uniform_node
from graphc.frontend.modes import no_grad
from graphc.frontend.nodes import cast, number
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import float64, int64


class Categorical(EitherParameter):
    """A class from 0 to n - 1, with probabilities or unnormalised log-probabilities along the last dim.

    probs [..., n] need not sum to 1; logits [..., n] are normalised by a softmax. ValueError for a scalar.
    """

    arg_constraints = parameters(probs=constraints.simplex, logits=constraints.real_vector)
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name, given = one_of(type(self).__name__, probs, logits)
        if given.ndim < 1:
            raise fail(ValueError, f"`{name}` parameter must be at least one-dimensional.")
        if logits is None:
            self.__dict__["probs"] = given / given.sum(-1, keepdim=True)
        else:
            self.__dict__["logits"] = given - given.logsumexp(-1, keepdim=True)
        self._num_events = int(given.shape[-1])
        super().__init__(tuple(given.shape[:-1]), validate_args=validate_args)

    @Derived
    def probs(self) -> Tensor:
        """The probabilities [..., n]."""
        return self.logits.softmax(-1)

    @Derived
    def logits(self) -> Tensor:
        """The logarithms of the probabilities [..., n]."""
        return clamp_chance(self.probs).log()

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """From 0 to n - 1."""
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        return self._param.new_full(tuple(self._batch_shape), float("nan"))

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Tensor:
        return self._param.new_full(tuple(self._batch_shape), float("nan"))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return draw_classes(self.probs, (*sample_shape, *self._batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        index = value.long().unsqueeze(-1)
        rank = max(index.ndim, self.logits.ndim)
        lead = _together(tuple(index.shape[:-1]), tuple(self.logits.shape[:-1]), rank - 1)
        logits = self.logits.expand((*lead, self._num_events))
        return logits.gather(-1, index.expand((*lead, 1))).squeeze(-1)

    def entropy(self) -> Tensor:
        lowest = self.logits.clamp(min=-3.4028234663852886e38)
        return -(lowest * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = arange(self._num_events).reshape((-1,) + (1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values


def _together(a: tuple[int, ...], b: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The common shape of two batches."""
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(j if i == 1 else i for i, j in zip(a, b, strict=True))


def draw_classes(probs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Classes of shape `shape` (the batch of `probs` [..., n] last) by inverting a running sum."""
    chance = uniform_node((*shape, 1), float64)

    def build(n: Node) -> Node:
        axis = n.type.rank - 1
        edges = ops.cumsum(cast(n, float64), axis)
        total = ops.slice_axis(edges, axis, n.shape[-1] - 1, n.shape[-1])
        full = (*shape, n.shape[-1])
        offset = len(full) - n.type.rank
        dims = tuple(range(offset, len(full)))
        spread = ops.broadcast(edges, full, dims)
        height = ops.mul(chance, _wide(total, (*shape, 1), offset))
        passed = ops.le(spread, ops.broadcast(ops.reshape(height, shape), full, tuple(range(len(shape)))))
        found = ops.reduce_sum(cast(passed, int64), (len(full) - 1,))
        return ops.minimum(found, number(n.shape[-1] - 1, int64, shape))

    return apply("", build, probs)


def _wide(n: Node, shape: tuple[int, ...], offset: int) -> Node:
    return ops.broadcast(n, shape, tuple(range(offset, len(shape))))


class _OfCategorical(Distribution):
    """A distribution of vectors [..., n] made of draws from a Categorical of n classes."""

    arg_constraints = parameters(probs=constraints.simplex, logits=constraints.real_vector)

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(
            self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args
        )

    @property
    def probs(self) -> Tensor:
        """The probabilities [..., n]."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities [..., n]."""
        return self._categorical.logits

    @property
    def _param(self) -> Tensor:
        return self._categorical._param

    @property
    def param_shape(self) -> Sequence[int]:
        """The shape of the parameter."""
        return self._categorical.param_shape

    def expand(self, batch_shape: Sequence[int]) -> _OfCategorical:
        new = super().expand(batch_shape)
        assert isinstance(new, _OfCategorical)
        new._categorical = self._categorical.expand(batch_shape)  # type: ignore[assignment]
        return new

    def __repr__(self) -> str:
        return repr(self._categorical).replace("Categorical", type(self).__name__, 1)


class OneHotCategorical(_OfCategorical):
    """Categorical, with outcomes as one-hot vectors [..., n]."""

    support = constraints.one_hot
    has_enumerate_support = True

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return one_hot(self.probs.argmax(-1), self._event_shape[0]).to(self._param.dtype)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self._event_shape[0]).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        count = self._event_shape[0]
        values = eye(count, dtype=self._param.dtype).reshape(
            (count,) + (1,) * len(self._batch_shape) + (count,)
        )
        return values.expand((count, *self._batch_shape, count)) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """OneHotCategorical whose samples have the gradient of `probs` (Bengio et al., 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        probs = self.probs
        return self.sample(sample_shape) + (probs - probs.detach())


class Multinomial(_OfCategorical):
    """Counts of the classes in `total_count` independent draws from Categorical."""

    def __init__(
        self,
        total_count: int = 1,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(total_count, int):
            raise fail(NotImplementedError, "inhomogeneous total_count is not supported")
        self.total_count = total_count
        super().__init__(probs, logits, validate_args)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """Counts with sum `total_count`."""
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        classes = self._categorical.sample((self.total_count, *sample_shape))
        return one_hot(classes, self._event_shape[0]).sum(0).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        ways = (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1)
        impossible = (value == 0) & (self.logits == -float("inf"))
        return ways + (self.logits.masked_fill(impossible, 0.0) * value).sum(-1)

    def entropy(self) -> Tensor:
        counts = arange(1, self.total_count + 1, dtype=self._param.dtype)
        steps = counts.reshape((-1,) + (1,) * (len(self._batch_shape) + 1))
        one = _binomial_log_prob(self.total_count, self.probs, steps)
        expected = (one.exp() * (steps + 1).lgamma()).sum((0, -1))
        whole = (steps.new_tensor(float(self.total_count)) + 1).lgamma()
        return self.total_count * self._categorical.entropy() - whole + expected


def _binomial_log_prob(total: int, probs: Tensor, value: Tensor) -> Tensor:
    """The logarithm of the probability of `value` successes in `total` trials."""
    chance = clamp_chance(probs)
    ways = (value.new_tensor(float(total)) + 1).lgamma() - (value + 1).lgamma() - (total - value + 1).lgamma()
    return ways + value * chance.log() + (total - value) * (-chance).log1p()
