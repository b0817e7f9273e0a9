"""Variables, which are tensors."""

from __future__ import annotations

from graphc.frontend.tensor import Tensor


def Variable(data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Tensor:
    """The tensor itself, as a leaf on the same storage (Variables and Tensors are one thing)."""
    leaf = data.detach()
    return leaf.requires_grad_() if requires_grad else leaf
