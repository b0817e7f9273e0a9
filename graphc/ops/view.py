"""Views: out[i] is in[map(i)], or a fill value. Nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import Shape, TensorType, bool_, int32, int64
from graphc.loop import index as ix
from graphc.loop.ir import Const, Expr, index_const, select
from graphc.ops.constant import Scalar, wrong
from graphc.ops.op import Read, fail, register
from graphc.ops.sample import FLOATS, ErrorSample, Sample, Typed
from graphc.ops.spread import Axes

ANY = (*FLOATS, int64, int32, bool_)


# --------------------------------------------------------------------- reshape


@dataclass(frozen=True, eq=False)
class ReshapeAttrs(Attrs):
    shape: Shape


def reshape_groups(source: Shape, target: Shape) -> list[tuple[range, range]]:
    """The finest split of both shapes into runs of dims of equal size, in order.

    (2, 3, 4) -> (6, 2, 2) is [(0..2, 0..1), (2..3, 1..3)]. Shapes must have equal, non-zero size.
    """
    groups = []
    i = j = 0
    while i < len(source) or j < len(target):
        first, left, right = (i, j), 1, 1
        if i < len(source):
            left, i = source[i], i + 1
        if j < len(target):
            right, j = target[j], j + 1
        while left != right:
            if left < right:
                left, i = left * source[i], i + 1
            else:
                right, j = right * target[j], j + 1
        groups.append((range(first[0], i), range(first[1], j)))
    return groups


def _infer_reshape(types: Sequence[TensorType], attrs: ReshapeAttrs) -> TensorType:
    if prod(attrs.shape) != types[0].size or any(n < 0 for n in attrs.shape):
        raise fail("reshape", f"{types[0].size} elements do not fit shape {attrs.shape}", types)
    return TensorType(attrs.shape, types[0].dtype)


def _lower_reshape(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    source, target = node.inputs[0].type.shape, node.type.shape
    if not prod(target):
        return reads[0](tuple([index_const(0) for _ in source]))
    place: list[Expr] = []
    for ins, outs in reshape_groups(source, target):
        position = ix.flatten([index[d] for d in outs], [target[d] for d in outs])
        place.extend(ix.unflatten(position, [source[d] for d in ins]))
    return reads[0](tuple(place))


def _reshape_samples() -> Iterable[Sample | ErrorSample]:
    for old, new in [
        ((2, 6), (3, 4)),
        ((2, 3, 4), (6, 2, 2)),
        ((4, 1, 3), (1, 4, 3, 1)),
        ((1, 1), ()),
        ((), (1,)),
        ((6,), (2, 3)),
    ]:
        yield Sample(lambda x, new=new: reshape(x, new), [old], ANY, expect=lambda x, new=new: x.reshape(new))
    yield Sample(lambda x: reshape(x, (0, 5)), [(2, 0)], gradient=False)
    yield wrong(
        lambda x: reshape(x, (4, 2)),
        (2, 3),
        says="reshape: 6 elements do not fit shape (4, 2) (given f32[2, 3])",
    )
    yield wrong(lambda x: reshape(x, (-1, -6)), (2, 3), says="do not fit shape (-1, -6)")


RESHAPE = register(
    "reshape",
    Kind.VIEW,
    infer=_infer_reshape,
    evaluate=lambda arrays, attrs: arrays[0].reshape(attrs.shape),
    vjp=lambda ct, node: (reshape(ct, node.inputs[0].type.shape),),
    lower=_lower_reshape,
    attrs=ReshapeAttrs,
    cost=0.0,
    samples=_reshape_samples,
)


def reshape(x: Node, shape: Shape) -> Node:
    """The same elements in row-major order. `shape` is complete: no -1."""
    return x if shape == x.type.shape else make(RESHAPE, (x,), ReshapeAttrs(shape))


# ------------------------------------------------------------------- transpose


@dataclass(frozen=True, eq=False)
class TransposeAttrs(Attrs):
    """Output dim i is input dim perm[i]."""

    perm: Axes


def _infer_transpose(types: Sequence[TensorType], attrs: TransposeAttrs) -> TensorType:
    shape, perm = types[0].shape, attrs.perm
    if sorted(perm) != list(range(len(shape))):
        raise fail("transpose", f"{perm} is not a permutation of the {len(shape)} dims", types)
    return TensorType(tuple([shape[p] for p in perm]), types[0].dtype)


def inverse(perm: Axes) -> Axes:
    """The permutation that undoes `perm`."""
    back = [0] * len(perm)
    for i, p in enumerate(perm):
        back[p] = i
    return tuple(back)


def _transpose_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: transpose(x, (1, 0)), [(2, 3)], ANY, expect=lambda x: x.T)
    yield Sample(lambda x: transpose(x, (2, 0, 1)), [(2, 3, 4)])
    yield Sample(lambda x: transpose(x, (0, 3, 1, 2)), [(2, 3, 4, 5)])
    yield wrong(lambda x: transpose(x, (0, 0)), (2, 3), says="(0, 0) is not a permutation of the 2 dims")


TRANSPOSE = register(
    "transpose",
    Kind.VIEW,
    infer=_infer_transpose,
    evaluate=lambda arrays, attrs: arrays[0].transpose(attrs.perm),
    vjp=lambda ct, node: (transpose(ct, inverse(node.attrs.perm)),),
    lower=lambda node, index, reads: reads[0](tuple([index[i] for i in inverse(node.attrs.perm)])),
    attrs=TransposeAttrs,
    cost=0.0,
    samples=_transpose_samples,
)


def transpose(x: Node, perm: Axes) -> Node:
    """Permute dims: output dim i is input dim perm[i]."""
    return (
        x
        if perm == tuple(range(len(perm))) == tuple(range(x.type.rank))
        else make(TRANSPOSE, (x,), TransposeAttrs(perm))
    )


# ----------------------------------------------------------------------- slice


@dataclass(frozen=True, eq=False)
class SliceAttrs(Attrs):
    start: Axes
    stop: Axes
    step: Axes


def _infer_slice(types: Sequence[TensorType], attrs: SliceAttrs) -> TensorType:
    shape = types[0].shape
    if not len(shape) == len(attrs.start) == len(attrs.stop) == len(attrs.step):
        raise fail("slice", f"start, stop and step need one entry for each of {len(shape)} dims", types)
    out = []
    for n, start, stop, step in zip(shape, attrs.start, attrs.stop, attrs.step, strict=True):
        if not 0 <= start <= stop <= n or step < 1:
            raise fail("slice", f"{start}:{stop}:{step} is not within 0:{n} with a positive step", types)
        out.append((stop - start + step - 1) // step)
    return TensorType(tuple(out), types[0].dtype)


def _evaluate_slice(arrays: Sequence[np.ndarray], attrs: SliceAttrs) -> np.ndarray:
    return arrays[0][tuple(map(slice, attrs.start, attrs.stop, attrs.step))]


def _vjp_slice(ct: Node, node: Node) -> tuple[Node]:
    """Put the cotangent back between zeros: interleaved ones for steps, then padding."""
    attrs, shape = node.attrs, node.inputs[0].type.shape
    for axis, step in enumerate(attrs.step):
        if step > 1:
            ct = _interleave(ct, axis, step)
    high = []
    for axis, n in enumerate(shape):
        spare = n - attrs.start[axis] - ct.type.shape[axis]
        high.append(max(spare, 0))
        if spare < 0:  # the zeros after the last element went past the end
            ct = slice_axis(ct, axis, 0, n - attrs.start[axis])
    return (pad(ct, attrs.start, tuple(high), 0),)


def _interleave(x: Node, axis: int, step: int) -> Node:
    """Put step - 1 zeros after each element of an axis."""
    shape = x.type.shape
    apart = reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    high = tuple([step - 1 if i == axis + 1 else 0 for i in range(len(shape) + 1)])
    padded = pad(apart, (0,) * len(high), high, 0)
    return reshape(padded, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))


def _lower_slice(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    a = node.attrs
    return reads[0](tuple([ix.add(ix.mul(i, k), s) for i, s, k in zip(index, a.start, a.step, strict=True)]))


def _slice_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: slice_(x, (1, 0), (3, 2), (1, 1)), [(4, 3)], ANY, expect=lambda x: x[1:3, :2])
    yield Sample(lambda x: slice_(x, (1, 0), (8, 5), (3, 2)), [(8, 5)], expect=lambda x: x[1:8:3, ::2])
    yield Sample(lambda x: slice_(x, (6,), (7,), (4,)), [(7,)], expect=lambda x: x[6:7:4])
    yield Sample(lambda x: slice_(x, (1, 1), (1, 3), (1, 1)), [(4, 3)], gradient=False)
    yield wrong(lambda x: slice_(x, (1,), (5,), (1,)), (4,), says="slice: 1:5:1 is not within 0:4")
    yield wrong(lambda x: slice_(x, (1,), (2,), (0,)), (4,), says="with a positive step")
    yield wrong(lambda x: slice_(x, (1,), (2,), (1,)), (4, 4), says="one entry for each of 2 dims")


SLICE = register(
    "slice",
    Kind.VIEW,
    infer=_infer_slice,
    evaluate=_evaluate_slice,
    vjp=_vjp_slice,
    lower=_lower_slice,
    attrs=SliceAttrs,
    cost=0.0,
    samples=_slice_samples,
)


def slice_(x: Node, start: Axes, stop: Axes, step: Axes) -> Node:
    """x[start:stop:step] in every dim; 0 <= start <= stop <= size, step >= 1."""
    if stop == x.type.shape and not any(start) and step == (1,) * len(step):
        return x
    return make(SLICE, (x,), SliceAttrs(start, stop, step))


def slice_axis(x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """x[..., start:stop:step, ...] in one dim, the others whole."""
    shape = x.type.shape
    first, last, by = [0] * len(shape), list(shape), [1] * len(shape)
    first[axis], last[axis], by[axis] = start, stop, step
    return slice_(x, tuple(first), tuple(last), tuple(by))


# ------------------------------------------------------------------------ flip


@dataclass(frozen=True, eq=False)
class FlipAttrs(Attrs):
    axes: Axes


def _infer_flip(types: Sequence[TensorType], attrs: FlipAttrs) -> TensorType:
    axes, rank = attrs.axes, types[0].rank
    if len(set(axes)) != len(axes) or any(not 0 <= a < rank for a in axes):
        raise fail("flip", f"axes {axes} must be distinct dims within rank {rank}", types)
    return types[0]


def _lower_flip(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    place = list(index)
    for a in node.attrs.axes:
        place[a] = ix.sub(node.type.shape[a] - 1, index[a])
    return reads[0](tuple(place))


def _flip_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: flip(x, (1,)), [(2, 3)], ANY, expect=lambda x: x[:, ::-1])
    yield Sample(lambda x: flip(x, (0, 2)), [(2, 3, 4)])
    yield wrong(lambda x: flip(x, (2,)), (2, 3), says="flip: axes (2,) must be distinct dims within rank 2")


FLIP = register(
    "flip",
    Kind.VIEW,
    infer=_infer_flip,
    evaluate=lambda arrays, attrs: np.flip(arrays[0], attrs.axes),
    vjp=lambda ct, node: (flip(ct, node.attrs.axes),),
    lower=_lower_flip,
    attrs=FlipAttrs,
    cost=0.0,
    samples=_flip_samples,
)


def flip(x: Node, axes: Iterable[int]) -> Node:
    """Reverse the order of elements along `axes`."""
    axes = tuple(sorted(axes))
    return make(FLIP, (x,), FlipAttrs(axes)) if axes else x


# ------------------------------------------------------------------------- pad


@dataclass(frozen=True, eq=False)
class PadAttrs(Attrs):
    low: Axes
    high: Axes
    value: Scalar


def _infer_pad(types: Sequence[TensorType], attrs: PadAttrs) -> TensorType:
    shape = types[0].shape
    if not len(shape) == len(attrs.low) == len(attrs.high):
        raise fail("pad", f"low and high need one entry for each of {len(shape)} dims", types)
    if min((*attrs.low, *attrs.high), default=0) < 0:
        raise fail("pad", f"low {attrs.low} and high {attrs.high} must not be negative; slice instead", types)
    return TensorType(tuple(map(sum, zip(shape, attrs.low, attrs.high, strict=True))), types[0].dtype)


def _evaluate_pad(arrays: Sequence[np.ndarray], attrs: PadAttrs) -> np.ndarray:
    widths = list(zip(attrs.low, attrs.high, strict=True))
    return np.pad(arrays[0], widths, constant_values=np.array(attrs.value).astype(arrays[0].dtype))


def _vjp_pad(ct: Node, node: Node) -> tuple[Node]:
    low, shape = node.attrs.low, node.inputs[0].type.shape
    stop = tuple([a + n for a, n in zip(low, shape, strict=True)])
    return (slice_(ct, low, stop, (1,) * len(low)),)


def fill_constant(node: Node, value: Scalar) -> Const:
    """`value` as a constant of the node's dtype."""
    return Const(node.type.dtype, np.asarray(value).astype(node.type.dtype.numpy).item())


def _lower_pad(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    a, shape = node.attrs, node.inputs[0].type.shape
    place = tuple([ix.sub(i, low) for i, low in zip(index, a.low, strict=True)])
    mask = ix.all_of([ix.inside(i, n) for i, n in zip(place, shape, strict=True)])
    if ix.is_true(mask):
        return reads[0](place)
    return reads[0](place, mask=mask, other=fill_constant(node, a.value))


def _pad_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: pad(x, (1, 0), (2, 1), 0), [(2, 3)], ANY)
    yield Sample(lambda x: pad(x, (0, 2), (0, 0), float("-inf")), [(2, 3)], gradient=False)
    yield Sample(lambda x: pad(x, (3,), (1,), 1.5), [(0,)], gradient=False)
    yield wrong(lambda x: pad(x, (-1,), (0,), 0), (3,), says="must not be negative; slice instead")
    yield wrong(lambda x: pad(x, (1,), (0,), 0), (3, 3), says="one entry for each of 2 dims")


PAD = register(
    "pad",
    Kind.VIEW,
    infer=_infer_pad,
    evaluate=_evaluate_pad,
    vjp=_vjp_pad,
    lower=_lower_pad,
    attrs=PadAttrs,
    cost=0.0,
    samples=_pad_samples,
)


def pad(x: Node, low: Axes, high: Axes, value: Scalar = 0) -> Node:
    """Put `value` low[i] times before and high[i] times after dim i."""
    if not any(low) and not any(high) and len(low) == len(high) == x.type.rank:
        return x
    return make(PAD, (x,), PadAttrs(low, high, value))


# ---------------------------------------------------------------------- concat


@dataclass(frozen=True, eq=False)
class ConcatAttrs(Attrs):
    axis: int


def _infer_concat(types: Sequence[TensorType], attrs: ConcatAttrs) -> TensorType:
    axis = attrs.axis
    if not types:
        raise fail("concat", "needs at least one tensor")
    first = types[0]
    if not 0 <= axis < first.rank:
        raise fail("concat", f"axis {axis} is not a dim within rank {first.rank}", types)
    rest = first.shape[:axis], first.shape[axis + 1 :], first.dtype
    if any((t.shape[:axis], t.shape[axis + 1 :], t.dtype) != rest for t in types):
        raise fail("concat", f"shapes must be equal except in dim {axis}, and dtypes equal", types)
    total = sum(t.shape[axis] for t in types)
    return TensorType((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _vjp_concat(ct: Node, node: Node) -> list[Node]:
    axis, start, parts = node.attrs.axis, 0, []
    for x in node.inputs:
        size = x.type.shape[axis]
        parts.append(slice_axis(ct, axis, start, start + size))
        start += size
    return parts


def _lower_concat(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    """Nested selects, each side reading memory only where it is chosen."""
    axis, zero = node.attrs.axis, fill_constant(node, 0)
    parts: list[tuple[Expr, Expr]] = []  # whether the index is before the part's end; the part's value
    start = 0
    for x, read in zip(node.inputs, reads, strict=True):
        extent = x.type.shape[axis]
        if extent:
            i = ix.sub(index[axis], start)
            place = (*index[:axis], i, *index[axis + 1 :])
            start += extent
            mask = ix.inside(i, extent)
            value = read(place) if ix.is_true(mask) else read(place, mask=mask, other=zero)
            parts.append((ix.compare("lt", index[axis], start), value))
    chosen = parts.pop()[1] if parts else zero
    for before_end, value in reversed(parts):
        chosen = select(before_end, value, chosen)
    return chosen


def _concat_samples() -> Iterable[Sample | ErrorSample]:
    both = lambda *xs: concat(xs, 1)  # noqa: E731
    yield Sample(both, [(2, 3), (2, 1)], ANY, expect=lambda a, b: np.concatenate([a, b], 1))
    yield Sample(both, [(2, 3), (2, 0), (2, 4)], gradient=False)
    yield Sample(lambda *xs: concat(xs, 0), [(2, 3), (1, 3), (3, 3)])
    yield wrong(both, (2, 3), (3, 3), says="concat: shapes must be equal except in dim 1")
    yield wrong(both, (2, 3), Typed((2, 3), int64), says="dtypes equal (given f32[2, 3], i64[2, 3])")
    yield wrong(both, (2,), (2,), says="axis 1 is not a dim within rank 1")


CONCAT = register(
    "concat",
    Kind.VIEW,
    infer=_infer_concat,
    evaluate=lambda arrays, attrs: np.concatenate(arrays, attrs.axis),
    vjp=_vjp_concat,
    lower=_lower_concat,
    attrs=ConcatAttrs,
    cost=0.0,
    samples=_concat_samples,
)


def concat(xs: Sequence[Node], axis: int) -> Node:
    """Join tensors along an existing axis."""
    return xs[0] if len(xs) == 1 else make(CONCAT, xs, ConcatAttrs(axis))
