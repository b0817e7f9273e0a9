"""Transforms to matrices that distributions take: covariances, and factors of correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.distributions import constraints
from graphc.distributions.transforms import LowerCholeskyTransform, Transform
from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import eye
from graphc.frontend.functions.joining import cat
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.functions.triangular import cholesky
from graphc.frontend.tensor import Tensor
from graphc.nn.functional import softplus


class PositiveDefiniteTransform(Transform):
    """Square matrices to positive definite ones: those whose Cholesky factor LowerCholeskyTransform gives."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor.matmul(factor.transpose(-1, -2))

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(cholesky(y))


class CorrCholeskyTransform(Transform):
    """Vectors of n (n - 1) / 2 numbers to the lower Cholesky factors of n x n correlation matrices.

    A row's elements are, one by one, the share tanh(x) of the length that those before have left of 1; the
    diagonal takes what is left in the end ("Generating random correlation matrices based on vines and
    extended onion method", Lewandowski, Kurowicka and Joe, 2009).
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky

    def _call(self, x: Tensor) -> Tensor:
        eps = finfo(x.dtype).eps
        share = _below_diagonal(x.tanh().clamp(min=-1 + eps, max=1 - eps))
        left = (1 - share.square()).sqrt().cumprod(-1)
        return (share + eye(share.shape[-1], dtype=x.dtype)) * _moved(left)

    def _inverse(self, y: Tensor) -> Tensor:
        left = _moved(1 - y.square().cumsum(-1))
        return (_vector(y, 1) / _vector(left, 1).sqrt()).atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        left = _vector(1 - y.square().cumsum(-1), 2)
        return 0.5 * left.log().sum(-1) - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        n = _size(shape[-1])
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise fail(ValueError, "Input is not square")
        return (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)


def _size(count: int) -> int:
    """n of a matrix with so many elements below its diagonal. ValueError if there is none."""
    n = (1 + math.isqrt(1 + 8 * count)) // 2
    if n * (n - 1) // 2 != count:
        raise fail(ValueError, f"{count} is not the number of elements below the diagonal of a square matrix")
    return n


def _below_diagonal(x: Tensor) -> Tensor:
    """Vectors as the elements below the diagonals of matrices, row by row; zeros elsewhere."""
    n = _size(x.shape[-1])
    place = np.full((n, n), x.shape[-1])
    place[np.tril_indices(n, -1)] = np.arange(x.shape[-1])
    return cat([x, x.new_zeros((*x.shape[:-1], 1))], -1)[..., x.new_tensor(place).long()]


def _vector(y: Tensor, below: int) -> Tensor:
    """The elements of square matrices from so many diagonals below the main one on, row by row."""
    n = y.shape[-1]
    rows, columns = np.tril_indices(n, -below)
    return y.flatten(-2)[..., y.new_tensor(rows * n + columns).long()]


def _moved(y: Tensor) -> Tensor:
    """What stands before each element of a row: 1 before the first."""
    return cat([y.new_ones((*y.shape[:-1], 1)), y[..., :-1]], -1)
