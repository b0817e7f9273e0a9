"""The older weight_norm: a hook that computes the weight before each call."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.tensor import Tensor
from graphc.nn import hooks
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter
from graphc.nn.utils.parametrizations import norm_except_dim, scaled_direction

M = TypeVar("M", bound=Module)


class WeightNorm:
    """The forward pre-hook: sets `name` from `name_g` and `name_v`."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Tensor:
        """g * v / |v|."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return scaled_direction(g, v, self.dim)

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Replace the parameter `name` by `name_g` (norms over all dims but `dim`; None: over all) and `name_v`.

    Deprecated in PyTorch in favour of `nn.utils.parametrizations.weight_norm`. RuntimeError if done twice.
    """
    warnings.warn(
        "`nn.utils.weight_norm` is deprecated in favor of `nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
        stacklevel=2,
    )
    if hooks.find(module._forward_pre_hooks, WeightNorm, name=name) is not None:
        raise fail(RuntimeError, f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, dim)
    weight = getattr(module, name)
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight.detach(), hook.dim)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make `name` a parameter again, with its present value. ValueError if there is no weight_norm on it."""
    key = hooks.find(module._forward_pre_hooks, WeightNorm, name=name)
    if key is None:
        raise fail(ValueError, f"weight_norm of '{name}' not found in {module}")
    weight = module._forward_pre_hooks.pop(key).compute_weight(module)
    for old in (name, f"{name}_g", f"{name}_v"):
        delattr(module, old)
    module.register_parameter(name, Parameter(weight.detach()))
    return module
