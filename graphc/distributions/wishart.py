"""The Wishart distribution: covariances of normal samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.covariance import MATRICES, OfMatrix, one_matrix
from graphc.distributions.distribution import normal
from graphc.distributions.positive import Chi2
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import value as known_value
from graphc.frontend.functions.creation import arange, tensor
from graphc.frontend.functions.numbers import nan
from graphc.frontend.functions.special import mvlgamma
from graphc.frontend.functions.triangular import cholesky, solve_triangular
from graphc.frontend.nodes import broadcast_shapes
from graphc.frontend.tensor import Tensor, is_concrete


class Wishart(OfMatrix):
    """Positive definite matrices [..., n, n]: sums of x x^T over `df` normal vectors x.

    df: degrees of freedom, above n - 1 (ValueError below, if known). The covariance of x is given as
    `covariance_matrix`, as its inverse `precision_matrix`, or as its lower Cholesky factor `scale_tril`
    (ValueError unless just one is). Samples by Bartlett's decomposition ("On the theory of statistical
    regression", 1934), with gradients.
    """

    arg_constraints = {"df": constraints.greater_than(0), **MATRICES}  # noqa: RUF012
    support = constraints.positive_definite
    has_rsample = True

    def __init__(
        self,
        df: Any,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name, matrix = one_matrix(covariance_matrix, precision_matrix, scale_tril)
        df = df if isinstance(df, Tensor) else tensor(float(df), dtype=matrix.dtype)
        n = matrix.shape[-1]
        batch = broadcast_shapes(tuple(matrix.shape[:-2]), tuple(df.shape))
        if is_concrete(df) and (known_value(df) <= n - 1).any():
            raise fail(
                ValueError,
                f"Value of df={df} expected to be greater than ndim - 1 = {n - 1}.",
            )
        self.df = df.expand(batch)
        self._take(name, matrix, batch)
        super().__init__(batch, (n, n), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self._spread(self.df) * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self.df - (self._event_shape[-1] + 1)
        return self._spread(factor.where(factor > 0, factor.new_full((), nan))) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        covariance = self.covariance_matrix
        diagonal = covariance.diagonal(0, -2, -1)
        pairs = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return self._spread(self.df) * (covariance.square() + pairs)

    def _spread(self, value: Tensor) -> Tensor:
        return value.reshape((*self._batch_shape, 1, 1))

    def _steps(self) -> Tensor:
        return arange(self._event_shape[-1], dtype=self.df.dtype)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = normal(self._extended_shape(sample_shape), self.df).tril(-1)
        lengths = (
            Chi2(self.df.unsqueeze(-1) - self._steps(), validate_args=False).rsample(sample_shape).sqrt()
        )
        factor = self.scale_tril.matmul(noise + lengths.diag_embed())
        return factor.matmul(factor.transpose(-1, -2))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        n, half = self._event_shape[-1], self.df / 2
        factor = cholesky(value)
        scale = self.scale_tril.expand(tuple(factor.shape))
        trace = solve_triangular(scale, factor, upper=False).square().sum((-2, -1))
        log_det = factor.diagonal(0, -2, -1).log().sum(-1)
        normal_part = self.df * (n / 2 * math.log(2.0) + self._half_log_det()) + mvlgamma(half, n)
        return (self.df - n - 1) * log_det - trace / 2 - normal_part

    def _digamma(self) -> Tensor:
        """The multivariate digamma function of df / 2."""
        return ((self.df.unsqueeze(-1) - self._steps()) / 2).digamma().sum(-1)

    def entropy(self) -> Tensor:
        n, half = self._event_shape[-1], self.df / 2
        scale = n / 2 * math.log(2.0) + self._half_log_det()
        return (n + 1) * scale + mvlgamma(half, n) - (self.df - n - 1) / 2 * self._digamma() + half * n


def divergence(p: Wishart, q: Wishart) -> Tensor:
    """kl_divergence of two Wishart distributions. ValueError for matrices of different sizes."""
    n = p.event_shape[-1]
    if p.event_shape != q.event_shape:
        raise fail(
            ValueError, "KL-divergence between two Wisharts with different event shapes cannot be computed"
        )
    batch = broadcast_shapes(tuple(p.batch_shape), tuple(q.batch_shape))
    scales = [d.scale_tril.expand((*batch, n, n)) for d in (q, p)]
    trace = solve_triangular(scales[0], scales[1], upper=False).square().sum((-2, -1))
    return (
        q.df * (q._half_log_det() - p._half_log_det())
        + p.df / 2 * (trace - n)
        + mvlgamma(q.df / 2, n)
        - mvlgamma(p.df / 2, n)
        + (p.df - q.df) / 2 * p._digamma()
    )
