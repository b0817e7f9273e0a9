"""Reductions: sums and moments, extrema, truth, norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc import return_types as kinds
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.comparison import truth
from graphc.frontend.functions.elementwise import maximum, minimum
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.unary import scaled
from graphc.frontend.nodes import cast, normal_axes, normal_axis, number, spread, without
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_, int64, uint8

Dims = int | tuple[int, ...] | list[int] | None


def keep(node: Node, shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> Node:
    """A reduction's result, with the reduced axes as size 1 if `keepdim`."""
    return ops.reshape(node, without(shape, axes, True)) if keepdim else node


def _sum_dtype(input: Tensor, dtype: DType | None) -> DType:
    return dtype or (input.dtype if input.dtype.is_float else int64)


def _floating(input: Tensor, dtype: DType | None, name: str) -> DType:
    found = dtype or input.dtype
    if not found.is_float:
        raise fail(
            RuntimeError,
            f"{name}(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. "
            f"Got: {title(found)}",
        )
    return found


@method("sum", repeats=True)
def sum_(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum over `dim` (all by default); integers and bools are summed as int64."""
    out = _sum_dtype(input, dtype)
    axes = normal_axes(dim, input.ndim)
    return apply(
        "SumBackward0", lambda n: keep(ops.reduce_sum(cast(n, out), axes), n.shape, axes, keepdim), input
    )


@method()
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum with NaN counted as zero."""
    if not input.dtype.is_float:
        return sum_(input, dim, keepdim, dtype=dtype)
    clean = apply("WhereBackward0", lambda n: ops.select(ops.isnan(n), ops.zeros(n.type), n), input)
    return sum_(clean, dim, keepdim, dtype=dtype)


def mean_node(n: Node, axes: tuple[int, ...]) -> Node:
    """The mean over `axes`, of a float node."""
    count = math.prod(n.shape[a] for a in axes)
    total = ops.reduce_sum(n, axes)
    return scaled(total, 1.0 / count) if count else ops.div(total, ops.zeros(total.type))


@method(repeats=True)
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean over `dim` (all by default), of a floating-point tensor."""
    out = _floating(input, dtype, "mean")
    axes = normal_axes(dim, input.ndim)
    return apply(
        "MeanBackward0", lambda n: keep(mean_node(cast(n, out), axes), n.shape, axes, keepdim), input
    )


@method("prod", repeats=True)
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The product over `dim` (all by default)."""
    out = _sum_dtype(input, dtype)
    axes = normal_axes(dim, input.ndim)
    return apply(
        "ProdBackward0",
        lambda n: keep(
            (ops.reduce_and if out is bool_ else ops.reduce_prod)(cast(n, out), axes), n.shape, axes, keepdim
        ),
        input,
    )


def variance_node(n: Node, axes: tuple[int, ...], correction: float) -> tuple[Node, Node]:
    """(variance, mean) over `axes`, in two sweeps."""
    count = math.prod(n.shape[a] for a in axes)
    mean = mean_node(n, axes)
    centred = ops.sub(n, spread(mean, n.shape, axes))
    total = ops.reduce_sum(ops.mul(centred, centred), axes)
    divisor = max(0.0, count - correction)
    return (scaled(total, 1.0 / divisor) if divisor else ops.div(total, ops.zeros(total.type))), mean


def _correction(dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Dims, float]:
    if isinstance(dim, bool):  # var(x, False)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1.0 if unbiased is None or unbiased else 0.0
    return dim, correction


def _variance(
    name: str, after: Callable[[Node], Node] | None, input: Tensor, dim: Dims, ddof: float, keepdim: bool
) -> Tensor:
    _floating(input, None, name)
    axes = normal_axes(dim, input.ndim)

    def build(n: Node) -> Node:
        variance, _ = variance_node(n, axes, ddof)
        return keep(after(variance) if after else variance, n.shape, axes, keepdim)

    return apply(f"{name.capitalize()}Backward0", build, input)


@method(repeats=True)
def var(
    input: Tensor,
    dim: Dims = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance over `dim`, with divisor N - correction (1 by default)."""
    dim, ddof = _correction(dim, unbiased, correction)
    return _variance("var", None, input, dim, ddof, keepdim)


@method(repeats=True)
def std(
    input: Tensor,
    dim: Dims = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The standard deviation over `dim`, with divisor N - correction (1 by default)."""
    dim, ddof = _correction(dim, unbiased, correction)
    return _variance("std", lambda total: _safe_power(total, 0.5), input, dim, ddof, keepdim)


@method(function=True)
def var_mean(input: Tensor, dim: Dims = None, **options: Any) -> tuple[Tensor, Tensor]:
    """(variance, mean) over `dim`."""
    keepdim = options.get("keepdim", False)
    return var(input, dim, **options), mean(input, None if isinstance(dim, bool) else dim, keepdim)


@method(function=True)
def std_mean(input: Tensor, dim: Dims = None, **options: Any) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean) over `dim`."""
    keepdim = options.get("keepdim", False)
    return std(input, dim, **options), mean(input, None if isinstance(dim, bool) else dim, keepdim)


# -------------------------------------------------------------------- extrema


def _need_elements(input: Tensor, axes: tuple[int, ...], name: str, named: bool = True) -> None:
    """There is no extreme of nothing: IndexError where the user named an empty dim, else RuntimeError."""
    empty = next((a for a in axes if input.shape[a] == 0), None)
    if empty is not None and named:
        raise fail(
            IndexError,
            f"{name}(): Expected reduction dim {empty} to have non-zero size. Got {describe(input)}",
        )
    if any(input.shape[a] == 0 for a in axes):
        raise fail(
            RuntimeError,
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the "
            f"reduction dim "
            f"with the 'dim' argument. Got {describe(input)}",
        )


def extreme_node(build: Callable[[Node, tuple[int, ...]], Node], n: Node, axes: tuple[int, ...]) -> Node:
    """reduce_max or reduce_min, of bools too."""
    if n.dtype is bool_:
        return (ops.reduce_or if build is ops.reduce_max else ops.reduce_and)(n, axes)
    return build(n, axes)


def _amax(name: str, build: Callable[[Node, tuple[int, ...]], Node]) -> Callable[..., Tensor]:
    def extreme(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
        if input.ndim > 64:
            raise fail(RuntimeError, f"only tensors with up to 64 dims are supported, got {input.ndim}")
        axes = normal_axes(dim, input.ndim)
        _need_elements(input, axes, name, named=dim not in ((), None))
        return apply(
            f"{name.capitalize()}Backward0",
            lambda n: keep(extreme_node(build, n, axes), n.shape, axes, keepdim),
            input,
        )

    extreme.__name__ = extreme.__qualname__ = name
    extreme.__doc__ = "The extreme value over `dim`; the gradient is shared evenly among equal ones."
    return extreme


amax = method("amax")(_amax("amax", ops.reduce_max))
amin = method("amin")(_amax("amin", ops.reduce_min))


def _positions(n: Node, axis: int, largest: bool) -> Node:
    if n.dtype is bool_:
        n = ops.cast(n, int64)
    return ops.argmax(n, axis) if largest else ops.argmin(n, axis)


def _along(input: Tensor, axis: int, keepdim: bool, largest: bool) -> kinds.ValuesIndices:
    """Values and indices of the extreme elements; the gradient goes to the index given."""
    name = "max" if largest else "min"
    kind = kinds.max if largest else kinds.min
    if input.ndim == 0:
        return kind(
            apply("AliasBackward0", lambda n: n, input), apply("", lambda n: ops.full((), 0, int64), input)
        )
    _need_elements(input, (axis,), name)
    indices = apply("", lambda n: keep(_positions(n, axis, largest), n.shape, (axis,), True), input)

    def build(n: Node, i: Node) -> Node:
        found = ops.take_along(n, i, axis)
        return found if keepdim else ops.reshape(found, without(n.shape, (axis,)))

    values = apply(f"{name.capitalize()}Backward0", build, input, indices)
    if not keepdim:
        indices = apply("", lambda i: ops.reshape(i, without(input.shape, (axis,))), indices)
    return kind(values, indices)


def _max_or_min(input: Tensor, dim: Any, keepdim: bool, largest: bool) -> Any:
    if isinstance(dim, Tensor):
        return (maximum if largest else minimum)(input, dim)
    if dim is None:
        axes = tuple(range(input.ndim))
        _need_elements(input, axes, "max" if largest else "min", named=False)
        build = ops.reduce_max if largest else ops.reduce_min
        label = "MaxBackward1" if largest else "MinBackward1"
        return apply(label, lambda n: extreme_node(build, n, axes), input)
    return _along(input, normal_axis(dim, input.ndim), keepdim, largest)


@method("max", repeats=True)
def max_(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with `dim`, (values, indices) along it; with a tensor, `maximum`."""
    need_tensors("max", input)
    return _max_or_min(input, dim, keepdim, True)


@method("min", repeats=True)
def min_(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with `dim`, (values, indices) along it; with a tensor, `minimum`."""
    need_tensors("min", input)
    return _max_or_min(input, dim, keepdim, False)


def _arg(input: Tensor, dim: int | None, keepdim: bool, largest: bool) -> Tensor:
    if input.ndim == 0:
        return apply("", lambda n: ops.full((), 0, int64), input)
    if dim is None:
        rank = input.ndim
        flat = apply("", lambda n: _positions(ops.reshape(n, (n.type.size,)), 0, largest), input)
        return apply("", lambda n: ops.reshape(n, (1,) * rank), flat) if keepdim else flat
    axis = normal_axis(dim, input.ndim)
    _need_elements(input, (axis,), "argmax" if largest else "argmin")
    return apply("", lambda n: keep(_positions(n, axis, largest), n.shape, (axis,), keepdim), input)


@method(repeats=True)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element (the first of equal ones), as int64."""
    return _arg(input, dim, keepdim, True)


@method(repeats=True)
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the smallest element (the first of equal ones), as int64."""
    return _arg(input, dim, keepdim, False)


@method("aminmax")
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> kinds.aminmax:
    """(smallest, largest) over `dim`."""
    if dim is None and input._cell.node.type.size == 0:
        raise fail(RuntimeError, "aminmax(): cannot compute aminmax over an empty dimension")
    dims = () if dim is None else dim
    return kinds.aminmax(amin(input, dims, keepdim), amax(input, dims, keepdim))


# ---------------------------------------------------------------- truth, norms


def _quantified(build: Callable[..., Node], input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    axes = normal_axes(dim, input.ndim)
    out = uint8 if input.dtype is uint8 else bool_
    return apply("", lambda n: keep(cast(build(truth(n), axes), out), n.shape, axes, keepdim), input)


@method("all", repeats=True)
def all_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element over `dim` is non-zero (as bool; uint8 stays uint8, as in PyTorch)."""
    return _quantified(ops.reduce_and, input, dim, keepdim)


@method("any", repeats=True)
def any_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element over `dim` is non-zero (as bool; uint8 stays uint8, as in PyTorch)."""
    return _quantified(ops.reduce_or, input, dim, keepdim)


@method()
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """The number of non-zero elements over `dim`."""
    axes = normal_axes(dim, input.ndim)
    return apply("", lambda n: ops.reduce_sum(cast(truth(n), int64), axes), input)


@method(repeats=True)
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, computed stably."""
    axes = normal_axes(dim, input.ndim)

    def build(n: Node) -> Node:
        n = n if n.dtype.is_float else ops.cast(n, get_default_dtype())
        if not math.prod(n.shape[a] for a in axes):
            return keep(ops.log(ops.reduce_sum(n, axes)), n.shape, axes, keepdim)  # of nothing: log(0)
        top = ops.stop_gradient(ops.reduce_max(n, axes))
        top = ops.select(ops.isinf(top), ops.zeros(top.type), top)
        total = ops.reduce_sum(ops.exp(ops.sub(n, spread(top, n.shape, axes))), axes)
        return keep(ops.add(ops.log(total), top), n.shape, axes, keepdim)

    return apply("LogsumexpBackward0", build, input)


def norm_node(n: Node, p: float, axes: tuple[int, ...]) -> Node:
    """The vector p-norm over `axes`; its gradient at zero is zero."""
    size = ops.abs(n)
    if p == math.inf:
        return ops.reduce_max(size, axes)
    if p == -math.inf:
        return ops.reduce_min(size, axes)
    if p == 0:
        return ops.reduce_sum(cast(ops.ne(n, ops.zeros(n.type)), n.dtype), axes)
    if p == 1:
        return ops.reduce_sum(size, axes)
    if p == 2:
        total = ops.reduce_sum(ops.mul(n, n), axes)
        return _safe_power(total, 0.5)
    powered = ops.select(
        ops.eq(size, ops.zeros(n.type)),
        ops.zeros(n.type),
        ops.pow(_nonzero(size), number(p, n.dtype, n.shape)),
    )
    return _safe_power(ops.reduce_sum(powered, axes), 1.0 / p)


def _nonzero(n: Node) -> Node:
    return ops.select(ops.eq(n, ops.zeros(n.type)), ops.ones(n.type), n)


def _safe_power(total: Node, exponent: float) -> Node:
    """total ** exponent with gradient 0 (not infinity) where total is 0."""
    zero = ops.eq(total, ops.zeros(total.type))
    base = ops.select(zero, ops.ones(total.type), total)
    root = ops.sqrt(base) if exponent == 0.5 else ops.pow(base, number(exponent, total.dtype, total.shape))
    return ops.select(zero, ops.zeros(total.type), root)


@method(repeats=True)
def norm(
    input: Tensor,
    p: float | str | None = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    dtype: DType | None = None,
) -> Tensor:
    """The vector p-norm over `dim` ("fro" is 2). RuntimeError for "nuc", which needs singular values."""
    if isinstance(p, str) and p != "fro":
        raise fail(
            RuntimeError, f"norm(): p={p!r} is not supported (no singular values); use 'fro' or a number"
        )
    order = 2.0 if p in ("fro", None) else float(p)  # type: ignore[arg-type]
    out = _floating(input, dtype, "norm")
    axes = normal_axes(dim, input.ndim)
    return apply(
        "LinalgVectorNormBackward0",
        lambda n: keep(norm_node(cast(n, out), order, axes), n.shape, axes, keepdim),
        input,
    )


# ---------------------------------------------------------------------- softmax


def softmax_node(n: Node, axis: int) -> Node:
    """exp(n) / sum(exp(n)) along `axis`, stable."""
    if n.type.size == 0:
        return n
    top = ops.stop_gradient(ops.reduce_max(n, (axis,)))
    powers = ops.exp(ops.sub(n, spread(top, n.shape, axis)))
    return ops.div(powers, spread(ops.reduce_sum(powers, (axis,)), n.shape, axis))


def log_softmax_node(n: Node, axis: int) -> Node:
    """n - log(sum(exp(n))) along `axis`, stable."""
    if n.type.size == 0:
        return n
    top = ops.stop_gradient(ops.reduce_max(n, (axis,)))
    centred = ops.sub(n, spread(top, n.shape, axis))
    total = ops.log(ops.reduce_sum(ops.exp(centred), (axis,)))
    return ops.sub(centred, spread(total, n.shape, axis))


def _softmax(label: str, input: Tensor, dim: int, dtype: DType | None, build: Callable[..., Node]) -> Tensor:
    out = dtype or input.dtype
    if not out.is_float:
        raise fail(NotImplementedError, f'"softmax" not implemented for {title(out)!r}: {describe(input)}')
    if input.ndim == 0:
        return apply(label, lambda n: ops.reshape(build(ops.reshape(cast(n, out), (1,)), 0), ()), input)
    axis = normal_axis(dim, input.ndim)
    return apply(label, lambda n: build(cast(n, out), axis), input)


@method(repeats=True)
def softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """exp(input) / sum(exp(input)) along `dim`."""
    return _softmax("SoftmaxBackward0", input, dim, dtype, softmax_node)


@method(repeats=True)
def log_softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """log(softmax(input)) along `dim`."""
    return _softmax("LogSoftmaxBackward0", input, dim, dtype, log_softmax_node)
