"""Ready parametrizations: weights as magnitude and direction, weights of spectral norm 1."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn import functional as F
from graphc.nn.module import Module
from graphc.nn.utils.parametrize import register_parametrization
from graphc.nn.utils.power_method import (
    as_matrix,
    check_iterations,
    follow_left,
    follow_right,
    rows_of,
    start,
)

__all__ = ["spectral_norm", "weight_norm"]


def norm_except_dim(v: Tensor, dim: int) -> Tensor:
    """The Euclidean norm over all dims but `dim`, which are kept with extent 1; of everything for -1."""
    if dim == -1:
        return (v * v).sum().sqrt()
    return (v * v).sum([d for d in range(v.ndim) if d != dim % v.ndim], keepdim=True).sqrt()


def scaled_direction(g: Tensor, v: Tensor, dim: int) -> Tensor:
    """v with the norms g."""
    return v * (g / norm_except_dim(v, dim))


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return scaled_direction(weight_g, weight_v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Compute `name` as g * v / |v|, the norm being over all dims but `dim` (None: over all).

    g and v are the parameters `parametrizations.<name>.original0` and `original1`. State that was saved with
    `nn.utils.weight_norm` is accepted.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def rename(state_dict: dict[str, Any], prefix: str, *_rest: Any) -> None:
        for i, old in enumerate(("g", "v")):
            if f"{prefix}{name}_{old}" in state_dict:
                new = f"{prefix}parametrizations.{name}.original{i}"
                state_dict[new] = state_dict.pop(f"{prefix}{name}_{old}")

    module._register_load_state_dict_pre_hook(rename)
    return module


class _SpectralNorm(Module):
    """A weight divided by its largest singular value, which the power method follows in training."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.ndim
        if not -ndim <= dim < ndim:
            raise fail(
                IndexError,
                f"Dimension out of range (expected to be in range of [-{ndim}, {ndim - 1}] but got {dim})",
            )
        check_iterations(n_power_iterations)
        self.dim = dim % ndim
        self.eps = eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight, self.dim)
            for name, vector in zip(("_u", "_v"), start(matrix, eps), strict=True):
                self.register_buffer(name, vector)
            self._power_method(matrix, 15)

    def _power_method(self, matrix: Tensor, iterations: int) -> None:
        with no_grad():
            matrix = matrix.detach()
            for _ in range(iterations):
                follow_left(self._u, matrix, self._v, self.eps)
                follow_right(self._u, matrix, self._v, self.eps)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._power_method(matrix, self.n_power_iterations)
        sigma = self._u.clone() @ (matrix @ self._v.clone())
        return weight / sigma

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """Divide `name` by its spectral norm, as a matrix of which `dim` are the rows.

    The norm is followed by `n_power_iterations` of the power method at each use in training. ValueError if
    there is no such tensor; IndexError for a dim out of range.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise fail(ValueError, f"Module '{module}' has no parameter or buffer with name '{name}'")
    made = _SpectralNorm(weight.detach(), n_power_iterations, rows_of(module) if dim is None else dim, eps)
    return register_parametrization(module, name, made)
