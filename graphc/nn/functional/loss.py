"""Losses of predictions against targets, and of class scores against labels.

Labels are picked by comparing with an iota and summing, which fuses with the row loop of the
log-softmax; they are checked when the program runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

from graphc import ops
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.nodes import cast, spread
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.nn.arith import Num, select
from graphc.nn.functional.activation import logsigmoid_formula
from graphc.nn.functional.common import (
    as_floats,
    legacy_reduction,
    log_softmax_node,
    need_float,
    need_tensors,
    reduced,
    together,
)
from graphc.nn.functional.linear import check_labels


def warn_sizes(name: str, input: Tensor, target: Tensor) -> None:
    """Warn of a target that is broadcast, which is seldom meant."""
    if tuple(input.shape) != tuple(target.shape):
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=5,
        )


def pointwise_loss(
    label: str, formula: Callable[..., Num], reduction: str, *tensors: Tensor | None
) -> Tensor:
    """A formula on tensors broadcast together (None stays None), reduced."""
    given = tuple([t for t in tensors if t is not None])

    def build(*nodes: Node) -> Node:
        ready = iter([Num(n) for n in together(*nodes)])
        return reduced(formula(*[None if t is None else next(ready) for t in tensors]).node, reduction)

    return apply(label, build, *given)


def _weighted_sum(
    name: str,
    label: str,
    formula: Callable[..., Num],
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    reduction: str,
) -> Tensor:
    """A loss with elementwise weights; its mean divides by their sum."""
    if tuple(weight.shape) != tuple(input.shape):
        raise fail(ValueError, f"{name}: Weights and input must have the same size.")

    def build(a: Node, b: Node, w: Node) -> Node:
        a, b, w = together(a, b, w)
        loss = ops.mul(formula(Num(a), Num(b)).node, w)
        if reduction != "mean":
            return reduced(loss, reduction)
        return ops.div(reduced(loss, "sum"), reduced(w, "sum"))

    return apply(label, build, input, target, weight)


def _distance(
    name: str,
    label: str,
    formula: Callable[..., Num],
    input: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None = None,
) -> Tensor:
    need_float(name, input)
    need_tensors(name, target)
    warn_sizes(name, input, target)
    if weight is not None:
        return _weighted_sum(name, label, formula, input, target, weight, reduction)
    return pointwise_loss(label, formula, reduction, input, target)


@repeatable
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target) ** 2."""
    reduction = legacy_reduction(size_average, reduce, reduction)

    def formula(a: Num, b: Num) -> Num:
        d = a - b
        return d * d

    return _distance("mse_loss", "MseLossBackward0", formula, input, target, reduction, weight)


@repeatable
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target|."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return _distance(
        "l1_loss", "MeanBackward0", lambda a, b: (a - b).map(ops.abs), input, target, reduction, weight
    )


@repeatable
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d**2 / (2 beta) where d = |input - target| < beta, else d - beta / 2."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise fail(RuntimeError, "smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)

    def formula(a: Num, b: Num) -> Num:
        d = (a - b).map(ops.abs)
        return select(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)

    return _distance("smooth_l1_loss", "SmoothL1LossBackward0", formula, input, target, reduction)


@repeatable
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """d**2 / 2 where d = |input - target| <= delta, else delta * (d - delta / 2)."""
    if delta <= 0:
        raise fail(RuntimeError, "huber_loss does not support non-positive values for delta.")

    def formula(a: Num, b: Num) -> Num:
        d = (a - b).map(ops.abs)
        return select(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta)

    return _distance("huber_loss", "HuberLossBackward0", formula, input, target, reduction, weight)


@repeatable
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), the logs not below -100. ValueError if sizes differ."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("binary_cross_entropy", input, target)
    if tuple(target.shape) != tuple(input.shape):
        raise fail(
            ValueError,
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is "
            "deprecated. Please ensure they have the same size.",
        )

    def formula(p: Num, t: Num, w: Num | None) -> Num:
        loss = _bernoulli(p, t)
        return loss if w is None else loss * w

    return pointwise_loss("BinaryCrossEntropyBackward0", formula, reduction, input, target, weight)


def _bernoulli(p: Num, t: Num) -> Num:
    """-(t log p + (1 - t) log(1 - p)) with logs of at least -100.

    The gradient is PyTorch's, (p - t) / max(p (1 - p), 1e-12), which at the ends is not that of the value.
    """
    yes, no = p.map(ops.log), (1 - p).map(ops.log)
    yes, no = select(yes < -100, -100, yes), select(no < -100, -100, no)
    value = (t - 1) * no - t * yes
    end = p * (1 - p) < 1e-12
    inside = select(end, 0.5, p)
    natural = (t - 1) * (1 - inside).map(ops.log) - t * inside.map(ops.log)
    slopes = ((p - t) * 1e12).map(ops.stop_gradient), (no - yes).map(ops.stop_gradient)
    path = select(end, p * slopes[0] + t * slopes[1], natural)
    return Num(ops.with_gradient(value.node, path.node))


@repeatable
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), in a form that does not overflow.

    `pos_weight`, broadcast, multiplies the loss of positive targets. ValueError if sizes differ.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("binary_cross_entropy_with_logits", input)
    need_tensors("binary_cross_entropy_with_logits", target)
    if tuple(target.shape) != tuple(input.shape):
        raise fail(ValueError, f"Target size ({target.shape}) must be the same as input size ({input.shape})")

    def formula(x: Num, t: Num, w: Num | None, positive: Num | None) -> Num:
        factor = 1 if positive is None else (positive - 1) * t + 1
        loss = (1 - t) * x - logsigmoid_formula(x) * factor
        return loss if w is None else loss * w

    label = "BinaryCrossEntropyWithLogitsBackward0"
    return pointwise_loss(label, formula, reduction, input, target, weight, pos_weight)


@repeatable
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t * (log t - input), 0 where t is 0; with `log_target`, exp(t) * (t - input).

    "batchmean" divides the sum by the first size.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("kl_div", input, target)
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. "
            "'batchmean' "
            "divides only by the batch size, and aligns with the KL div math definition.",
            stacklevel=3,
        )

    def formula(x: Num, t: Num) -> Num:
        if log_target:
            return t.map(ops.exp) * (t - x)
        zero = t.map(lambda n: ops.eq(n, ops.zeros(n.type)))
        safe = select(zero, 1, t)
        return select(zero, t * 0, t * safe.map(ops.log)) - t * x  # NaN where t is negative

    batch = reduction == "batchmean"
    loss = pointwise_loss("KlDivBackward0", formula, "sum" if batch else reduction, input, target)
    return loss / input.shape[0] if batch and input.ndim else loss  # type: ignore[operator]


@repeatable
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - t x (or x - t log(x + eps)); `full` adds Stirling's term where t > 1."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    (input,) = as_floats("poisson_nll_loss", input)

    def formula(x: Num, t: Num) -> Num:
        loss = x.map(ops.exp) - t * x if log_input else x - t * (x + eps).map(ops.log)
        if not full:
            return loss
        safe = select(t > 1, t, 1)
        stirling = t * safe.map(ops.log) - t + (safe * (2 * math.pi)).map(ops.log) * 0.5
        return loss + select(t > 1, stirling, t * 0)

    return pointwise_loss("MeanBackward0", formula, reduction, input, target)


@repeatable
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log var + (input - target)**2 / var) / 2, var being at least eps; `full` adds log(2 pi) / 2."""
    need_float("gaussian_nll_loss", input)
    if not isinstance(var, Tensor):
        if var < 0:
            raise fail(ValueError, "var has negative entry/entries")
        var = input.detach() * 0 + var  # type: ignore[operator]
    if tuple(var.shape) != tuple(input.shape):
        if tuple(input.shape[:-1]) == tuple(var.shape):
            var = var.unsqueeze(-1)  # type: ignore[attr-defined]
        elif var.ndim != input.ndim or any(
            a not in (1, b) for a, b in zip(var.shape, input.shape, strict=True)
        ):
            raise fail(ValueError, f"var is of incorrect size: {describe(input, var)}")
    if reduction not in ("none", "mean", "sum"):
        raise fail(ValueError, f"{reduction} is not valid")
    assert isinstance(var, Tensor)

    def formula(x: Num, t: Num, v: Num) -> Num:
        # The gradient passes through var even where it is raised to eps, as PyTorch's does.
        v = Num(ops.with_gradient(select(v < eps, eps, v).node, v.node))
        loss = (v.map(ops.log) + (x - t) * (x - t) / v) * 0.5
        return loss + 0.5 * math.log(2 * math.pi) if full else loss

    return pointwise_loss("MeanBackward0", formula, reduction, input, target, var)


# ---------------------------------------------------------------- class scores


def _class_axis(name: str, input: Tensor, target: Tensor) -> int:
    """The axis of classes of scores [C] or [N, C, ...], for labels of the other dims."""
    if input.ndim == 0:
        raise fail(RuntimeError, f"{name}: expected input with at least one dim, got a scalar")
    axis = 0 if input.ndim == 1 else 1
    rest = tuple(input.shape[:axis] + input.shape[axis + 1 :])
    if tuple(target.shape) == rest:
        return axis
    if input.ndim > 1 and target.ndim and target.shape[0] != input.shape[0]:
        raise fail(
            ValueError,
            f"{name}: Expected input batch_size ({input.shape[0]}) to match target batch_size "
            f"({target.shape[0]}): {describe(input, target)}",
        )
    raise fail(
        RuntimeError,
        f"{name}: Expected target size {list(rest)}, got {list(target.shape)} for scores {list(input.shape)}",
    )


def _check_class_weight(name: str, weight: Tensor | None, classes: int) -> None:
    if weight is not None and tuple(weight.shape) != (classes,):
        raise fail(
            RuntimeError,
            f"{name}: weight tensor should be defined either for all {classes} classes or no classes but got "
            f"weight tensor of shape: {list(weight.shape)}",
        )


def _along(vector: Node, like: Node, axis: int) -> Node:
    return ops.broadcast(cast(vector, like.dtype), like.shape, (axis,))


def _labels_loss(
    name: str,
    logp: Node,
    labels: Node,
    weight: Node | None,
    axis: int,
    ignore: int,
    smoothing: float,
    reduction: str,
) -> Node:
    """The negative log-likelihood of labels, with PyTorch's weighted mean."""
    classes = logp.shape[axis]
    counted = ops.ne(labels, ops.like(labels, ignore))
    safe = check_labels(name, ops.select(counted, labels, ops.like(labels, 0)), classes, "Target")
    wide = spread(safe, logp.shape, axis)
    hit = ops.eq(wide, ops.iota(logp.shape, axis, labels.dtype))
    share = cast(counted, logp.dtype)  # what each label counts in the mean
    if weight is not None:
        own = ops.reduce_sum(ops.select(hit, _along(weight, logp, axis), ops.zeros(logp.type)), (axis,))
        share = ops.mul(own, share)
    picked = ops.reduce_sum(ops.select(hit, logp, ops.zeros(logp.type)), (axis,))
    none = ops.zeros(picked.type)
    loss = ops.select(counted, ops.neg(picked if weight is None else ops.mul(picked, share)), none)
    if smoothing:
        spread_out = logp if weight is None else ops.mul(logp, _along(weight, logp, axis))
        smooth = ops.select(counted, ops.neg(ops.reduce_sum(spread_out, (axis,))), none)
        loss = ops.add(
            ops.mul(loss, ops.like(loss, 1 - smoothing)),
            ops.mul(smooth, ops.like(smooth, smoothing / classes)),
        )
    if reduction != "mean":
        return reduced(loss, reduction)
    return ops.div(reduced(loss, "sum"), reduced(share, "sum"))


def _check_labels_dtype(name: str, target: Tensor) -> None:
    if target.dtype is not int64:
        raise fail(
            RuntimeError,
            f"{name}: expected scalar type Long but found {title(target.dtype)} for the target "
            f"{describe(target)}: classes are integers, target.long()",
        )


@repeatable
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[n, target[n]] of log-probabilities [N, C, ...] and labels [N, ...], weighted by class.

    Labels equal to `ignore_index` do not count. IndexError, when the program runs, for other labels
    out of range.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("nll_loss", input)
    need_tensors("nll_loss", target)
    axis = _class_axis("nll_loss", input, target)
    _check_labels_dtype("nll_loss", target)
    _check_class_weight("nll_loss", weight, input.shape[axis])

    def build(n: Node, labels: Node, w: Node | None = None) -> Node:
        return _labels_loss("nll_loss", n, labels, w, axis, ignore_index, 0.0, reduction)

    tensors = (input, target) if weight is None else (input, target, weight.detach())
    return apply("NllLossBackward0", build, *tensors)


@repeatable
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The negative log-likelihood of softmax(input) over the classes (dim 1; dim 0 of [C]).

    target: int64 labels of the other dims (`ignore_index` does not count), or class probabilities of
    the input's shape. `weight` multiplies by class, and the mean divides by the sum of the labels'
    weights. IndexError, when the program runs, for a label out of range.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    need_float("cross_entropy", input)
    need_tensors("cross_entropy", target)
    if not 0.0 <= label_smoothing <= 1.0:
        raise fail(RuntimeError, f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if tuple(target.shape) == tuple(input.shape) and target.dtype.is_float:
        if ignore_index >= 0:
            raise fail(RuntimeError, "ignore_index is not supported for floating point target")
        return _cross_entropy_probabilities(input, target, weight, reduction, label_smoothing)
    axis = _class_axis("cross_entropy", input, target)
    _check_labels_dtype("cross_entropy", target)
    _check_class_weight("cross_entropy", weight, input.shape[axis])

    def build(n: Node, labels: Node, w: Node | None = None) -> Node:
        logp = log_softmax_node(n, axis)
        return _labels_loss("cross_entropy", logp, labels, w, axis, ignore_index, label_smoothing, reduction)

    tensors = (input, target) if weight is None else (input, target, weight.detach())
    return apply("NllLossBackward0", build, *tensors)


def _cross_entropy_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    _check_class_weight("cross_entropy", weight, classes)

    def build(n: Node, t: Node, w: Node | None = None) -> Node:
        logp, t = together(log_softmax_node(n, axis), t)
        if smoothing:
            t = ((Num(t) * (1 - smoothing)) + smoothing / classes).node
        product = ops.mul(logp, t)
        if w is not None:
            product = ops.mul(product, _along(w, product, axis))
        loss = ops.neg(ops.reduce_sum(product, (axis,)))
        if reduction != "mean":
            return reduced(loss, reduction)
        total = reduced(loss, "sum")
        return ops.div(total, ops.like(total, float(loss.type.size)))

    tensors = (input, target) if weight is None else (input, target, weight.detach())
    return apply("DivBackward1", build, *tensors)
