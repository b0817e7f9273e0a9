"""Constraints: where the parameters and the samples of a distribution lie, as in `torch.distributions`.

`check` says for each event whether it satisfies the constraint. It is written once for tensors and for
NumPy's arrays, with what both have: values that are known are checked without compiling anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.frontend.errors import fail

Value = Any  # a Tensor or an array


class Constraint:
    """A set of values. `is_discrete`: of whole numbers; `event_dim`: how many last dims form one event."""

    is_discrete = False
    event_dim = 0

    def check(self, value: Value) -> Any:
        """Whether each event of `value` satisfies the constraint: a bool tensor of the batch's shape."""
        raise fail(NotImplementedError, f"{type(self).__name__} cannot be checked")

    def __repr__(self) -> str:
        return type(self).__name__.lstrip("_") + "()"


class _Dependent(Constraint):
    """A constraint that depends on other parameters, such as the support of Uniform."""

    def __init__(self, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def check(self, value: Value) -> Any:
        raise fail(ValueError, "Cannot determine validity of dependent constraint")


def is_dependent(constraint: Constraint) -> bool:
    """Whether a constraint can only be checked knowing other parameters."""
    return isinstance(constraint, _Dependent)


class _Real(Constraint):
    """Any number but NaN."""

    def check(self, value: Value) -> Any:
        return value == value


class _Boolean(Constraint):
    """0 or 1."""

    is_discrete = True

    def check(self, value: Value) -> Any:
        return (value == 0) | (value == 1)


class _OneHot(Constraint):
    """Vectors of zeros and a single one."""

    is_discrete = True
    event_dim = 1

    def check(self, value: Value) -> Any:
        return ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == 1)


class _Bounded(Constraint):
    """Numbers between bounds, of which either may be missing, included or not."""

    def __init__(
        self, lower: Any = None, upper: Any = None, open_lower: bool = False, open_upper: bool = False
    ):
        self.lower_bound, self.upper_bound = lower, upper
        self._open = open_lower, open_upper

    def check(self, value: Value) -> Any:
        found = value == value
        for bound, is_open, sign in (
            (self.lower_bound, self._open[0], 1),
            (self.upper_bound, self._open[1], -1),
        ):
            if bound is not None:
                bound = _same_kind(bound, value)
                ahead, behind = (value, bound) if sign > 0 else (bound, value)
                found = found & ((ahead > behind) if is_open else (ahead >= behind))
        return found

    def __repr__(self) -> str:
        bounds = {"lower_bound": self.lower_bound, "upper_bound": self.upper_bound}
        listed = ", ".join(f"{name}={bound}" for name, bound in bounds.items() if bound is not None)
        return f"{type(self).__name__.lstrip('_')}({listed})"


def _same_kind(bound: Any, value: Value) -> Any:
    """A bound as an array where the value is one."""
    return bound.detach().numpy() if isinstance(value, np.ndarray) and hasattr(bound, "detach") else bound


class _GreaterThan(_Bounded):
    """Numbers above `lower_bound`."""

    def __init__(self, lower_bound: Any) -> None:
        super().__init__(lower=lower_bound, open_lower=True)


class _GreaterThanEq(_Bounded):
    """Numbers from `lower_bound` on."""

    def __init__(self, lower_bound: Any) -> None:
        super().__init__(lower=lower_bound)


class _LessThan(_Bounded):
    """Numbers below `upper_bound`."""

    def __init__(self, upper_bound: Any) -> None:
        super().__init__(upper=upper_bound, open_upper=True)


class _Interval(_Bounded):
    """Numbers from `lower_bound` to `upper_bound`, both included."""

    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        super().__init__(lower_bound, upper_bound)


class _HalfOpenInterval(_Bounded):
    """Numbers from `lower_bound` on, below `upper_bound`."""

    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        super().__init__(lower_bound, upper_bound, open_upper=True)


class _IntegerInterval(_Bounded):
    """Whole numbers from `lower_bound` to `upper_bound`, both included."""

    is_discrete = True

    def __init__(self, lower_bound: Any, upper_bound: Any = None) -> None:
        super().__init__(lower_bound, upper_bound)

    def check(self, value: Value) -> Any:
        return super().check(value) & (value % 1 == 0)


class _Simplex(Constraint):
    """Vectors of non-negative numbers with sum 1."""

    event_dim = 1

    def check(self, value: Value) -> Any:
        return (value >= 0).all(-1) & (abs(value.sum(-1) - 1) < 1e-6)


class _Multinomial(Constraint):
    """Vectors of counts with sum `upper_bound`."""

    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: int) -> None:
        self.upper_bound = upper_bound

    def check(self, value: Value) -> Any:
        return ((value >= 0) & (value % 1 == 0)).all(-1) & (value.sum(-1) == self.upper_bound)


class _LowerTriangular(Constraint):
    """Square matrices that are zero above the diagonal."""

    event_dim = 2

    def check(self, value: Value) -> Any:
        upper = _constant(np.triu(np.ones(tuple(value.shape[-2:]), bool), 1), value)
        return ((value == 0) | ~upper).all(-1).all(-1)


class _LowerCholesky(_LowerTriangular):
    """Lower triangular matrices with a positive diagonal."""

    def check(self, value: Value) -> Any:
        off = _constant(~np.eye(value.shape[-1], dtype=bool), value)
        return super().check(value) & ((value > 0) | off).all(-1).all(-1)


class _CorrCholesky(_LowerCholesky):
    """Lower Cholesky factors of correlation matrices: their rows have length 1."""

    def check(self, value: Value) -> Any:
        array = _array(value)
        room = np.finfo(array.dtype).eps * array.shape[-1] * 10
        of_length_1 = (np.abs(np.linalg.norm(array, axis=-1) - 1) < room).all(-1)
        return super().check(value) & _constant(of_length_1, value)


class _Square(Constraint):
    """Square matrices."""

    event_dim = 2

    def check(self, value: Value) -> Any:
        is_square = value.shape[-1] == value.shape[-2]
        return _constant(np.full(tuple(value.shape[:-2]), is_square), value)


class _Symmetric(_Square):
    """Matrices that equal their transposes."""

    def check(self, value: Value) -> Any:
        return _constant(_is_symmetric(_array(value)), value)


class _PositiveSemidefinite(_Symmetric):
    """Symmetric matrices without negative eigenvalues."""

    def check(self, value: Value) -> Any:
        return _constant(_least_eigenvalue(_array(value)) >= 0, value)


class _PositiveDefinite(_Symmetric):
    """Symmetric matrices with positive eigenvalues."""

    def check(self, value: Value) -> Any:
        return _constant(_least_eigenvalue(_array(value)) > 0, value)


def _array(value: Value) -> np.ndarray:
    found: np.ndarray = value if isinstance(value, np.ndarray) else value.detach().numpy()
    return found


def _is_symmetric(array: np.ndarray) -> np.ndarray:
    if array.shape[-1] != array.shape[-2]:
        return np.zeros(array.shape[:-2], bool)
    found: np.ndarray = np.isclose(array, np.swapaxes(array, -1, -2), atol=1e-6).all((-1, -2))
    return found


def _least_eigenvalue(array: np.ndarray) -> np.ndarray:
    """Of each matrix; minus infinity where it is not symmetric, or not finite."""
    found = _is_symmetric(array) & np.isfinite(array).all((-1, -2))
    if array.shape[-1] != array.shape[-2]:
        return np.full(array.shape[:-2], -np.inf)
    safe = np.where(found[..., None, None], (array + np.swapaxes(array, -1, -2)) / 2, np.eye(array.shape[-1]))
    return np.where(found, np.linalg.eigvalsh(safe).min(-1), -np.inf)


def _constant(array: np.ndarray, like: Value) -> Any:
    """An array of bools as what `like` is."""
    return array if isinstance(like, np.ndarray) else like.new_tensor(array, dtype=(like == like).dtype)


class _IndependentConstraint(Constraint):
    """A constraint on the last `reinterpreted_batch_ndims` more dims together."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint, self.reinterpreted_batch_ndims = base_constraint, reinterpreted_batch_ndims
        self.is_discrete = base_constraint.is_discrete
        self.event_dim = base_constraint.event_dim + reinterpreted_batch_ndims

    def check(self, value: Value) -> Any:
        found = self.base_constraint.check(value)
        for _ in range(self.reinterpreted_batch_ndims):
            found = found.all(-1)
        return found

    def __repr__(self) -> str:
        return f"IndependentConstraint({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


class _Stack(Constraint):
    """One constraint for each position of dim `dim`."""

    def __init__(self, cseq: Any, dim: int = 0) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq)

    def check(self, value: Value) -> Any:
        array = _array(value)
        parts = [np.take(array, i, self.dim) for i in range(array.shape[self.dim])]
        return _constant(
            np.stack([c.check(p) for c, p in zip(self.cseq, parts, strict=True)], self.dim), value
        )


class _Cat(Constraint):
    """Constraints for pieces of dim `dim`, which are `lengths` long each (one, unless given)."""

    def __init__(self, cseq: Any, dim: int = 0, lengths: Any = None) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.cseq):
            raise fail(ValueError, f"cat of {len(self.cseq)} constraints has {len(self.lengths)} lengths")
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq)

    def check(self, value: Value) -> Any:
        pieces = np.split(_array(value), np.cumsum(self.lengths)[:-1], self.dim)
        found = [c.check(p) for c, p in zip(self.cseq, pieces, strict=True)]
        return _constant(np.concatenate(found, self.dim), value)


def parameters(**constraints: Constraint) -> Mapping[str, Constraint]:
    """The constraints on a distribution's parameters, by name."""
    return constraints


greater_than, greater_than_eq, less_than = _GreaterThan, _GreaterThanEq, _LessThan
interval, half_open_interval, integer_interval = _Interval, _HalfOpenInterval, _IntegerInterval
cat, independent, stack = _Cat, _IndependentConstraint, _Stack
dependent = _Dependent()
boolean = _Boolean()
one_hot = _OneHot()
real = _Real()
real_vector = independent(real, 1)
nonnegative = greater_than_eq(0.0)
positive = greater_than(0.0)
unit_interval = interval(0.0, 1.0)
nonnegative_integer = integer_interval(0)
positive_integer = integer_interval(1)
simplex = _Simplex()
multinomial = _Multinomial
lower_triangular = _LowerTriangular()
lower_cholesky = _LowerCholesky()
corr_cholesky = _CorrCholesky()
square = _Square()
symmetric = _Symmetric()
positive_semidefinite = _PositiveSemidefinite()
positive_definite = _PositiveDefinite()
