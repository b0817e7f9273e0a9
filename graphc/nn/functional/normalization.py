"""Normalisation over batches, layers, groups and channels. Variances are computed in two sweeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.nodes import cast, expand, spread
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply, from_node, inplace, operand
from graphc.ir.node import Node
from graphc.nn.functional.common import as_floats, need_float, need_tensors


def moments(n: Node, axes: Sequence[int]) -> tuple[Node, Node, Node]:
    """(mean, biased variance, n - mean) over `axes`."""
    count = math.prod(n.shape[a] for a in axes)
    total = ops.reduce_sum(n, axes)
    share = 1.0 / count if count else math.nan
    mean = ops.mul(total, ops.like(total, share))
    centred = ops.sub(n, spread(mean, n.shape, axes))
    squares = ops.reduce_sum(ops.mul(centred, centred), axes)
    return mean, ops.mul(squares, ops.like(squares, share)), centred


def _inverse(variance: Node, eps: float) -> Node:
    return ops.rsqrt(ops.add(variance, ops.like(variance, eps)))


def _along_channels(v: Node, n: Node) -> Node:
    """A vector over dim 1 of `n`, repeated over the rest."""
    return ops.broadcast(v, n.shape, (1,))


def _affine(y: Node, weight: Node | None, bias: Node | None) -> Node:
    """y * weight + bias along the channels."""
    if weight is not None:
        y = ops.mul(y, _along_channels(cast(weight, y.dtype), y))
    if bias is not None:
        y = ops.add(y, _along_channels(cast(bias, y.dtype), y))
    return y


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple([t for t in tensors if t is not None])


def _pick(given: tuple[Node, ...], *wanted: Tensor | None) -> list[Node | None]:
    """Hand out nodes in order to those of `wanted` that are not None."""
    left = iter(given)
    return [None if t is None else next(left) for t in wanted]


def _check_channels(name: str, channels: int, **vectors: Tensor | None) -> None:
    for what, vector in vectors.items():
        if vector is not None and vector.numel() != channels:
            raise fail(
                RuntimeError,
                f"{name}: {what} should contain {channels} elements not {vector.numel()} (one for "
                "each channel)",
            )


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (dim 1) of [N, C, ...] over all other dims, then scale and shift.

    In training by the batch's own mean and biased variance, and the running ones (with the unbiased
    variance) move towards them by `momentum`, in place; otherwise by the running ones. ValueError if
    there is but one value per channel in training.
    """
    need_float("batch_norm", input)
    if input.ndim < 2:
        if input.ndim == 1 and input.shape[0] == 0:
            return apply("NativeBatchNormBackward0", lambda n: n, input)
        raise fail(ValueError, f"batch_norm: expected at least 2 dims, got input of size {list(input.shape)}")
    channels = input.shape[1]
    _check_channels(
        "batch_norm", channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    axes = tuple([i for i in range(input.ndim) if i != 1])
    count = math.prod(input.shape[a] for a in axes)
    if not training:
        if running_mean is None or running_var is None:
            raise fail(
                RuntimeError, "batch_norm: expected running_mean and running_var to be given in evaluation"
            )
        return _batch_norm_eval(input, running_mean, running_var, weight, bias, eps)
    if count == 1:
        raise fail(
            ValueError,
            f"Expected more than 1 value per channel when training, got input size {list(input.shape)}",
        )
    out, mean, variance = _standardised(input, axes, weight, bias, eps)
    if count == 0:
        return out  # an empty batch says nothing about the running statistics
    with no_grad():
        _follow(running_mean, mean, momentum)
        if running_var is not None:
            unbiased = ops.mul(variance, ops.like(variance, count / (count - 1)))
            _follow(running_var, unbiased, momentum)
    return out


def _standardised(
    input: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Node, Node]:
    """`input` normalised over `axes`, then scaled and shifted by channel; its mean and biased variance."""
    if eps <= 0:
        raise fail(ValueError, f"batch_norm eps must be positive during training, but got {eps}")
    found: list[Node] = []

    def build(n: Node, *rest: Node) -> Node:
        mean, variance, centred = moments(n, axes)
        found.extend((mean, variance))
        y = ops.mul(centred, spread(_inverse(variance, eps), n.shape, axes))
        return _affine(y, *_pick(rest, weight, bias))

    out = apply("NativeBatchNormBackward0", build, *_present(input, weight, bias))
    mean, variance = found
    return out, mean, variance


def _batch_norm_eval(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    def build(n: Node, mean: Node, variance: Node, *rest: Node) -> Node:
        # One factor and one shift for each channel, so that a convolution can take them over.
        w, b = _pick(rest, weight, bias)
        factor = _inverse(cast(variance, n.dtype), eps)
        if w is not None:
            factor = ops.mul(factor, cast(w, n.dtype))
        shift = ops.neg(ops.mul(cast(mean, n.dtype), factor))
        if b is not None:
            shift = ops.add(shift, cast(b, n.dtype))
        return ops.add(ops.mul(n, _along_channels(factor, n)), _along_channels(shift, n))

    return apply("NativeBatchNormBackward0", build, *_present(input, running_mean, running_var, weight, bias))


def _follow(running: Tensor | None, now: Node, momentum: float | Tensor) -> None:
    """running = (1 - momentum) * running + momentum * now, in place."""
    if running is None:
        return
    old = operand(running, False)
    now = cast(ops.stop_gradient(now), old.dtype)
    if isinstance(momentum, Tensor):
        share = expand(cast(operand(momentum, False), old.dtype), old.shape)
    else:
        share = ops.like(old, momentum)
    rest = ops.sub(ops.like(old, 1), share)
    inplace(running, from_node(ops.add(ops.mul(rest, old), ops.mul(share, now)), tracks=True))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample of [N, C, ...] over its own spatial dims."""
    need_float("instance_norm", input)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise fail(
                RuntimeError,
                "Expected running_mean and running_var to be defined when use_input_stats is false",
            )
        return _batch_norm_eval(input, running_mean, running_var, weight, bias, eps)
    axes = tuple(range(2, input.ndim))
    count = math.prod(input.shape[a] for a in axes)
    if count == 1:
        raise fail(
            ValueError,
            f"Expected more than 1 spatial element when training, got input size {list(input.shape)}",
        )
    _check_channels("instance_norm", input.shape[1], weight=weight, bias=bias)
    out, mean, variance = _standardised(input, axes, weight, bias, eps)
    if count == 0:
        return out  # an empty batch says nothing about the running statistics
    with no_grad():
        for running, now, scale in (
            (running_mean, mean, 1.0),
            (running_var, variance, count / (count - 1)),
        ):
            total = ops.reduce_sum(now, (0,))
            _follow(running, ops.mul(total, ops.like(total, scale / input.shape[0])), momentum)
    return out


def _trailing(name: str, input: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """The trailing axes of `input`, checked to have the shape that is to be normalised."""
    need_float(name, input)
    rank = len(shape)
    if rank < 1 or tuple(input.shape[-rank:]) != tuple(shape):
        raise fail(
            RuntimeError,
            f"{name}: Given normalized_shape={list(shape)}, expected input with shape "
            f"{['*', *shape]}, but got input of size{list(input.shape)}",
        )
    return tuple(range(input.ndim - rank, input.ndim))


@repeatable
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the trailing dims `normalized_shape`, then scale and shift elementwise."""
    axes = _trailing("layer_norm", input, normalized_shape)
    shape = tuple(normalized_shape)
    for what, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and tuple(vector.shape) != shape:
            raise fail(
                RuntimeError,
                f"layer_norm: Expected {what} to be of same shape as normalized_shape, but got {what} "
                f"of shape {list(vector.shape)} and normalized_shape = {list(shape)}",
            )

    def build(n: Node, *rest: Node) -> Node:
        _, variance, centred = moments(n, axes)
        y = ops.mul(centred, spread(_inverse(variance, eps), n.shape, axes))
        w, b = _pick(rest, weight, bias)
        if w is not None:
            y = ops.mul(y, expand(cast(w, y.dtype), y.shape))
        return y if b is None else ops.add(y, expand(cast(b, y.dtype), y.shape))

    return apply("NativeLayerNormBackward0", build, *_present(input, weight, bias))


@repeatable
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root of the mean square over the trailing dims; eps is the dtype's unless given."""
    axes = _trailing("rms_norm", input, normalized_shape)
    if weight is not None and tuple(weight.shape) != tuple(normalized_shape):
        raise fail(
            RuntimeError,
            "Expected weight to be of same shape as normalized_shape, but got weight of shape "
            f"{list(weight.shape)} and normalized_shape = {list(normalized_shape)}",
        )
    small = eps if eps is not None else {4: 2.0**-23, 8: 2.0**-52}[input.dtype.itemsize]

    def build(n: Node, w: Node | None = None) -> Node:
        total = ops.reduce_sum(ops.mul(n, n), axes)
        mean = ops.mul(total, ops.like(total, 1.0 / math.prod(normalized_shape)))
        y = ops.mul(n, spread(_inverse(mean, small), n.shape, axes))
        return y if w is None else ops.mul(y, expand(cast(w, y.dtype), y.shape))

    return apply("FusedRmsNormBackward0", build, *_present(input, weight))


@repeatable
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each of `num_groups` groups of channels of each sample, then scale and shift by channel."""
    need_float("group_norm", input)
    if input.ndim < 2:
        raise fail(RuntimeError, f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    samples, channels = input.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise fail(
            RuntimeError,
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}",
        )
    _check_channels("group_norm", channels, weight=weight, bias=bias)

    def build(n: Node, *rest: Node) -> Node:
        rows = ops.reshape(n, (samples, num_groups, n.type.size // max(1, samples * num_groups)))
        _, variance, centred = moments(rows, (2,))
        y = ops.mul(centred, spread(_inverse(variance, eps), rows.shape, 2))
        return _affine(ops.reshape(y, n.shape), *_pick(rest, weight, bias))

    return apply("NativeGroupNormBackward0", build, *_present(input, weight, bias))


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of squares over `size` neighbouring channels) ** beta."""
    need_tensors("local_response_norm", input)
    if input.ndim < 3:
        raise fail(
            ValueError,
            f"Expected 3D or higher dimensionality                          input (got {input.ndim} "
            "dimensions)",
        )

    if input._cell.node.type.size == 0:
        return input
    (input,) = as_floats("local_response_norm", input)

    def build(n: Node) -> Node:
        flat = ops.reshape(n, (n.shape[0], n.shape[1], n.type.size // max(1, n.shape[0] * n.shape[1])))
        squares = ops.transpose(ops.mul(flat, flat), (0, 2, 1))
        w = ops.window(squares, (size,), (1,), (size // 2,), ((size - 1) // 2,), (1,), 0.0)
        total = ops.transpose(ops.reduce_sum(w, (3,)), (0, 2, 1))
        base = ops.add(ops.mul(total, ops.like(total, alpha / size)), ops.like(total, k))
        return ops.reshape(ops.div(flat, ops.pow(base, ops.like(base, beta))), n.shape)

    return apply("DivBackward0", build, input)


@repeatable
def normalize(
    input: Tensor,
    p: float = 2.0,
    dim: int | tuple[int, ...] = 1,
    eps: float = 1e-12,
    out: Tensor | None = None,
) -> Tensor:
    """x / max(norm of x along `dim`, eps)."""
    need_tensors("normalize", input)
    norm = input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)  # type: ignore[attr-defined]
    value = input / norm  # type: ignore[operator]
    return value if out is None else inplace(out, value)
