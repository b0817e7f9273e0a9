"""The multivariate normal distribution whose covariance is a diagonal and a few columns' products."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import Centred, Derived, normal
from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import eye
from graphc.frontend.functions.diagonal import diag_embed
from graphc.frontend.functions.triangular import cholesky, solve_triangular
from graphc.frontend.nodes import broadcast_shapes
from graphc.frontend.tensor import Tensor


class LowRankMultivariateNormal(Centred):
    """Normal vectors of mean `loc` [..., n] and covariance W W^T + diag(d).

    `cov_factor` is W [..., n, m], `cov_diag` d [..., n]; densities cost n m^2, by Woodbury's identity.
    ValueError for shapes that do not fit.
    """

    arg_constraints = parameters(
        loc=constraints.real_vector,
        cov_factor=constraints.independent(constraints.real, 2),
        cov_diag=constraints.independent(constraints.positive, 1),
    )
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None:
        if loc.ndim < 1:
            raise fail(ValueError, "loc must be at least one-dimensional.")
        n = loc.shape[-1]
        if cov_factor.ndim < 2:
            raise fail(
                ValueError,
                "cov_factor must be at least two-dimensional, with optional leading batch dimensions",
            )
        if cov_factor.shape[-2] != n:
            raise fail(ValueError, f"cov_factor must be a batch of matrices with shape {n} x m")
        if cov_diag.ndim < 1 or cov_diag.shape[-1] != n:
            raise fail(ValueError, f"cov_diag must be a batch of vectors with shape ({n},)")
        leads = [tuple(t.shape[:-k]) for t, k in ((loc, 1), (cov_factor, 2), (cov_diag, 1))]
        batch = broadcast_shapes(*leads)
        self.loc = loc.expand((*batch, n))
        self.cov_factor = cov_factor.expand((*batch, *cov_factor.shape[-2:]))
        self.cov_diag = cov_diag.expand((*batch, n))
        super().__init__(batch, (n,), validate_args=validate_args)

    @property
    def _narrow(self) -> Tensor:
        """W^T D^-1."""
        return self.cov_factor.transpose(-1, -2) / self.cov_diag.unsqueeze(-2)

    @property
    def _inner(self) -> Tensor:
        """The Cholesky factor of I + W^T D^-1 W [..., m, m]."""
        identity = eye(self.cov_factor.shape[-1], dtype=self.loc.dtype)
        return cholesky(self._narrow.matmul(self.cov_factor) + identity)

    @property
    def variance(self) -> Tensor:
        return self.cov_factor.square().sum(-1) + self.cov_diag

    @Derived
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.cov_factor.matmul(self.cov_factor.transpose(-1, -2)) + diag_embed(self.cov_diag)

    @Derived
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return cholesky(self.covariance_matrix)

    @Derived
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        apart = solve_triangular(self._inner, self._narrow, upper=False)
        return diag_embed(self.cov_diag.reciprocal()) - apart.transpose(-1, -2).matmul(apart)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        few = normal((*shape[:-1], self.cov_factor.shape[-1]), self.loc)
        wide = self.cov_factor.matmul(few.unsqueeze(-1)).squeeze(-1)
        return self.loc + wide + self.cov_diag.sqrt() * normal(shape, self.loc)

    def _half_log_det(self) -> Tensor:
        return self._inner.diagonal(0, -2, -1).log().sum(-1) + 0.5 * self.cov_diag.log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        apart = value - self.loc
        narrow = self._narrow.matmul(apart.unsqueeze(-1))
        inner = self._inner.expand((*narrow.shape[:-2], *self._inner.shape[-2:]))
        shared = solve_triangular(inner, narrow, upper=False).square().sum((-2, -1))
        distance = (apart.square() / self.cov_diag).sum(-1) - shared
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - self._half_log_det()

    def entropy(self) -> Tensor:
        return 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._half_log_det()
