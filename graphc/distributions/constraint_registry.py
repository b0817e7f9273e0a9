"""From unconstrained numbers to a constraint: what a parameter of a distribution is learnt as.

    scale = transform_to(Normal.arg_constraints["scale"])(unconstrained)

`biject_to` gives bijections, whose Jacobians can be corrected for (samples of posteriors); `transform_to`
may give others that are better to optimise through (softmax for a simplex).
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any, TypeVar

from graphc.distributions import constraints, transforms
from graphc.distributions.constraints import Constraint
from graphc.distributions.joined_transforms import CatTransform, StackTransform
from graphc.distributions.matrix_transforms import CorrCholeskyTransform, PositiveDefiniteTransform
from graphc.distributions.transforms import Transform
from graphc.frontend.errors import fail

Factory = Callable[[Any], Transform]
F = TypeVar("F", bound=Callable[..., Transform])


class ConstraintRegistry:
    """A table from kinds of constraints to functions that give a transform from all numbers to one."""

    def __init__(self) -> None:
        self._factories: dict[type[Constraint], Factory] = {}

    def register(self, constraint: Any, factory: F | None = None) -> Any:
        """Use `factory(constraint)` for constraints of this class, or of the class of this one; a decorator
        without `factory`. TypeError for what is no constraint."""
        if factory is None:
            return lambda given: self.register(constraint, given)
        kind = type(constraint) if isinstance(constraint, Constraint) else constraint
        if not isinstance(kind, type) or not issubclass(kind, Constraint):
            raise fail(
                TypeError,
                f"Expected constraint to be either a Constraint subclass or instance, but got {constraint}",
            )
        self._factories[kind] = factory
        return factory

    def __call__(self, constraint: Constraint) -> Transform:
        """A transform to a constraint. NotImplementedError if none is known."""
        factory = self._factories.get(type(constraint))
        if factory is None:
            raise fail(NotImplementedError, f"Cannot transform {type(constraint).__name__} constraints")
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _both(*kinds: Any) -> Callable[[Factory], Factory]:
    """Register a function in both tables."""

    def register(factory: Factory) -> Factory:
        for kind in kinds:
            biject_to.register(kind, factory)
            transform_to.register(kind, factory)
        return factory

    return register


@_both(constraints.real)
def _to_real(constraint: Any) -> Transform:
    return transforms.identity_transform


@_both(constraints.greater_than, constraints.greater_than_eq)
def _to_greater(constraint: Any) -> Transform:
    shift = transforms.AffineTransform(constraint.lower_bound, 1)
    return transforms.ComposeTransform([transforms.ExpTransform(), shift])


@_both(constraints.less_than)
def _to_less(constraint: Any) -> Transform:
    shift = transforms.AffineTransform(constraint.upper_bound, -1)
    return transforms.ComposeTransform([transforms.ExpTransform(), shift])


@_both(constraints.interval, constraints.half_open_interval)
def _to_interval(constraint: Any) -> Transform:
    lower, upper = constraint.lower_bound, constraint.upper_bound
    if isinstance(lower, Number) and isinstance(upper, Number) and lower == 0 and upper == 1:
        return transforms.SigmoidTransform()
    scale = transforms.AffineTransform(lower, upper - lower)
    return transforms.ComposeTransform([transforms.SigmoidTransform(), scale])


biject_to.register(constraints.simplex, lambda constraint: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda constraint: transforms.SoftmaxTransform())
_both(constraints.corr_cholesky)(lambda constraint: CorrCholeskyTransform())
transform_to.register(constraints.lower_cholesky, lambda constraint: transforms.LowerCholeskyTransform())
for _kind in (constraints.positive_definite, constraints.positive_semidefinite):
    transform_to.register(_kind, lambda constraint: PositiveDefiniteTransform())


def _register_compound(registry: ConstraintRegistry) -> None:
    """Constraints made of others: by the transforms to these."""

    @registry.register(constraints.independent)
    def _to_independent(constraint: Any) -> Transform:
        base = registry(constraint.base_constraint)
        return transforms.IndependentTransform(base, constraint.reinterpreted_batch_ndims)

    @registry.register(constraints.cat)
    def _to_cat(constraint: Any) -> Transform:
        return CatTransform([registry(c) for c in constraint.cseq], constraint.dim, constraint.lengths)

    @registry.register(constraints.stack)
    def _to_stack(constraint: Any) -> Transform:
        return StackTransform([registry(c) for c in constraint.cseq], constraint.dim)


_register_compound(biject_to)
_register_compound(transform_to)
