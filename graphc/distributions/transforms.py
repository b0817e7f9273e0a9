"""Invertible functions with known Jacobians, by the names of `torch.distributions.transforms`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint
from graphc.distributions.distribution import sum_right
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import value as known_value
from graphc.frontend.functions.joining import cat
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.tensor import Tensor, is_concrete
from graphc.nn.functional.activation import softplus


class Transform:
    """A function y = t(x) with an inverse `t.inv` and the logarithm of its Jacobian's absolute determinant.

    Subclasses define `_call(x)`, `_inverse(y)` and `log_abs_det_jacobian(x, y)`, and the constraints `domain`
    and `codomain`, whose `event_dim` says how many last dims are transformed together.
    """

    bijective = True
    domain: Constraint = constraints.real
    codomain: Constraint = constraints.real

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise fail(ValueError, "cache_size must be 0 or 1")
        # (Nothing is cached: an expression that is written twice is one node of the program.)

    def __call__(self, x: Tensor) -> Tensor:
        return self._call(x)

    def _call(self, x: Tensor) -> Tensor:
        raise fail(NotImplementedError, f"{type(self).__name__} has no forward function")

    def _inverse(self, y: Tensor) -> Tensor:
        raise fail(NotImplementedError, f"{type(self).__name__} has no inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log abs(det(dy/dx)), without the dims that are transformed together."""
        raise fail(NotImplementedError, f"{type(self).__name__} has no Jacobian")

    @property
    def inv(self) -> Transform:
        """The inverse transform."""
        return _Inverse(self)

    @property
    def sign(self) -> Any:
        """1 for an increasing function of numbers, -1 for a decreasing one."""
        raise fail(NotImplementedError, f"{type(self).__name__} has no sign")

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of results for arguments of `shape`."""
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of arguments for results of `shape`."""
        return tuple(shape)

    def __eq__(self, other: object) -> bool:
        """Whether the other is the same function: of the same class, with equal settings."""
        if type(self) is not type(other):
            return False
        return all(_same(value, other.__dict__[name]) for name, value in self.__dict__.items())

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return type(self).__name__ + "()"


def _same(a: Any, b: Any) -> bool:
    """Whether two settings are equal; tensors are if both are known and have the same elements."""
    if a is b:
        return True
    if isinstance(a, Constraint):
        return repr(a) == repr(b)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        known = isinstance(a, Tensor) and isinstance(b, Tensor) and is_concrete(a) and is_concrete(b)
        return known and np.array_equal(known_value(a), known_value(b))
    return bool(a == b)


class _Inverse(Transform):
    """The inverse of a transform."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self._transform = transform
        self.bijective = transform.bijective
        self.domain, self.codomain = transform.codomain, transform.domain

    def _call(self, x: Tensor) -> Tensor:
        return self._transform._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._transform._call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._transform.log_abs_det_jacobian(y, x)

    @property
    def inv(self) -> Transform:
        return self._transform

    @property
    def sign(self) -> Any:
        return self._transform.sign

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self._transform.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self._transform.forward_shape(shape)

    def __repr__(self) -> str:
        return f"_InverseTransform({self._transform!r})"


class ComposeTransform(Transform):
    """Transforms, one after the other."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)
        self.bijective = all(p.bijective for p in self.parts)

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        """That of the first part, over as many dims as any part needs."""
        if not self.parts:
            return constraints.real
        found = self.parts[0].domain
        most = max(p.domain.event_dim for p in self.parts)
        return constraints.independent(found, most - found.event_dim) if most > found.event_dim else found

    @property
    def codomain(self) -> Constraint:  # type: ignore[override]
        """That of the last part, over as many dims as any part needs."""
        if not self.parts:
            return constraints.real
        found = self.parts[-1].codomain
        most = max(p.codomain.event_dim for p in self.parts)
        return constraints.independent(found, most - found.event_dim) if most > found.event_dim else found

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        total: Any = x.new_zeros(tuple(x.shape[: x.ndim - self.domain.event_dim]))
        most = self.domain.event_dim
        for part in self.parts:
            after = part(x)
            total = total + sum_right(part.log_abs_det_jacobian(x, after), most - part.domain.event_dim)
            x = after
        return total

    @property
    def sign(self) -> Any:
        found: Any = 1
        for part in self.parts:
            found = found * part.sign
        return found

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return tuple(shape)

    def __repr__(self) -> str:
        return "ComposeTransform([\n    " + ",\n    ".join(map(repr, self.parts)) + "\n])"


class ExpTransform(Transform):
    """y = exp(x)."""

    codomain = constraints.positive
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class PowerTransform(Transform):
    """y = x ** exponent, for positive x."""

    domain = constraints.positive
    codomain = constraints.positive

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    def _call(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.exponent * y / x).abs().log()

    @property
    def sign(self) -> Any:
        e = self.exponent
        return e.sign() if isinstance(e, Tensor) else math.copysign(1, e)


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(-x)), kept away from 0 and 1."""

    codomain = constraints.unit_interval
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        limits = finfo(x.dtype)
        return x.sigmoid().clamp(min=limits.tiny, max=1.0 - limits.eps)

    def _inverse(self, y: Tensor) -> Tensor:
        limits = finfo(y.dtype)
        y = y.clamp(min=limits.tiny, max=1.0 - limits.eps)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x) - softplus(x)


class SoftplusTransform(Transform):
    """y = log(1 + exp(x))."""

    codomain = constraints.positive
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return (-(-y).expm1()).log() + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x)


class TanhTransform(Transform):
    """y = tanh(x)."""

    codomain = constraints.interval(-1.0, 1.0)
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return x.tanh()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class AbsTransform(Transform):
    """y = abs(x), which has no inverse: `inv` gives the positive one."""

    bijective = False
    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class AffineTransform(Transform):
    """y = loc + scale * x, elementwise, over events of `event_dim` dims."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self.event_dim = loc, scale, event_dim
        if event_dim:
            self.domain = self.codomain = constraints.independent(constraints.real, event_dim)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        scale = self.scale if isinstance(self.scale, Tensor) else x.new_tensor(float(self.scale))
        return sum_right(scale.abs().log().expand(x.shape), self.event_dim)

    @property
    def sign(self) -> Any:
        return self.scale.sign() if isinstance(self.scale, Tensor) else (self.scale > 0) - (self.scale < 0)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        found = tuple(shape)
        for t in (self.loc, self.scale):
            if isinstance(t, Tensor) and t.ndim > 0:
                wide = max(len(found), t.ndim)
                pairs = zip(
                    ((1,) * wide + found)[-wide:], ((1,) * wide + tuple(t.shape))[-wide:], strict=True
                )
                found = tuple(max(i, j) for i, j in pairs)
        return found

    inverse_shape = forward_shape


class SoftmaxTransform(Transform):
    """y = softmax(x) over the last dim; `inv` gives log(y). Not a bijection."""

    bijective = False
    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()


class StickBreakingTransform(Transform):
    """Vectors of n - 1 numbers to vectors of n positive numbers with sum 1."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _offset(self, x: Tensor) -> Tensor:
        """log of how many pieces are left at each position."""
        count = x.shape[-1]
        return x.new_tensor([math.log(count - i) for i in range(count)])

    def _call(self, x: Tensor) -> Tensor:
        piece = (x - self._offset(x)).sigmoid()
        left = (1 - piece).cumprod(-1)
        one = x.new_ones((*x.shape[:-1], 1))
        return _beside(piece, one) * _beside(one, left)

    def _inverse(self, y: Tensor) -> Tensor:
        head = y[..., :-1]
        rest = (1 - head.cumsum(-1)).clamp(min=finfo(y.dtype).tiny)
        return head.log() - rest.log() + self._offset(head)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        moved = x - self._offset(x)
        return (-moved - softplus(-moved) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] - 1)


def _beside(a: Tensor, b: Tensor) -> Tensor:
    return cat([a, b], -1)


class ReshapeTransform(Transform):
    """Events of `in_shape` read as events of `out_shape`. ValueError if they differ in size."""

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise fail(ValueError, "in_shape, out_shape have different numbers of elements")
        self.domain = constraints.independent(constraints.real, len(self.in_shape))
        self.codomain = constraints.independent(constraints.real, len(self.out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(tuple(x.shape[: x.ndim - len(self.in_shape)]))

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[: len(shape) - len(self.in_shape)], *self.out_shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[: len(shape) - len(self.out_shape)], *self.in_shape)


class IndependentTransform(Transform):
    """`base_transform` over `reinterpreted_batch_ndims` more dims together."""

    def __init__(
        self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.base_transform, self.reinterpreted_batch_ndims = base_transform, reinterpreted_batch_ndims
        self.bijective = base_transform.bijective
        self.domain = constraints.independent(base_transform.domain, reinterpreted_batch_ndims)
        self.codomain = constraints.independent(base_transform.codomain, reinterpreted_batch_ndims)

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return sum_right(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.base_transform.inverse_shape(shape)

    def __repr__(self) -> str:
        return f"IndependentTransform({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


class LowerCholeskyTransform(Transform):
    """Square matrices to lower triangular ones with a positive diagonal (its exponential)."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + x.diagonal(0, -2, -1).exp().diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + y.diagonal(0, -2, -1).log().diag_embed()


identity_transform = ComposeTransform([])
