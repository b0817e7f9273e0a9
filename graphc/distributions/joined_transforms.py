"""Transforms made of others side by side, and of a distribution function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint
from graphc.distributions.distribution import Distribution, sum_right
from graphc.distributions.transforms import Transform
from graphc.frontend.errors import fail
from graphc.frontend.functions.joining import cat, stack
from graphc.frontend.tensor import Tensor


class _Joined(Transform):
    """Transforms of parts of dim `dim`, each of which reads and gives a part."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        if not all(isinstance(t, Transform) for t in tseq):
            raise fail(TypeError, f"{type(self).__name__}: every item must be a Transform")
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim
        self.bijective = all(t.bijective for t in self.transforms)

    def _parts(self, x: Tensor) -> list[Tensor]:
        """The part for each transform. ValueError if `x` has other ones."""
        raise NotImplementedError

    def _join(self, parts: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def _map(self, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
        parts = zip(self.transforms, *map(self._parts, values), strict=True)
        return self._join([function(*found) for found in parts])

    def _call(self, x: Tensor) -> Tensor:
        return self._map(lambda t, x: t(x), x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._map(lambda t, y: t.inv(y), y)


class CatTransform(_Joined):
    """Transforms of consecutive pieces of dim `dim`, which are `lengths` long (one, unless given)."""

    def __init__(
        self,
        tseq: Sequence[Transform],
        dim: int = 0,
        lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:
        super().__init__(tseq, dim, cache_size)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.transforms):
            raise fail(ValueError, f"{len(self.transforms)} transforms have {len(self.lengths)} lengths")

    domain = property(lambda self: self._constraint([t.domain for t in self.transforms]))
    codomain = property(lambda self: self._constraint([t.codomain for t in self.transforms]))

    def _constraint(self, parts: list[Constraint]) -> Constraint:
        return constraints.cat(parts, self.dim, self.lengths)

    def _parts(self, x: Tensor) -> list[Tensor]:
        if x.shape[self.dim] != sum(self.lengths):
            raise fail(
                ValueError,
                f"dim {self.dim} of {tuple(x.shape)} is not {sum(self.lengths)} long, as the pieces are",
            )
        return list(x.split(self.lengths, self.dim))

    def _join(self, parts: list[Tensor]) -> Tensor:
        return cat(parts, self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        within = self.domain.event_dim
        found = []
        for t, a, b in zip(self.transforms, self._parts(x), self._parts(y), strict=True):
            found.append(sum_right(t.log_abs_det_jacobian(a, b), within - t.domain.event_dim))
        dim = (self.dim if self.dim < 0 else self.dim - x.ndim) + within
        return sum(found[1:], found[0]) if dim >= 0 else cat(found, dim)


class StackTransform(_Joined):
    """A transform for each position of dim `dim`."""

    domain = property(lambda self: constraints.stack([t.domain for t in self.transforms], self.dim))
    codomain = property(lambda self: constraints.stack([t.codomain for t in self.transforms], self.dim))

    def _parts(self, x: Tensor) -> list[Tensor]:
        if x.shape[self.dim] != len(self.transforms):
            raise fail(ValueError, f"dim {self.dim} of {tuple(x.shape)} is not {len(self.transforms)} long")
        return list(x.unbind(self.dim))

    def _join(self, parts: list[Tensor]) -> Tensor:
        return stack(parts, self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._map(lambda t, x, y: t.log_abs_det_jacobian(x, y), x, y)


class CumulativeDistributionTransform(Transform):
    """Numbers to their place in a distribution: y = cdf(x); `inv` gives quantiles."""

    bijective = True
    codomain = constraints.unit_interval
    sign = 1

    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return self.distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distribution.log_prob(x)
