"""Convolutions over one, two or three spatial dims: one function each way serves all."""

from __future__ import annotations

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.nodes import spread
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.nn.functional.common import Ints, need_tensors, tuple_of


def _check_operands(name: str, rank: int, tensors: tuple[Tensor, ...]) -> None:
    need_tensors(name, *tensors)
    input, weight = tensors[:2]
    if weight.ndim != rank + 2:
        raise fail(
            RuntimeError,
            f"{name}: weight should have {rank + 2} dims, but it has {weight.ndim}: {describe(*tensors)}",
        )
    if input.ndim not in (rank + 1, rank + 2):
        raise fail(
            RuntimeError,
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, but got "
            "input of size: "
            f"{list(input.shape)}",
        )
    for other, what in zip(tensors[1:], ("weight", "bias"), strict=False):
        if other.dtype is not input.dtype:
            raise fail(
                RuntimeError,
                f"{name}: Input type ({input.dtype.name}) and {what} type ({other.dtype.name}) should "
                "be the same",
            )


def _check_channels(name: str, rank: int, tensors: tuple[Tensor, ...], groups: int) -> None:
    """For convolution: weight is [out, in / groups, *kernel]."""
    input, weight = tensors[:2]
    channels, wanted = input.shape[-rank - 1], weight.shape[1] * groups
    if channels != wanted:
        raise fail(
            RuntimeError,
            f"{name}: Given groups={groups}, weight of size {list(weight.shape)}, expected input"
            f"{list(input.shape)} to have {wanted} channels, but got {channels} channels instead",
        )
    if groups < 1 or weight.shape[0] % groups:
        raise fail(
            RuntimeError,
            f"{name}: Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but "
            f"got weight of size {list(weight.shape)} instead",
        )
    if len(tensors) == 3 and tuple(tensors[2].shape) != (weight.shape[0],):
        raise fail(
            RuntimeError,
            f"{name}: Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with "
            f"{weight.shape[0]} elements, but got bias of size {list(tensors[2].shape)} instead",
        )


def _padding(
    name: str,
    padding: str | Ints,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after each dim."""
    rank = len(kernel)
    if not isinstance(padding, str):
        low = tuple_of(padding, rank, "padding")
        if min(low) < 0:
            raise fail(RuntimeError, "negative padding is not supported")
        return low, low
    if padding == "valid":
        return (0,) * rank, (0,) * rank
    if padding != "same":
        raise fail(RuntimeError, f"Invalid padding string: {padding!r}, use 'same' or 'valid'")
    if any(s != 1 for s in stride):
        raise fail(RuntimeError, "padding='same' is not supported for strided convolutions")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple([t // 2 for t in total]), tuple([t - t // 2 for t in total])


def _check_fit(
    name: str, spatial: tuple[int, ...], reach: list[int], low: tuple[int, ...], high: tuple[int, ...]
) -> None:
    padded = [n + a + b for n, a, b in zip(spatial, low, high, strict=True)]
    if any(p < r for p, r in zip(padded, reach, strict=True)):
        sizes = " x ".join(map(str, padded)), " x ".join(map(str, reach))
        raise fail(
            RuntimeError,
            f"{name}: Calculated padded input size per channel: ({sizes[0]}). Kernel size: "
            f"({sizes[1]}). Kernel "
            "size can't be greater than actual input size",
        )


def _with_bias(y: Node, bias: Node | None) -> Node:
    if bias is None:
        return y
    return ops.add(y, spread(bias, y.shape, [i for i in range(y.type.rank) if i != 1]))


def convolution(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Cross-correlation over `rank` spatial dims; what conv1d, conv2d and conv3d are.

    RuntimeError, naming the shapes, for wrong ranks, channels, dtypes or kernel sizes.
    """
    name = f"conv{rank}d"
    tensors = (input, weight) if bias is None else (input, weight, bias)
    _check_operands(name, rank, tensors)
    _check_channels(name, rank, tensors, groups)
    steps, spread_by = tuple_of(stride, rank, "stride"), tuple_of(dilation, rank, "dilation")
    if min(steps) < 1 or min(spread_by) < 1:
        raise fail(RuntimeError, f"{name}: non-positive stride or dilation is not supported")
    kernel = tuple(weight.shape[2:])
    low, high = _padding(name, padding, kernel, steps, spread_by)
    reach = [d * (k - 1) + 1 for d, k in zip(spread_by, kernel, strict=True)]
    _check_fit(name, tuple(input.shape[-rank:]), reach, low, high)
    batched = input.ndim == rank + 2

    def build(x: Node, w: Node, b: Node | None = None) -> Node:
        x = x if batched else ops.reshape(x, (1, *x.shape))
        y = _with_bias(ops.conv(x, w, steps, low, high, spread_by, groups), b)
        return y if batched else ops.reshape(y, y.shape[1:])

    return apply("ConvolutionBackward0", build, *tensors)


@repeatable
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """input [N, C, L] or [C, L], weight [O, C/groups, K], bias [O]."""
    return convolution(1, input, weight, bias, stride, padding, dilation, groups)


@repeatable
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """input [N, C, H, W] or [C, H, W], weight [O, C/groups, KH, KW], bias [O]."""
    return convolution(2, input, weight, bias, stride, padding, dilation, groups)


@repeatable
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """input [N, C, D, H, W] or [C, D, H, W], weight [O, C/groups, KD, KH, KW], bias [O]."""
    return convolution(3, input, weight, bias, stride, padding, dilation, groups)


def transposed(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Tensor:
    """Transposed convolution, the gradient of `convolution` to its input: weight is [C, O/groups, *K]."""
    name = f"conv_transpose{rank}d"
    tensors = (input, weight) if bias is None else (input, weight, bias)
    _check_operands(name, rank, tensors)
    channels = input.shape[-rank - 1]
    if groups < 1 or channels != weight.shape[0] or channels % groups:
        raise fail(
            RuntimeError,
            f"{name}: Given transposed=1, weight of size {list(weight.shape)}, expected input"
            f"{list(input.shape)} to have {weight.shape[0]} channels, but got {channels} channels instead "
            f"(groups={groups})",
        )
    out_channels = weight.shape[1] * groups
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise fail(
            RuntimeError, f"{name}: expected bias with {out_channels} elements, got {list(bias.shape)}"
        )
    steps, spread_by = tuple_of(stride, rank, "stride"), tuple_of(dilation, rank, "dilation")
    cut, extra = tuple_of(padding, rank, "padding"), tuple_of(output_padding, rank, "output_padding")
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread_by, strict=True)):
        raise fail(
            RuntimeError,
            f"output padding must be smaller than either stride or dilation, but got output_padding {extra}, "
            f"stride {steps}, dilation {spread_by}",
        )
    kernel = tuple(weight.shape[2:])
    rows = zip(input.shape[-rank:], steps, spread_by, kernel, strict=True)
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in rows]  # all that the taps touch
    high = tuple([max(p - e, 0) for p, e in zip(cut, extra, strict=True)])  # cut off at the end
    beyond = tuple([max(e - p, 0) for p, e in zip(cut, extra, strict=True)])  # or zeros added there
    size = tuple([r - p - h for r, p, h in zip(reach, cut, high, strict=True)])
    if min(size) < 1:
        raise fail(
            RuntimeError, f"{name}: output size {list(size)} is too small (given {describe(*tensors)})"
        )
    batched = input.ndim == rank + 2

    def build(x: Node, w: Node, b: Node | None = None) -> Node:
        x = x if batched else ops.reshape(x, (1, *x.shape))
        y = ops.conv_input_grad(x, w, size, steps, cut, high, spread_by, groups)
        if any(beyond):
            y = ops.pad(y, (0,) * (rank + 2), (0, 0, *beyond))
        y = _with_bias(y, b)
        return y if batched else ops.reshape(y, y.shape[1:])

    return apply("ConvolutionBackward0", build, *tensors)


@repeatable
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """input [N, C, L] or [C, L], weight [C, O/groups, K], bias [O]."""
    return transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@repeatable
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """input [N, C, H, W] or [C, H, W], weight [C, O/groups, KH, KW], bias [O]."""
    return transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@repeatable
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """input [N, C, D, H, W] or [C, D, H, W], weight [C, O/groups, KD, KH, KW], bias [O]."""
    return transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
