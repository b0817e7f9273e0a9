"""The largest singular value of a weight by the power method, as both forms of `spectral_norm` follow it."""

from __future__ import annotations

from graphc.frontend.errors import fail
from graphc.frontend.functions.random import randn
from graphc.frontend.tensor import Tensor
from graphc.nn import functional as F
from graphc.nn.module import Module


def rows_of(module: Module) -> int:
    """The dim of a module's weight that its outputs go along."""
    return 1 if type(module).__name__.startswith("ConvTranspose") else 0


def check_iterations(n_power_iterations: int) -> None:
    """ValueError unless there is at least one."""
    if n_power_iterations <= 0:
        raise fail(
            ValueError,
            f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}",
        )


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """A weight as the matrix [rows, columns] whose rows are `dim`."""
    return weight.movedim(dim, 0).flatten(1)


def start(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random unit vectors (u [rows], v [columns]) to begin with."""
    u, v = (F.normalize(randn(extent, dtype=matrix.dtype), dim=0, eps=eps) for extent in matrix.shape)
    return u, v


def follow_left(u: Tensor, matrix: Tensor, v: Tensor, eps: float) -> None:
    """u becomes the direction of matrix @ v, in place."""
    u.copy_(F.normalize(matrix @ v, dim=0, eps=eps))


def follow_right(u: Tensor, matrix: Tensor, v: Tensor, eps: float) -> None:
    """v becomes the direction of u @ matrix, in place."""
    v.copy_(F.normalize(u @ matrix, dim=0, eps=eps))
