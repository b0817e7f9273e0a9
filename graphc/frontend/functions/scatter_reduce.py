"""Scattering with a reduction: sums, products, means and extrema of all that is written to a place."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.gather import fits_along, need_index, same_dtype
from graphc.frontend.functions.indexing import checked
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.shape import reshape
from graphc.frontend.nodes import cast, normal_axis, number
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_, int64

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _identity(reduce: str, dtype: DType) -> float:
    if reduce in ("sum", "mean", "prod"):
        return float(reduce == "prod")
    if dtype.is_float:
        return -np.inf if reduce == "amax" else np.inf
    limits = np.iinfo(np.uint8 if dtype is bool_ else dtype.numpy)
    return int(limits.min if reduce == "amax" else limits.max)


def _over(reduce: str, n: Node, axis: int) -> Node:
    build = {"prod": ops.reduce_prod, "amax": ops.reduce_max, "amin": ops.reduce_min}
    return build.get(reduce, ops.reduce_sum)(n, (axis,))


def reduced(base: Node, i: Node, v: Node, axis: int, reduce: str, include_self: bool) -> Node:
    """`base` with `v` written at `i` along `axis` (all of one rank, `i` no larger elsewhere), reduced.

    Every place is compared with every index, so a reduction with its gradient (shared evenly among equal
    extrema) does it all.
    """
    kind = base.dtype
    if kind is bool_:
        base, v = cast(base, int64), cast(v, int64)
    stop = tuple(e if d == axis else s for d, (e, s) in enumerate(zip(base.shape, i.shape, strict=True)))
    zeros, ones = (0,) * len(stop), (1,) * len(stop)
    part = base if stop == base.shape else ops.slice_(base, zeros, stop, ones)
    v = v if v.shape == i.shape else ops.slice_(v, zeros, i.shape, ones)
    extent = base.shape[axis]
    shape = (*i.shape[: axis + 1], extent, *i.shape[axis + 1 :])
    dims = tuple(d + (d > axis) for d in range(i.type.rank))
    named = ops.eq(ops.broadcast(i, shape, dims), ops.iota(shape, axis + 1))
    terms = ops.select(
        named, ops.broadcast(v, shape, dims), number(_identity(reduce, v.dtype), v.dtype, shape)
    )
    if include_self:
        own = ops.reshape(part, (*part.shape[:axis], 1, *part.shape[axis:]))
        terms = ops.concat([own, terms], axis)
    found = _over(reduce, terms, axis)
    counts = ops.reduce_sum(cast(named, int64), (axis,))
    if reduce == "mean":
        divisor = ops.add(counts, ops.full(counts.shape, int(include_self), int64))
        found = ops.div(found, cast(ops.maximum(divisor, ops.full(counts.shape, 1, int64)), found.dtype))
    written = ops.gt(counts, ops.full(counts.shape, 0, int64))
    found = ops.select(written, found, part)
    if part is not base:
        high = tuple(e - p for e, p in zip(base.shape, part.shape, strict=True))
        inside = ops.pad(ops.full(part.shape, True, bool_), zeros, high, False)
        found = ops.select(inside, ops.pad(found, zeros, high, 0), base)
    return cast(found, kind)


def _check(name: str, reduce: str) -> None:
    if reduce not in REDUCTIONS:
        raise fail(
            RuntimeError, f"{name}(): reduce argument must be one of {', '.join(REDUCTIONS)}, got {reduce}."
        )


@method(inplace=True)
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`input` with the elements of `src` reduced into their places along `dim`.

    reduce        "sum", "prod", "mean", "amax" or "amin"
    include_self  whether the old element takes part
    """
    need_index("scatter_reduce", index)
    same_dtype("scatter", input, src)
    _check("scatter_reduce", reduce)
    if input.ndim == 0:
        normal_axis(dim, 0)
        lifted = [reshape(t, (1,)) if t.ndim == 0 else t for t in (input, index, src)]
        return scatter_reduce(lifted[0], 0, lifted[1], lifted[2], reduce, include_self=include_self)[0]
    axis = normal_axis(dim, input.ndim)
    fits_along("scatter_reduce", index, input, axis)
    index = checked(index, input.shape[axis], axis, wrap=False)
    return apply(
        "ScatterReduceBackward0",
        lambda n, i, v: reduced(n, i, v, axis, reduce, include_self),
        input,
        index,
        src,
    )


@method(inplace=True)
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`input` with slices of `source` reduced into the places `index` [n] along `dim`."""
    need_index("index_reduce", index)
    same_dtype("index_reduce", input, source)
    if reduce == "sum":
        raise fail(
            RuntimeError, "index_reduce(): reduce argument must be prod, mean, amax or amin; see index_add"
        )
    _check("index_reduce", reduce)
    if input.ndim == 0:
        lifted = [reshape(t, (1,)) for t in (input, index, source)]
        return index_reduce(lifted[0], 0, lifted[1], lifted[2], reduce, include_self=include_self)[0]
    axis = normal_axis(dim, input.ndim)
    if index.ndim > 1 or source.ndim != input.ndim or source.shape[axis] != index.numel():
        raise fail(
            IndexError,
            f"index_reduce(): Number of indices ({index.numel()}) should be equal to source.size(dim): "
            f"{describe(input, index, source)}",
        )
    index = checked(reshape(index, (-1,)), input.shape[axis], axis, wrap=False)

    def build(n: Node, i: Node, v: Node) -> Node:
        return reduced(n, ops.broadcast(i, v.shape, (axis,)), v, axis, reduce, include_self)

    return apply("IndexReduceBackward0", build, input, index, source)
