"""What optimizers and modules do to the gradients of leaves."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor


def zero_grads(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Drop the gradients of leaves, or fill them with zeros."""
    quick = set_to_none and MODE.trace is None
    for tensor in tensors:
        if quick:
            if tensor._grad is not None:  # also one that has been promised, and now need not be given
                tensor._grad = None
        elif tensor.grad is not None:
            tensor.grad = None if set_to_none else tensor.grad.detach().zero_()
