"""Wrappers that spread a model over devices or processes, where there is one of each.

A step uses all cores by itself (`graphc.set_num_threads`).
"""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.nn.module import Module

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]


class DataParallel(Module):
    """Calls `module` on the whole batch, as PyTorch's does where there are no GPUs.

    The keys of its `state_dict` begin with "module.". `device_ids`, `output_device` and `dim` are accepted,
    without effect.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0):
        super().__init__()
        self.module = module
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """There are no process groups: RuntimeError when it is made."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise fail(
            RuntimeError,
            "DistributedDataParallel needs a process group, and there is one process here: a step uses all "
            "cores (graphc.set_num_threads)",
        )


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Any = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """`module(*inputs, **module_kwargs)`; the rest is accepted, without effect."""
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*given, **(module_kwargs or {}))
