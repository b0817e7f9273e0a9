"""Losses with margins, and the distances they use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.convert import convert
from graphc.frontend.functions.elementwise import add, mul
from graphc.frontend.functions.elementwise import sub as subtract
from graphc.frontend.functions.shape import ravel, reshape
from graphc.frontend.nodes import cast, normal_axis, spread
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.nn.arith import Num, ne, select
from graphc.nn.functional.common import (
    as_floats,
    check_reduction,
    legacy_reduction,
    need_float,
    need_numbers,
    need_tensors,
    reduced,
    together,
)
from graphc.nn.functional.linear import check_labels
from graphc.nn.functional.loss import pointwise_loss


def _positive(x: Num) -> Num:
    return select(x <= 0, 0, x)


@repeatable
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("hinge_embedding_loss", input)

    def formula(x: Num, t: Num) -> Num:
        far = select(ne(t, 1), _positive(margin - x), x * 0)
        return far + select(ne(t, -1), x, x * 0)

    return pointwise_loss("MeanBackward0", formula, reduction, input, target)


@repeatable
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target * input)), without overflow."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("soft_margin_loss", input)

    def formula(x: Num, t: Num) -> Num:
        z = t * x
        return (-z.map(ops.abs)).map(ops.exp).map(ops.log1p) + select(z > 0, 0, -z)

    return pointwise_loss("SoftMarginLossBackward0", formula, reduction, input, target)


@repeatable
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target * (input1 - input2) + margin)."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_numbers("margin_ranking_loss", input1, input2)
    if not input1.dtype.is_float and not input2.dtype.is_float:  # integers are multiplied as such
        gap = mul(subtract(0, target), subtract(input1, input2))
        return pointwise_loss("MeanBackward0", lambda x: _positive(x), reduction, add(gap, float(margin)))

    def formula(a: Num, b: Num, t: Num) -> Num:
        return _positive(-t * (a - b) + margin)

    return pointwise_loss("MeanBackward0", formula, reduction, input1, input2, target)


@repeatable
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes (the last dim) of binary cross entropies of logits."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("multilabel_soft_margin_loss", input)
    tensors = (input, target) if weight is None else (input, target, weight)

    def build(*nodes: Node) -> Node:
        x, t, *w = [Num(n) for n in together(*nodes)]
        log_yes = select(x > 0, 0, x) - (-x.map(ops.abs)).map(ops.exp).map(ops.log1p)
        loss = (1 - t) * x - log_yes
        loss = loss * w[0] if w else loss
        total = ops.reduce_sum(loss.node, (loss.node.type.rank - 1,))
        return reduced(ops.mul(total, ops.like(total, 1.0 / loss.node.shape[-1])), reduction)

    return apply("MeanBackward0", build, *tensors)


@repeatable
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over other classes of max(0, margin - x[label] + x[class]) ** p, of [N, C] or [C]."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("multi_margin_loss", input)
    check_reduction(reduction)
    if input.ndim == 0:
        input = reshape(input, (1,))
    if p not in (1, 2):
        raise fail(ValueError, "only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise fail(ValueError, "weight must be one-dimensional")
    if target.dtype is not int64 or tuple(target.shape) not in (tuple(input.shape[:-1]), (1,)):
        raise fail(RuntimeError, f"inconsistent target size: {describe(input, target)}")
    classes = input.shape[-1]

    def build(n: Node, labels: Node, w: Node | None = None) -> Node:
        axis = n.type.rank - 1
        labels = check_labels("multi_margin_loss", ops.reshape(labels, n.shape[:-1]), classes, "Target")
        own = ops.eq(spread(labels, n.shape, axis), ops.iota(n.shape, axis, int64))
        zero = ops.zeros(n.type)
        score = spread(ops.reduce_sum(ops.select(own, n, zero), (axis,)), n.shape, axis)
        gap = _positive(margin - Num(score) + Num(n))
        gap = gap * gap if p == 2 else gap
        if w is not None:
            factor = ops.take(cast(w, n.dtype), labels, 0)
            gap = gap * Num(spread(factor, n.shape, axis))
        total = ops.reduce_sum(ops.select(own, zero, gap.node), (axis,))
        return reduced(ops.mul(total, ops.like(total, 1.0 / classes)), reduction)

    tensors = (input, target) if weight is None else (input, target, weight.detach())
    return apply("MultiMarginLossBackward0", build, *tensors)


@repeatable
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Hinges between every true class (those before the first -1 of a row) and every other, over classes."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("multilabel_margin_loss", input)
    check_reduction(reduction)
    if input.ndim == 0:
        loss = multilabel_margin_loss(ravel(input), ravel(target), reduction=reduction)
        return reshape(loss, ())
    if tuple(target.shape) != tuple(input.shape) or target.dtype is not int64 or input.ndim not in (1, 2):
        raise fail(RuntimeError, f"inconsistent target size: {describe(input, target)}")
    classes = input.shape[-1]

    def build(n: Node, labels: Node) -> Node:
        rows = n.type.size // classes
        x, t = ops.reshape(n, (rows, classes)), ops.reshape(labels, (rows, classes))
        ended = ops.cumsum(cast(ops.lt(t, ops.like(t, 0)), int64), 1)
        counted = ops.eq(ended, ops.like(ended, 0))
        place = check_labels(
            "multilabel_margin_loss", ops.select(counted, t, ops.like(t, 0)), classes, "Target"
        )
        cube = (rows, classes, classes)  # sample, position in the target row, class
        same = ops.eq(ops.broadcast(place, cube, (0, 1)), ops.iota(cube, 2, int64))
        same = ops.bit_and(same, ops.broadcast(counted, cube, (0, 1)))
        is_target = ops.broadcast(ops.reduce_or(same, (1,)), cube, (0, 2))
        wide = ops.broadcast(x, cube, (0, 2))
        zero = ops.zeros(wide.type)
        score = ops.broadcast(ops.reduce_sum(ops.select(same, wide, zero), (2,)), cube, (0, 1))
        gap = _positive(1 - Num(score) + Num(wide)).node
        used = ops.bit_and(ops.broadcast(counted, cube, (0, 1)), ops.logical_not(is_target))
        total = ops.reduce_sum(ops.select(used, gap, zero), (1, 2))
        loss = ops.reshape(ops.mul(total, ops.like(total, 1.0 / classes)), n.shape[:-1])
        return reduced(loss, reduction)

    return apply("MultilabelMarginLossBackward0", build, input, target)


# ------------------------------------------------------------------- distances


def _total(n: Node, axis: int, keepdim: bool) -> Node:
    total = ops.reduce_sum(n, (axis,))
    return ops.reshape(total, (*n.shape[:axis], 1, *n.shape[axis + 1 :])) if keepdim else total


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`."""
    need_float("cosine_similarity", x1, x2)
    if x1.ndim == x2.ndim == 0:
        normal_axis(dim, 0)
        return reshape(cosine_similarity(ravel(x1), ravel(x2), 0, eps), ())

    def build(a: Node, b: Node) -> Node:
        a, b = together(a, b)
        axis = normal_axis(dim, a.type.rank)
        return ops.reduce_sum(ops.mul(_unit(a, axis, eps), _unit(b, axis, eps)), (axis,))

    return apply("SumBackward1", build, x1, x2)


def _unit(n: Node, axis: int, eps: float) -> Node:
    square = Num(ops.reduce_sum(ops.mul(n, n), (axis,)))
    long = square > eps * eps  # the root of zero has no gradient: it is not taken
    norm = select(long, select(long, square, 1).map(ops.sqrt), eps)
    return ops.div(n, spread(norm.node, n.shape, axis))


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dim."""
    need_numbers("pairwise_distance", x1, x2)
    if not x1.dtype.is_float and not x2.dtype.is_float:  # the difference is one of integers
        (gap,) = as_floats("pairwise_distance", subtract(x1, x2))
        return pairwise_distance(gap, gap.new_zeros(gap.shape), p, eps, keepdim)  # type: ignore[attr-defined]

    def build(a: Node, b: Node) -> Node:
        a, b = together(a, b)
        axis = a.type.rank - 1
        d = Num(a) - Num(b) + eps
        if p == 2:
            return ops.sqrt(_total((d * d).node, axis, keepdim))
        size = d.map(ops.abs)
        if p == math.inf:
            top = ops.reduce_max(size.node, (axis,))
            return ops.reshape(top, (*a.shape[:-1], 1)) if keepdim else top
        if p == 1:
            return _total(size.node, axis, keepdim)
        total = _total((size**p).node, axis, keepdim)
        return (Num(total) ** (1.0 / p)).node

    return apply("NormBackward1", build, x1, x2)


@repeatable
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1, along the last dim."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_tensors("cosine_embedding_loss", input1, input2, target)
    input1, input2 = (t if t.dtype.is_float else convert(t, get_default_dtype()) for t in (input1, input2))

    def build(a: Node, b: Node, t: Node) -> Node:
        a, b = together(a, b)
        axis = a.type.rank - 1
        tiny = 1e-12
        sums = [Num(ops.reduce_sum(ops.mul(p, q), (axis,))) for p, q in ((a, b), (a, a), (b, b))]
        cosine = sums[0] / ((sums[1] + tiny) * (sums[2] + tiny)).map(ops.sqrt)
        c, sign = (Num(n) for n in together(cosine.node, t))
        near = select(ne(sign, 1), c * 0, 1 - c)
        return reduced((near + select(ne(sign, -1), c * 0, _positive(c - margin))).node, reduction)

    return apply("MeanBackward0", build, input1, input2, target)


Distance = Callable[[Tensor, Tensor], Tensor]


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), for any distance.

    With `swap` the negative's distance is the smaller of those to the anchor and to the positive.
    """
    if reduction not in ("none", "mean", "sum"):
        raise fail(ValueError, f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise fail(ValueError, f"margin must be greater than 0, got {margin}")
    distance: Any = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))

    def build(a: Node, b: Node) -> Node:
        a, b = together(a, b)
        return reduced(_positive(Num(a) - Num(b) + margin).node, reduction)

    return apply("MeanBackward0", build, near, far)


@repeatable
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_with_distance_loss` with the p-norm."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=lambda a, b: pairwise_distance(a, b, p, eps),
        margin=margin,
        swap=swap,
        reduction=reduction,
    )
