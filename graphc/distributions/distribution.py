"""What all distributions share: shapes, validation, expansion, text, and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import value as known_value
from graphc.frontend.functions.creation import tensor
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.functions.random import rand, randn
from graphc.frontend.functions.shape import broadcast_tensors
from graphc.frontend.modes import no_grad
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor, is_concrete


class Derived:
    """A parameter that follows from the one that was given: computed at each use, unless given itself.

    (Computed anew, because what is computed inside a trace must not stay on the object. Equal
    expressions are one node of a program anyway.)
    """

    def __init__(self, function: Callable[[Any], Tensor]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self.function(instance)


class Distribution:
    """The base class: `batch_shape` independent distributions over events of `event_shape`.

    Subclasses define `rsample` (samples with gradients) or `sample`, `log_prob` and what else they have.
    Parameters and samples are checked against constraints when `validate_args` is on (it is by default) and
    their values are known: what is recorded but not computed yet, and what is traced, is not waited for.
    ValueError for values outside.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    arg_constraints: ClassVar[Mapping[str, Constraint]] = {}
    support: Any = None

    def __init__(
        self,
        batch_shape: Sequence[int] = (),
        event_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            for name, constraint in self.arg_constraints.items():
                given = self.__dict__.get(name)
                if isinstance(given, Tensor) and not constraints.is_dependent(constraint):
                    self._require(constraint, given, f"Expected parameter {name}", "")

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Switch validation on or off for distributions made from now on. ValueError unless a bool."""
        if value not in (True, False):
            raise fail(ValueError, f"validate_args must be a bool, got {value!r}")
        Distribution._validate_args = value

    def _require(self, constraint: Constraint, given: Tensor, what: str, within: str) -> None:
        """ValueError if a value that is known is outside a constraint."""
        if not is_concrete(given):
            return
        if not constraint.check(known_value(given)).all():
            raise fail(
                ValueError,
                f"{what} ({type(given).__name__} of shape {tuple(given.shape)}) of distribution {self!r} to "
                f"{within}satisfy the constraint {constraint!r}, but found invalid values:\n{given}",
            )

    def _validate_sample(self, value: Any) -> None:
        """ValueError (TypeError for no tensor) if `value` cannot be an outcome."""
        if not self._validate_args:
            return
        if not isinstance(value, Tensor):
            raise fail(ValueError, "The value argument to log_prob must be a Tensor")
        events = len(self._event_shape)
        if events and tuple(value.shape[value.ndim - events :]) != tuple(self._event_shape):
            raise fail(
                ValueError,
                "The right-most size of value must match event_shape: "
                f"{tuple(value.shape)} vs {tuple(self._event_shape)}.",
            )
        actual, expected = tuple(value.shape), (*self._batch_shape, *self._event_shape)
        for i, j in zip(reversed(actual), reversed(expected), strict=False):
            if i != 1 and j != 1 and i != j:
                raise fail(
                    ValueError,
                    f"Value is not broadcastable with batch_shape+event_shape: {actual} vs {expected}.",
                )
        support = self.support
        if support is not None and not constraints.is_dependent(support):
            self._require(support, value, "Expected value argument", "be within the support and ")

    @property
    def batch_shape(self) -> Size:
        """The shape over which parameters are batched."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of a single outcome."""
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise self._lacks("mean")

    @property
    def mode(self) -> Tensor:
        """The mode, the outcome of the highest density."""
        raise self._lacks("mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise self._lacks("variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Outcomes of shape sample_shape + batch_shape + event_shape, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """As `sample`, with gradients to the parameters. NotImplementedError where there are none."""
        raise self._lacks("rsample")

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`, by its older name."""
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density (or of the probability) at `value`, of the batch's shape."""
        raise self._lacks("log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of outcomes up to `value`."""
        raise self._lacks("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        raise self._lacks("icdf")

    def entropy(self) -> Tensor:
        """The entropy, of the batch's shape."""
        raise self._lacks("entropy")

    def perplexity(self) -> Tensor:
        """exp(entropy)."""
        return self.entropy().exp()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All outcomes, along a new first dim; `expand`ed over the batch, or of size 1 there."""
        raise self._lacks("enumerate_support")

    def expand(self, batch_shape: Sequence[int]) -> Distribution:
        """The same distribution with its batch expanded to `batch_shape`."""
        shape = Size(batch_shape)
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        for name, constraint in self.arg_constraints.items():
            given = self.__dict__.get(name)
            if isinstance(given, Tensor):
                new.__dict__[name] = given.expand(
                    (*shape, *given.shape[given.ndim - _event_dims(constraint) :])
                )
        new._batch_shape = shape
        return new

    def _lacks(self, name: str) -> Exception:
        return fail(NotImplementedError, f"{type(self).__name__} does not implement {name}")

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> tuple[int, ...]:
        """The shape of samples."""
        return (*sample_shape, *self._batch_shape, *self._event_shape)

    def __repr__(self) -> str:
        given = {k: v for k in self.arg_constraints if isinstance(v := self.__dict__.get(k), Tensor)}
        shown = [
            f"{name}: {v if v.numel() == 1 and is_concrete(v) else v.size()}" for name, v in given.items()
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


class Centred(Distribution):
    """A distribution whose mean and mode are its parameter `loc`, unless a subclass says otherwise."""

    loc: Tensor

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc


class EitherParameter(Distribution):
    """A distribution whose parameter is given as `probs` or as `logits`; subclasses derive the other one."""

    @property
    def _param(self) -> Tensor:
        found: Tensor = self.__dict__["probs" if "probs" in self.__dict__ else "logits"]
        return found

    @property
    def param_shape(self) -> Sequence[int]:
        """The shape of the parameter."""
        return self._param.shape


def _event_dims(constraint: Constraint) -> int:
    return constraint.event_dim


def broadcast_all(*values: Any) -> list[Tensor]:
    """Tensors and numbers as tensors of one shape. ValueError for anything else."""
    first = next((v for v in values if isinstance(v, Tensor)), None)
    dtype = first.dtype if first is not None and first.dtype.is_float else get_default_dtype()
    for v in values:
        if not isinstance(v, Tensor | int | float):
            raise fail(
                ValueError,
                "Input arguments must all be instances of Number, torch.Tensor or objects implementing "
                f"__torch_function__: got {type(v).__name__}",
            )
    made = [v if isinstance(v, Tensor) else tensor(v, dtype=dtype) for v in values]
    return list(broadcast_tensors(*made))


def one_of(owner: str, probs: Any, logits: Any) -> tuple[str, Any]:
    """The name and the value of the one of two parameters that is given. ValueError for both or none."""
    if (probs is None) == (logits is None):
        raise fail(ValueError, f"Either `probs` or `logits` must be specified, but not both. ({owner})")
    return ("probs", probs) if logits is None else ("logits", logits)


def batch_of(values: Sequence[Any], tensor: Tensor) -> tuple[int, ...]:
    """The batch's shape for parameters: () if all are numbers."""
    return () if all(isinstance(v, int | float) for v in values) else tuple(tensor.shape)


def uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    """Numbers uniform in (0, 1): neither end."""
    drawn = rand(tuple(shape), dtype=like.dtype)
    return drawn.clamp(min=finfo(like.dtype).tiny)


def normal(shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal numbers."""
    return randn(tuple(shape), dtype=like.dtype)


def clamp_chance(probs: Tensor) -> Tensor:
    """Probabilities kept away from 0 and 1 by the dtype's precision."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def sum_right(value: Tensor, count: int) -> Tensor:
    """The sum over the last `count` dims."""
    return value.sum(tuple(range(-count, 0))) if count else value
