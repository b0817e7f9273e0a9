"""Reductions other than the sum, and what is composed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from graphc.ir.node import Kind, Node, make
from graphc.ir.types import DType, TensorType, bool_, int32, int64
from graphc.ops.arithmetic import div, mul
from graphc.ops.compare import bit_or, cast, eq, isnan, select
from graphc.ops.constant import wrong
from graphc.ops.elementwise import INF, NAN, NUMBERS, Vjp
from graphc.ops.generate import iota
from graphc.ops.op import fail, register
from graphc.ops.running import cumprod, shifted
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample, Typed
from graphc.ops.spread import (
    ReduceAttrs,
    full,
    infer_reduce,
    kept_axes,
    like,
    lower_reduce,
    reduce_sum,
    spread_back,
)
from graphc.ops.view import inverse, reshape, transpose

Reducer = Callable[[Node, Iterable[int]], Node]


def _reduction(
    name: str,
    doc: str,
    *,
    combine: str,
    evaluate: Callable[..., Any],
    vjp: Vjp | None,
    dtypes: frozenset[DType],
    needs_elements: bool = False,
    specials: Sequence[float] = (),
) -> Reducer:
    """Register a reduction and return its builder."""

    def infer(types: Sequence[TensorType], attrs: ReduceAttrs) -> TensorType:
        x = types[0]
        if x.dtype not in dtypes:
            wanted = ", ".join(sorted(t.name for t in dtypes))
            raise fail(name, f"needs one of {wanted}; cast first", types, TypeError)
        result = infer_reduce(name, types, attrs)
        if needs_elements and result.size and not x.size:
            raise fail(name, f"no elements along axes {attrs.axes}, and there is no neutral value", types)
        return result

    def samples() -> Iterable[Sample | ErrorSample]:
        kinds = tuple(sorted(dtypes, key=lambda t: t.name))
        yield Sample(lambda x: build(x, (1,)), [Arg((3, 4), distinct=True)], kinds)
        yield Sample(lambda x: build(x, (0, 2)), [Arg((3, 4, 5), low=-1.5, high=1.5, distinct=True)], kinds)
        yield Sample(lambda x: build(x, (0,)), [Arg((35, 3), low=0.7, high=1.4, distinct=True)], kinds)
        if specials:
            yield Sample(lambda x: build(x, (1,)), [Arg((3, 6), specials=tuple(specials))], FLOATS, False)
        yield wrong(
            lambda x: build(x, (2,)), Typed((2, 3), kinds[0]), says=f"{name}: axes (2,) must be distinct dims"
        )
        if needs_elements:
            yield wrong(lambda x: build(x, (1,)), (3, 0), says=f"{name}: no elements along axes (1,)")
        bad = next(t for t in (bool_, int64) if t not in dtypes)
        yield wrong(lambda x: build(x, (0,)), Typed((2,), bad), says=f"{name}: needs one of", error=TypeError)

    op = register(
        name,
        Kind.REDUCE,
        infer=infer,
        evaluate=lambda arrays, attrs: evaluate(arrays[0], attrs.axes),
        vjp=vjp,
        lower=lambda node: lower_reduce(node, combine),
        attrs=ReduceAttrs,
        samples=samples,
    )

    def build(x: Node, axes: Iterable[int]) -> Node:
        axes = tuple(sorted(axes))
        return make(op, (x,), ReduceAttrs(axes)) if axes else x

    build.__name__, build.__doc__ = name, doc
    return build


# ---------------------------------------------------------------------- product


def _vjp_prod(ct: Node, node: Node) -> Sequence[Node | None]:
    """Each element's cotangent is the product of all the others: those before times those after."""
    if not node.type.dtype.is_float:
        return (None,)
    x, axes = node.inputs[0], node.attrs.axes
    if len(axes) == 1:
        line, axis = x, axes[0]
    else:
        perm = (*kept_axes(node), *axes)
        line = transpose(x, perm)
        axis = len(perm) - len(axes)
        line = reshape(line, (*line.type.shape[:axis], prod(line.type.shape[axis:])))
    if not line.type.shape[axis]:
        return (like(x, 0),)
    before = cumprod(shifted(line, axis, fill=1), axis)
    after = cumprod(shifted(line, axis, True, 1), axis, reverse=True)
    others = mul(before, after)
    if len(axes) > 1:
        others = transpose(reshape(others, tuple([x.type.shape[p] for p in perm])), inverse(perm))
    return (mul(spread_back(ct, node), others),)


reduce_prod = _reduction(
    "reduce_prod",
    "The product along `axes`, which are dropped. Its gradient is exact at zeros.",
    combine="mul",
    evaluate=lambda x, axes: np.prod(x, axes, dtype=x.dtype),
    vjp=_vjp_prod,
    dtypes=NUMBERS,
)

# ------------------------------------------------------------------ max and min


def _vjp_extremum(ct: Node, node: Node) -> Sequence[Node | None]:
    """Equal shares to all elements that are the maximum (PyTorch's amax)."""
    if not node.type.dtype.is_float:
        return (None,)
    x = node.inputs[0]
    hit = eq(x, spread_back(node, node))
    share = div(ct, reduce_sum(cast(hit, node.type.dtype), node.attrs.axes))
    return (select(hit, spread_back(share, node), like(x, 0)),)


_TIES = (1.0, 3.0, 3.0, -INF, 2.0, -3.0, NAN, 5.0, INF, -INF, -INF, 0.0, -0.0, 0.0)
reduce_max = _reduction(
    "reduce_max",
    "The largest along `axes`, which are dropped; NaN if any is NaN. Ties share the gradient.",
    combine="max",
    evaluate=lambda x, axes: np.max(x, axes),
    vjp=_vjp_extremum,
    dtypes=NUMBERS,
    needs_elements=True,
    specials=_TIES,
)
reduce_min = _reduction(
    "reduce_min",
    "The smallest along `axes`, which are dropped; NaN if any is NaN. Ties share the gradient.",
    combine="min",
    evaluate=lambda x, axes: np.min(x, axes),
    vjp=_vjp_extremum,
    dtypes=NUMBERS,
    needs_elements=True,
    specials=_TIES,
)
reduce_and = _reduction(
    "reduce_and",
    "Whether all are true along `axes`, which are dropped.",
    combine="and",
    evaluate=lambda x, axes: np.all(x, axes),
    vjp=None,
    dtypes=frozenset({bool_}),
)
reduce_or = _reduction(
    "reduce_or",
    "Whether any is true along `axes`, which are dropped.",
    combine="or",
    evaluate=lambda x, axes: np.any(x, axes),
    vjp=None,
    dtypes=frozenset({bool_}),
)


def _arg_extremum(x: Node, axis: int, extremum: Reducer) -> Node:
    best = extremum(x, (axis,))
    hit = eq(x, spread_back(best, best))
    if x.type.dtype.is_float:
        hit = bit_or(hit, isnan(x))
    extent = x.type.shape[axis]
    place = int32 if extent < 2**31 else int64
    # There is a hit; what is not one stands behind all, and in range, as `ops.ranges` can see.
    position = select(hit, iota(x.type.shape, axis, place), full(x.type.shape, extent - 1, place))
    return cast(reduce_min(position, (axis,)), int64)


def argmax(x: Node, axis: int) -> Node:
    """The first position (int64) of the largest along `axis`, which is dropped; NaN counts as largest."""
    return _arg_extremum(x, axis, reduce_max)


def argmin(x: Node, axis: int) -> Node:
    """The first position (int64) of the smallest along `axis`, which is dropped; NaN counts as smallest."""
    return _arg_extremum(x, axis, reduce_min)
