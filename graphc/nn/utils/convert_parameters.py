"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.frontend.functions.joining import cat
from graphc.frontend.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, in order, as a vector."""
    return cat([p.reshape(-1) for p in parameters])  # type: ignore[attr-defined]


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Set all parameters from a vector as `parameters_to_vector` makes it."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected graphc.Tensor, but got: {type(vec).__name__}")
    start = 0
    value: Any = vec.detach()
    for p in parameters:
        count = p.numel()  # type: ignore[attr-defined]
        p.data = value[start : start + count].reshape(p.shape).clone()
        start += count
