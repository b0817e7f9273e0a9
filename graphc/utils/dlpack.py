"""Exchange of tensors with other libraries, by the path of PyTorch's file."""

from __future__ import annotations

from typing import Any

from graphc.frontend.functions.creation import from_dlpack
from graphc.frontend.tensor import Tensor

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's value, which one consumer may take over."""
    return tensor.__dlpack__()
