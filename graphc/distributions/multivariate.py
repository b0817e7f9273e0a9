"""The multivariate normal distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.covariance import MATRICES, OfMatrix, one_matrix
from graphc.distributions.distribution import Centred, normal
from graphc.frontend.errors import fail
from graphc.frontend.functions.triangular import solve_triangular
from graphc.frontend.nodes import broadcast_shapes
from graphc.frontend.tensor import Tensor


class MultivariateNormal(OfMatrix, Centred):
    """Normal vectors with mean `loc` [..., n] and one of three matrices [..., n, n].

    `covariance_matrix`, its inverse `precision_matrix`, or its lower Cholesky factor `scale_tril`; the others
    can be read. ValueError unless just one is given, and for a matrix or mean of too few dims.
    """

    arg_constraints = {"loc": constraints.real_vector, **MATRICES}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.ndim < 1:
            raise fail(ValueError, "loc must be at least one-dimensional.")
        name, matrix = one_matrix(covariance_matrix, precision_matrix, scale_tril)
        batch = broadcast_shapes(tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        self.loc = loc.expand((*batch, loc.shape[-1]))
        self._take(name, matrix, batch)
        super().__init__(batch, tuple(loc.shape[-1:]), validate_args=validate_args)

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.pow(2).sum(-1).expand((*self._batch_shape, *self._event_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = normal(self._extended_shape(sample_shape), self.loc)
        return self.loc + self.scale_tril.matmul(noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        distance = self._mahalanobis(value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - self._half_log_det()

    def _mahalanobis(self, apart: Tensor) -> Tensor:
        """The squared length of L^-1 apart: samples become columns, so that one system is solved a matrix."""
        n, batch = self._event_shape[0], len(self._batch_shape)
        lead = tuple(apart.shape[: apart.ndim - 1 - batch])
        if tuple(apart.shape[len(lead) : -1]) != tuple(self._batch_shape):
            solved = solve_triangular(self.scale_tril, apart.unsqueeze(-1), upper=False)
            return solved.pow(2).sum((-2, -1))
        columns = apart.reshape((-1, *self._batch_shape, n)).movedim(0, -1)
        solved = solve_triangular(self.scale_tril, columns, upper=False)
        return solved.pow(2).sum(-2).movedim(-1, 0).reshape((*lead, *self._batch_shape))

    def entropy(self) -> Tensor:
        n = self._event_shape[0]
        found = 0.5 * n * (1.0 + math.log(2 * math.pi)) + self._half_log_det()
        return found.expand(tuple(self._batch_shape))


def divergence(p: Any, q: Any) -> Tensor:
    """kl_divergence of two multivariate normal distributions, also of low rank.

    ValueError for events of different sizes.
    """
    n = p.event_shape[0]
    if p.event_shape != q.event_shape:
        raise fail(
            ValueError,
            "KL-divergence between two Multivariate Normals with different event shapes cannot be computed",
        )
    batch = broadcast_shapes(tuple(p.batch_shape), tuple(q.batch_shape))
    factor = q.scale_tril.expand((*batch, n, n))
    spread = solve_triangular(factor, p.scale_tril.expand((*batch, n, n)), upper=False)
    moved: Any = (q.loc - p.loc).expand((*batch, n)).unsqueeze(-1)
    apart = solve_triangular(factor, moved, upper=False)
    total = spread.pow(2).sum((-2, -1)) + apart.pow(2).sum((-2, -1)) - n
    return q._half_log_det() - p._half_log_det() + 0.5 * total
