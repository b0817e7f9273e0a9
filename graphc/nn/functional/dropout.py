"""Dropout: multiply by a random mask of 0 and 1 / (1 - p), from the counter-based generator."""

from __future__ import annotations

import math

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions import random
from graphc.frontend.nodes import expand
from graphc.frontend.tensor import Tensor, apply, inplace
from graphc.ir.node import Node
from graphc.nn.functional.common import need_float, need_tensors


def _check(name: str, input: Tensor, p: float) -> None:
    need_tensors(name, input)
    if not 0.0 <= p <= 1.0:
        raise fail(ValueError, f"dropout probability has to be between 0 and 1, but got {p}")


def _masked(name: str, input: Tensor, p: float, mask_shape: tuple[int, ...], change: bool) -> Tensor:
    need_float(name, input)

    def build(n: Node) -> Node:
        return ops.mul(n, expand(random.keep_mask(mask_shape, p, n.dtype), n.shape))

    out = apply("DropoutBackward0", build, input)
    return inplace(input, out, name) if change else out


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability p and scale the rest by 1 / (1 - p); nothing in evaluation."""
    _check("dropout", input, p)
    if not training or p == 0:
        return input
    return _masked("dropout", input, p, tuple(input.shape), inplace)


def _channels(name: str, rank: int | None, input: Tensor, p: float, training: bool, change: bool) -> Tensor:
    """Zero whole channels: dim 1 of a batch, dim 0 without one (told by the rank)."""
    _check(name, input, p)
    if not training or p == 0:
        return input
    batched = rank is None or input.ndim >= rank + 2
    lead = 2 if batched else 1
    shape = (*input.shape[:lead], *[1] * (input.ndim - lead))
    return _masked(name, input, p, shape, change)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, L] or [C, L]."""
    if input.ndim not in (2, 3):
        raise fail(RuntimeError, f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input.")
    return _channels("dropout1d", 1, input, p, training, inplace)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, ...]."""
    return _channels("dropout2d", None, input, p, training, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, D, H, W] or [C, D, H, W]."""
    return _channels("dropout3d", 3, input, p, training, inplace)


_ALPHA = 1.7580993408473766  # what SELU saturates to, negated


def _alpha(
    name: str, input: Tensor, p: float, training: bool, change: bool, mask_shape: tuple[int, ...]
) -> Tensor:
    _check(name, input, p)
    if not training or p == 0:
        return input
    need_float(name, input)
    if p == 1:
        out = apply("MulBackward0", lambda n: ops.mul(n, ops.zeros(n.type)), input)
        return inplace(input, out, name) if change else out
    scale = 1.0 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))

    def build(n: Node) -> Node:
        keep = ops.gt(random.keep_mask(mask_shape, p, n.dtype), ops.full(mask_shape, 0, n.dtype))
        saturated = ops.like(n, -_ALPHA * scale + _ALPHA * scale * p)
        kept = ops.add(ops.mul(n, ops.like(n, scale)), ops.like(n, _ALPHA * scale * p))
        return ops.select(expand(keep, n.shape), kept, saturated)

    out = apply("AlphaDropoutBackward0", build, input)
    return inplace(input, out, name) if change else out


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps the mean and variance of inputs normalised as SELU makes them."""
    return _alpha("alpha_dropout", input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels."""
    shape = (*input.shape[:2], *[1] * (input.ndim - 2))
    return _alpha("feature_alpha_dropout", input, p, training, inplace, shape)
