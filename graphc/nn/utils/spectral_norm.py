"""The older spectral_norm: a hook that computes the weight before each call."""

from __future__ import annotations

from typing import Any, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.functions.random import randn
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn import functional as F
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter, UninitializedParameter

M = TypeVar("M", bound=Module)


class SpectralNorm:
    """The forward pre-hook: sets `name` to `name_orig` divided by its largest singular value.

    The power method follows that value: its vectors are the buffers `name_u` and `name_v`.
    """

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise fail(
                ValueError,
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}",
            )
        self.name, self.n_power_iterations, self.dim, self.eps = name, n_power_iterations, dim, eps

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as a matrix whose rows are `dim`."""
        return weight.movedim(self.dim, 0).flatten(1)

    def compute_weight(self, module: Module, follow: bool) -> Tensor:
        """The normalised weight; `follow`: after iterations of the power method."""
        weight, u, v = (getattr(module, f"{self.name}_{part}") for part in ("orig", "u", "v"))
        matrix = self.matrix(weight)
        if follow:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(u @ matrix, dim=0, eps=self.eps))
                    u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps))
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
    if _hook(module, name) is not None:
        raise fail(RuntimeError, f"Cannot register two spectral_norm hooks on the same parameter {name}")
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise fail(ValueError, f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    if isinstance(weight, UninitializedParameter):
        raise fail(ValueError, "The module passed to `SpectralNorm` can't have uninitialized parameters")
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.data)
    for part, extent in zip(("u", "v"), hook.matrix(weight.detach()).shape, strict=True):
        start = F.normalize(randn(extent, dtype=weight.dtype), dim=0, eps=eps)
        module.register_buffer(f"{name}_{part}", start)
    module.register_forward_pre_hook(hook)
    return module


def _hook(module: Module, name: str) -> int | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            return key
    return None


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Make `name` a parameter again, with its present value. ValueError if it has no spectral_norm."""
    key = _hook(module, name)
    if key is None:
        raise fail(ValueError, f"spectral_norm of '{name}' not found in {module}")
    with no_grad():
        weight = module._forward_pre_hooks.pop(key).compute_weight(module, follow=False)
    for old in (name, f"{name}_u", f"{name}_v", f"{name}_orig"):
        delattr(module, old)
    module.register_parameter(name, Parameter(weight.detach()))
    return module
