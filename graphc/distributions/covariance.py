"""Distributions with a positive definite matrix, given as it is, as its inverse or as its Cholesky factor."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import Derived, Distribution
from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import eye
from graphc.frontend.functions.triangular import cholesky, solve_triangular
from graphc.frontend.tensor import Tensor

MATRICES = parameters(
    covariance_matrix=constraints.positive_definite,
    precision_matrix=constraints.positive_definite,
    scale_tril=constraints.lower_cholesky,
)


def one_matrix(
    covariance_matrix: Tensor | None, precision_matrix: Tensor | None, scale_tril: Tensor | None
) -> tuple[str, Tensor]:
    """The name and the value of the one that is given. ValueError unless one is, of two dims at least."""
    matrices = {
        "covariance_matrix": covariance_matrix,
        "precision_matrix": precision_matrix,
        "scale_tril": scale_tril,
    }
    given = {name: m for name, m in matrices.items() if m is not None}
    if len(given) != 1:
        raise fail(
            ValueError,
            "Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.",
        )
    ((name, matrix),) = given.items()
    if matrix.ndim < 2:
        raise fail(
            ValueError, f"{name} must be at least two-dimensional, with optional leading batch dimensions"
        )
    return name, matrix


class OfMatrix(Distribution):
    """A distribution with one of the three matrices [..., n, n]; the other two can be read."""

    def _take(self, name: str, matrix: Tensor, batch: Sequence[int]) -> None:
        """Keep the matrix that is given, for this batch."""
        self.__dict__[name] = matrix.expand((*batch, *matrix.shape[-2:]))

    @property
    def _given(self) -> Tensor:
        found: Tensor = self.__dict__[next(name for name in MATRICES if name in self.__dict__)]
        return found

    @Derived
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        if "covariance_matrix" in self.__dict__:
            return cholesky(self.covariance_matrix)
        # the precision's factor from the last row to the first is the inverse of ours, turned round
        turned = cholesky(self.precision_matrix.flip((-2, -1))).flip((-2, -1)).transpose(-1, -2)
        return solve_triangular(turned, self._identity(), upper=False)

    @Derived
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.scale_tril.matmul(self.scale_tril.transpose(-1, -2))

    @Derived
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        inverse = solve_triangular(self.scale_tril, self._identity(), upper=False)
        return inverse.transpose(-1, -2).matmul(inverse)

    def _identity(self) -> Tensor:
        given = self._given
        return eye(given.shape[-1], dtype=given.dtype)

    def _half_log_det(self) -> Tensor:
        return self.scale_tril.diagonal(0, -2, -1).log().sum(-1)
