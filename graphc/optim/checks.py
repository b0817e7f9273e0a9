"""Checks of optimizer options, with PyTorch's texts."""

from __future__ import annotations

from typing import Any

from graphc.frontend.tensor import Tensor


def check_lr(lr: Any) -> None:
    """ValueError unless `lr` is a number >= 0 or a tensor with one element."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    check_number("learning rate", lr)


def check_number(what: str, value: Any, high: float | None = None) -> None:
    """ValueError unless 0 <= value (and value <= high)."""
    if not value >= 0.0 or (high is not None and not value <= high):
        raise ValueError(f"Invalid {what}: {value}")


def check_betas(betas: Any) -> None:
    """ValueError unless both betas are in [0, 1)."""
    for i in (0, 1):
        if not 0.0 <= betas[i] < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {betas[i]}")


def check_hints(foreach: bool | None, fused: bool | None, differentiable: bool = False) -> None:
    """RuntimeError for combinations of hints that PyTorch refuses."""
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
