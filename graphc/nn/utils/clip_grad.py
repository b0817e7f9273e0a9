"""Clipping gradients, by their common norm or by value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

from graphc.frontend.functions.creation import zeros
from graphc.frontend.functions.joining import stack
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.changes import change
from graphc.ir.types import TensorType


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    found = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in found if p.grad is not None]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors taken as one vector. `foreach` is a hint without effect.

    RuntimeError for a NaN or infinite norm if `error_if_nonfinite` (which reads the value).
    """
    parts: list[Any] = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm_type = float(norm_type)
    if not parts:
        return zeros(())
    each = [_norm(t, norm_type) for t in parts]
    total = each[0] if len(each) == 1 else _norm(stack(each), norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so "
            "it cannot "
            "be clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def _norm(tensor: Any, norm_type: float) -> Any:
    if norm_type == 2.0:
        return (tensor * tensor).sum().sqrt()
    if norm_type == math.inf:
        return tensor.abs().max()
    return (tensor.abs() ** norm_type).sum() ** (1.0 / norm_type)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients in place so that their common norm is at most `max_norm`; returns the old norm."""
    found = [parameters] if isinstance(parameters, Tensor) else list(parameters)

    def clip() -> list[Tensor]:
        with no_grad():
            total = get_total_norm(_gradients(found), norm_type, error_if_nonfinite, foreach)
        clip_grads_with_norm_(found, max_norm, total, foreach)
        return [total]

    dtypes = {p._cell.type.dtype for p in found}
    if len(dtypes) == 1 and not error_if_nonfinite:
        key = ("norm", float(max_norm), float(norm_type))
        noted = change(clip, found, key, [TensorType((), dtypes.pop())])
        if noted is not None:
            return noted[0]
    return clip()[0]


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale all gradients in place as `clip_grad_norm_` does, for a norm that is known already."""
    with no_grad():
        scale: Any = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)  # type: ignore[operator]
        for gradient in _gradients(parameters):
            gradient.mul_(scale)


def clip_grad_norm(*args: Any, **kwargs: Any) -> Tensor:
    """The old name of `clip_grad_norm_`."""
    warnings.warn(
        "`nn.utils.clip_grad_norm` is now deprecated in favor of `nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(*args, **kwargs)


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp all gradients in place to [-clip_value, clip_value]."""
    found = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    limit = float(clip_value)

    def clip() -> list[Tensor]:
        with no_grad():
            for gradient in _gradients(found):
                gradient.clamp_(-limit, limit)
        return []

    if change(clip, found, ("value", limit), []) is None:
        clip()
