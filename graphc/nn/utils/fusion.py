"""Batch norm folded into the layer before it, for inference; modules without initial values."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

M = TypeVar("M", bound=Module)


def _fused(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    gain: Tensor | None,
    shift: Tensor | None,
    axis: int,
) -> tuple[Parameter, Parameter]:
    """The weight and the bias of a layer that does what layer and norm did; channels are dim `axis`."""
    with no_grad():
        scale = (variance + eps).rsqrt()
        scale = scale if gain is None else scale * gain
        moved = -mean if bias is None else bias - mean
        start = moved * scale if shift is None else moved * scale + shift
        shape = [1] * weight.ndim
        shape[axis] = -1
        made = weight * scale.reshape(tuple(shape))
    grad = bias is not None and bias.requires_grad
    return Parameter(made, weight.requires_grad), Parameter(start, grad)


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that does what it and the batch norm behind it did.

    conv_w [out, in, ...] ([in, out, ...] with `transpose`), conv_b [out] or None; bn_rm, bn_rv: the running
    mean and variance [out]; bn_w, bn_b: the norm's own weight and bias [out], or None.
    """
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """As `fuse_conv_bn_weights`, for a linear layer with weight [out, in]."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _norm_of(layer: Module, bn: Any) -> tuple[Any, Any, Any, Any, Any]:
    if layer.training or bn.training:
        raise fail(AssertionError, "Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise fail(AssertionError, "fusion needs a batch norm with running statistics")
    return bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A copy of a convolution that does what it and a batch norm behind it do. AssertionError in training."""
    parts: Any = copy.deepcopy(conv)
    parts.weight, parts.bias = fuse_conv_bn_weights(parts.weight, parts.bias, *_norm_of(conv, bn), transpose)
    return parts


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A copy of a linear layer that does what it and a batch norm behind it do, as `fuse_conv_bn_eval`."""
    parts: Any = copy.deepcopy(linear)
    parts.weight, parts.bias = fuse_linear_bn_weights(parts.weight, parts.bias, *_norm_of(linear, bn))
    return parts


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """A module whose initial values nobody should rely on. (Values that nobody reads are not drawn here.)"""
    return module_cls(*args, **kwargs)
