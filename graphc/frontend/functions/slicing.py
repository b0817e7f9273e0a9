"""Parts of tensors, as views (split, chunk, select, unbind), and their order (flip, roll)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.shape import ravel, reshape, reshape_node, transpose
from graphc.frontend.functions.update import set_box
from graphc.frontend.nodes import normal_axis, shape_args
from graphc.frontend.tensor import Tensor, apply, apply_view, needs_grad, operand, result
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_


def box(input: Tensor, start: Shape, stop: Shape, step: Shape, label: str) -> Tensor:
    """The elements start:stop:step of each dim, as a view."""
    return apply_view(
        label,
        lambda n: ops.slice_(n, start, stop, step),
        lambda base, n: set_box(base, n, start, stop, step),
        input,
    )


def slice_axis(input: Tensor, axis: int, start: int, stop: int, label: str = "SliceBackward0") -> Tensor:
    """input[..., start:stop, ...] along one axis, as a view."""
    shape = input._cell.node.type.shape
    low, high = [0] * len(shape), list(shape)
    low[axis], high[axis] = start, stop
    return box(input, tuple(low), tuple(high), (1,) * len(shape), label)


@method("narrow", repeats=True)
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` slices from `start` (a number or a 0-d integer tensor) along `dim`, as a view."""
    if input.ndim == 0:
        raise fail(RuntimeError, "narrow() cannot be applied to a 0-dim tensor.")
    axis = normal_axis(dim, input.ndim)
    extent = input.shape[axis]
    if isinstance(start, Tensor) and (start.ndim or start.dtype.is_float or start.dtype is bool_):
        raise fail(RuntimeError, "start must be an 0-dim integral Tensor.")
    start = int(start)
    if not -extent <= start <= extent:
        raise fail(
            IndexError,
            f"start out of range (expected to be in range of [-{extent}, {extent}], but got {start})",
        )
    start = start + extent if start < 0 else start
    if not 0 <= start <= start + length <= extent:
        raise fail(RuntimeError, f"start ({start}) + length ({length}) exceeds dimension size ({extent}).")
    return slice_axis(input, axis, start, start + length)


@method()
def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of a given size (the last may be smaller) or of given sizes, as views."""
    axis = normal_axis(dim, tensor.ndim)
    extent = tensor.shape[axis]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size <= 0:
            raise fail(RuntimeError, f"split expects split_size be non-negative, but got split_size={size}")
        sizes = [min(size, extent - at) for at in range(0, extent, size)] or [0]
    else:
        sizes = list(split_size_or_sections)
        if sum(sizes) != extent:
            raise fail(
                RuntimeError,
                f"split_with_sizes expects split_sizes to sum exactly to {extent} (input tensor's size at "
                f"dimension "
                f"{dim}), but got split_sizes={sizes}",
            )
    pieces, at = [], 0
    for size in sizes:
        pieces.append(slice_axis(tensor, axis, at, at + size, "SplitBackward0"))
        at += size
    return tuple(pieces)


@method("split_with_sizes")
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of given sizes, as views."""
    return split(input, list(split_sizes), dim)


def _split_at(name: str, input: Tensor, sections: int | Sequence[int], axis: int, least: int) -> Any:
    if input.ndim < least:
        raise fail(
            RuntimeError,
            f"torch.{name} requires a tensor with at least {least} dimension{'s' * (least > 1)}, but got a "
            f"tensor with {input.ndim} dimensions!",
        )
    if isinstance(sections, int) and (sections <= 0 or input.shape[axis] % sections):
        raise fail(
            RuntimeError,
            f"torch.{name} attempted to split along dimension {axis}, but the size of the dimension "
            f"{input.shape[axis]} is not divisible by the split_size {sections}!",
        )
    return tensor_split(input, sections, axis)


@method()
def hsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces by columns (of a vector: by elements), equal or cut at given indices."""
    return _split_at("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


@method()
def vsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces by rows, equal or cut at given indices."""
    return _split_at("vsplit", input, indices_or_sections, 0, 2)


@method()
def dsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces along the third dim, equal or cut at given indices."""
    return _split_at("dsplit", input, indices_or_sections, 2, 3)


@method(function=False)
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All slices of length `size` along a dim, `step` apart: their number there, their elements last."""
    if self.ndim == 0:
        return unfold(reshape(self, (1,)), 0, size, step)[0]
    axis = normal_axis(dimension, self.ndim)
    extent = self.shape[axis]
    if not 0 <= size <= extent:
        raise fail(
            RuntimeError, f"maximum size for tensor at dimension {axis} is {extent} but size is {size}"
        )
    if step <= 0:
        raise fail(RuntimeError, f"step is {step} but must be > 0")
    rest = [d for d in range(self.ndim) if d != axis]
    count = (extent - size) // step + 1

    def build(n: Node) -> Node:
        if size == 0:
            return ops.full(
                (*[n.shape[d] if d != axis else count for d in range(n.type.rank)], 0), 0, n.dtype
            )
        wide = ops.window(ops.transpose(n, (*rest, axis)), (size,), (step,), (0,), (0,), (1,), 0)
        places = [*rest, axis]
        return ops.transpose(wide, (*[places.index(d) for d in range(n.type.rank)], n.type.rank))

    def back(base: Node, n: Node) -> Node:
        for k in range(size):
            part = reshape_node(ops.slice_axis(n, n.type.rank - 1, k, k + 1), n.shape[:-1])
            start, stop, by = [0] * self.ndim, list(base.shape), [1] * self.ndim
            start[axis], stop[axis], by[axis] = k, k + (count - 1) * step + 1, step
            base = set_box(base, part, tuple(start), tuple(stop), tuple(by))
        return base

    apart = count <= 1 or size <= step
    return apply_view("UnfoldBackward0", build, back if apart else None, self)


@method()
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller), as views."""
    if chunks <= 0:
        raise fail(RuntimeError, f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    extent = input.shape[normal_axis(dim, input.ndim)]
    return split(input, max(1, -(-extent // chunks)), dim)


@method()
def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces as equal as can be, or cut at given indices."""
    axis = normal_axis(dim, input.ndim)
    extent = input.shape[axis]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        sizes = [extent // n + (i < extent % n) for i in range(n)]
        cuts = [sum(sizes[: i + 1]) for i in range(n - 1)]
    else:
        cuts = list(indices_or_sections)
    edges = [0, *[min(max(c + extent if c < 0 else c, 0), extent) for c in cuts], extent]
    return tuple(slice_axis(input, axis, a, max(a, b)) for a, b in itertools.pairwise(edges))


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """input[..., index, ...] along one dim, as a view without it."""
    axis = normal_axis(dim, input.ndim)
    shape = input._cell.node.type.shape
    extent = shape[axis]
    if not -extent <= index < extent:
        raise fail(IndexError, f"index {index} is out of bounds for dimension {axis} with size {extent}")
    at = index % extent
    low, high = [0] * len(shape), list(shape)
    low[axis], high[axis] = at, at + 1
    start, stop, step = tuple(low), tuple(high), (1,) * len(shape)
    rest = shape[:axis] + shape[axis + 1 :]
    unit = (*shape[:axis], 1, *shape[axis + 1 :])
    return apply_view(
        "SelectBackward0",
        lambda n: ops.reshape(ops.slice_(n, start, stop, step), rest),
        lambda base, n: set_box(base, ops.reshape(n, unit), start, stop, step),
        input,
    )


method("select")(select)


@method()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`, without it."""
    axis = normal_axis(dim, input.ndim)
    return tuple(select(input, axis, i) for i in range(input.shape[axis]))


# ------------------------------------------------------------ flips and rolls


@method()
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The order of elements reversed along `dims`."""
    axes = tuple(sorted({normal_axis(d, input.ndim) for d in shape_args(args or (dims,))}))
    return apply("FlipBackward0", lambda n: ops.flip(n, axes) if axes else n, input)


@method()
def fliplr(input: Tensor) -> Tensor:
    """Columns reversed."""
    if input.ndim < 2:
        raise fail(RuntimeError, "Input must be >= 2-d.")
    return flip(input, 1)


@method()
def flipud(input: Tensor) -> Tensor:
    """Rows reversed."""
    if input.ndim < 1:
        raise fail(RuntimeError, "Input must be >= 1-d.")
    return flip(input, 0)


def roll_node(n: Node, shift: int, axis: int) -> Node:
    """Elements moved on by `shift` along `axis`, around the end."""
    extent = n.shape[axis]
    shift = shift % extent if extent else 0
    if shift == 0:
        return n
    cut = extent - shift
    return ops.concat([ops.slice_axis(n, axis, cut, extent), ops.slice_axis(n, axis, 0, cut)], axis)


@method()
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved on along `dims`, around the end (over the flat tensor by default)."""
    moves = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if not moves:
        raise fail(RuntimeError, "`shifts` required")
    if dims is None:
        return reshape(roll(ravel(input), moves[0], 0), input.shape)
    axes = tuple(normal_axis(d, input.ndim) for d in ((dims,) if isinstance(dims, int) else dims))
    if len(moves) != len(axes):
        raise fail(RuntimeError, f"shifts and dimensions must align. shifts: {len(moves)}, dims:{len(axes)}")

    def build(n: Node) -> Node:
        for shift, axis in zip(moves, axes, strict=True):
            n = roll_node(n, shift, axis)
        return n

    return apply("RollBackward0", build, input)


@method()
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by k quarter turns in the plane of two dims."""
    if len(dims) != 2:
        raise fail(RuntimeError, f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise fail(RuntimeError, f"expected total dims >= 2, but got total dims = {input.ndim}")
    if normal_axis(dims[0], input.ndim) == normal_axis(dims[1], input.ndim):
        raise fail(
            RuntimeError,
            f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}",
        )
    k %= 4
    if k == 0:
        return apply("AliasBackward0", lambda n: n, input)
    if k == 2:
        return flip(input, tuple(dims))
    turned = transpose(flip(input, dims[1]), dims[0], dims[1])
    return turned if k == 1 else flip(turned, tuple(dims))


def pad_constant(input: Tensor, low: Sequence[int], high: Sequence[int], value: float) -> Tensor:
    """Elements equal to `value` around; negative amounts cut."""
    tracked = needs_grad(input)
    n = operand(input, tracked)
    cut_low, cut_high = tuple(max(0, -a) for a in low), tuple(max(0, -a) for a in high)
    if any(cut_low) or any(cut_high):
        stop = tuple(e - h for e, h in zip(n.shape, cut_high, strict=True))
        n = ops.slice_(n, cut_low, stop, (1,) * len(stop))
    grow_low, grow_high = tuple(max(0, a) for a in low), tuple(max(0, a) for a in high)
    if any(grow_low) or any(grow_high):
        n = ops.pad(n, grow_low, grow_high, value)
    return result(n, "ConstantPadNdBackward0", (input,), tracked)
