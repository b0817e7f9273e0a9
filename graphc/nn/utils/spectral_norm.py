"""The older spectral_norm: a hook that computes the weight before each call."""

from __future__ import annotations

from typing import Any, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn import hooks
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter, UninitializedParameter
from graphc.nn.utils.power_method import (
    as_matrix,
    check_iterations,
    follow_left,
    follow_right,
    rows_of,
    start,
)

M = TypeVar("M", bound=Module)


class SpectralNorm:
    """The forward pre-hook: sets `name` to `name_orig` divided by its largest singular value.

    The power method follows that value: its vectors are the buffers `name_u` and `name_v`.
    """

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        check_iterations(n_power_iterations)
        self.name, self.n_power_iterations, self.dim, self.eps = name, n_power_iterations, dim, eps

    def compute_weight(self, module: Module, follow: bool) -> Tensor:
        """The normalised weight; `follow`: after iterations of the power method."""
        weight, u, v = (getattr(module, f"{self.name}_{part}") for part in ("orig", "u", "v"))
        matrix = as_matrix(weight, self.dim)
        if follow:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    follow_right(u, matrix, v, self.eps)
                    follow_left(u, matrix, v, self.eps)
            u, v = u.clone(), v.clone()  # (they change at the next call, before this one's backward pass)
        return weight / (u @ (matrix @ v))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> M:
    """Divide the parameter `name` by its largest singular value before each call.

    "Spectral Normalization for Generative Adversarial Networks" (Miyato et al., 2018). As a matrix, its rows
    are `dim` (None: 1 for transposed convolutions, else 0). The parameter is called `name_orig` from then on;
    `n_power_iterations` of the power method are made at each call in training. RuntimeError if done twice;
    ValueError if the parameter is None or has no shape yet.
    """
    if hooks.find(module._forward_pre_hooks, SpectralNorm, name=name) is not None:
        raise fail(RuntimeError, f"Cannot register two spectral_norm hooks on the same parameter {name}")
    hook = SpectralNorm(name, n_power_iterations, rows_of(module) if dim is None else dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise fail(ValueError, f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    if isinstance(weight, UninitializedParameter):
        raise fail(ValueError, "The module passed to `SpectralNorm` can't have uninitialized parameters")
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.data)
    for part, vector in zip(("u", "v"), start(as_matrix(weight.detach(), hook.dim), eps), strict=True):
        module.register_buffer(f"{name}_{part}", vector)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Make `name` a parameter again, with its present value. ValueError if it has no spectral_norm."""
    key = hooks.find(module._forward_pre_hooks, SpectralNorm, name=name)
    if key is None:
        raise fail(ValueError, f"spectral_norm of '{name}' not found in {module}")
    with no_grad():
        weight = module._forward_pre_hooks.pop(key).compute_weight(module, follow=False)
    for old in (name, f"{name}_u", f"{name}_v", f"{name}_orig"):
        delattr(module, old)
    module.register_parameter(name, Parameter(weight.detach()))
    return module
