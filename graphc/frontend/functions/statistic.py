"""Medians and quantiles, means without NaN, and the trapezoid rule."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc import return_types as kinds
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.elementwise import lerp_node, where
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.reduce import Dims, nansum
from graphc.frontend.functions.shape import ravel, reshape
from graphc.frontend.functions.sorting import Sorted, order, pick, sort
from graphc.frontend.nodes import cast, expand, normal_axis, number
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import DType, int64


@method()
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean over `dim` (all by default) of the elements that are not NaN."""
    if not (dtype or input.dtype).is_float:
        raise fail(
            RuntimeError, f"nanmean(): expected input to have floating point dtype but got {input.dtype}"
        )
    counts = (~input.isnan()).sum(dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / counts


@method()
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Sorted:
    """The lower median: of all elements, or (values, positions) along `dim`. NaN wins."""
    return _median(input, dim, keepdim, skip=False)


@method()
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Sorted:
    """The lower median of the elements that are not NaN: of all, or (values, positions) along `dim`."""
    return _median(input, dim, keepdim, skip=True)


def _median(input: Tensor, dim: int | None, keepdim: bool, skip: bool) -> Tensor | Sorted:
    if dim is None:
        if input._cell.node.type.size == 0:
            return input.new_full((), float("nan") if input.dtype.is_float else 0)
        return _middle(ravel(input), 0, False, skip).values
    if input.ndim == 0:
        found = sort(input)
    else:
        found = _middle(input, normal_axis(dim, input.ndim), keepdim, skip)
    return kinds.nanmedian(*found) if skip else kinds.median(*found)


def _middle(input: Tensor, axis: int, keepdim: bool, skip: bool) -> Sorted:
    extent = input.shape[axis]
    if extent == 0:
        raise fail(IndexError, f"median(): Expected reduction dim {axis} to have non-zero size")
    ordered = order(input, axis, False)
    if not input.dtype.is_float:
        found = ordered.narrow(axis, (extent - 1) // 2, 1)
    elif skip:
        known = (~input.detach().isnan()).sum(axis, keepdim=True)
        found = METHODS["gather"](ordered, axis, ((known - 1) // 2).clamp(min=0))
    else:
        nans = input.detach().isnan()
        middle = ordered.narrow(axis, (extent - 1) // 2, 1)
        found = where(nans.any(axis, True), nans.int().argmax(axis, True), middle)
    return pick(input, found, axis, keepdim, "MedianBackward1")


_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


@method()
def quantile(
    input: Tensor,
    q: float | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """Quantiles along `dim` (of all elements by default): q is a number or a vector in [0, 1].

    The result has the shape of a reduction, with a vector's dim in front. NaN wins.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, skip=False)


@method()
def nanquantile(
    input: Tensor,
    q: float | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """`quantile` of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, skip=True)


def _quantile(
    name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip: bool
) -> Tensor:
    _check_quantile(name, input, q, interpolation)
    rank = input.ndim
    whole = dim is None or rank == 0
    source, axis = (ravel(input), 0) if whole else (input, normal_axis(dim or 0, rank))
    values = METHODS["movedim"](sort(source, axis).values, axis, -1)
    many = isinstance(q, Tensor) and q.ndim == 1
    levels = ravel(q) if isinstance(q, Tensor) else input.new_tensor([q])
    found = apply(
        "QuantileBackward0", lambda n, level: _levels(n, level, interpolation, skip), values, levels
    )
    found = METHODS["movedim"](found, -1, 0)  # q's dim in front
    if keepdim:
        shape = (1,) * rank if whole else tuple(1 if d == axis else e for d, e in enumerate(input.shape))
        found = reshape(found, (found.shape[0], *shape))
    return found if many else found[0]


def _check_quantile(name: str, input: Tensor, q: Any, interpolation: str) -> None:
    if not input.dtype.is_float:
        raise fail(RuntimeError, f"{name}() input tensor must be either float or double dtype")
    if input._cell.node.type.size == 0:
        raise fail(RuntimeError, f"{name}() input tensor must be non-empty, got {describe(input)}")
    if isinstance(q, Tensor):
        if q.ndim > 1:
            raise fail(RuntimeError, f"{name}() q must be a scalar or 1D tensor")
        if q.dtype is not input.dtype:
            raise fail(RuntimeError, f"{name}() q tensor must be same dtype as the input tensor")
    elif not 0 <= q <= 1:
        raise fail(RuntimeError, f"{name}() q must be in the range [0, 1] but got {q}")
    if interpolation not in _INTERPOLATIONS:
        raise fail(
            RuntimeError,
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
            f"{interpolation}",
        )


def _levels(n: Node, q: Node, interpolation: str, skip: bool) -> Node:
    """Quantiles q [k] of lines [..., n] in ascending order (NaN last): [..., k]."""
    lead, extent = n.shape[:-1], n.shape[-1]
    shape = (*lead, q.shape[0])
    nans = ops.reduce_sum(cast(ops.isnan(n), n.dtype), (n.type.rank - 1,))
    top = number(extent - 1, n.dtype, lead)
    last = ops.maximum(ops.sub(top, nans), ops.zeros(top.type)) if skip else top
    rank = ops.mul(expand(q, shape), ops.broadcast(last, shape, tuple(range(len(lead)))))
    if interpolation == "lower":
        rank = ops.floor(rank)
    elif interpolation == "higher":
        rank = ops.ceil(rank)
    elif interpolation == "nearest":
        rank = ops.round(rank)
    low = ops.floor(rank)
    weight = number(0.5, n.dtype, shape) if interpolation == "midpoint" else ops.sub(rank, low)
    below = ops.take_along(n, cast(low, int64), n.type.rank - 1)
    above = ops.take_along(n, cast(ops.ceil(rank), int64), n.type.rank - 1)
    found = lerp_node(below, above, weight)
    if skip:
        return found
    has_nan = ops.broadcast(ops.gt(nans, ops.zeros(nans.type)), shape, tuple(range(len(lead))))
    return ops.select(has_nan, number(float("nan"), n.dtype, shape), found)


# ------------------------------------------------------------------- trapezoids


def _trapezoids(y: Tensor, x: Tensor | None, dx: float, dim: int) -> tuple[Tensor, int]:
    """The areas between neighbours along `dim`, and that dim."""
    axis = normal_axis(dim, y.ndim)
    count = y.shape[axis]
    length = max(0, count - 1)
    both = y.narrow(axis, min(1, count), length) + y.narrow(axis, 0, length)
    if x is None:
        return both * dx / 2.0, axis
    if x.ndim == 1:
        if x.shape[0] != count:
            raise fail(
                RuntimeError,
                f"trapezoid: there must be one `x` value for each sample point: {describe(y, x)}, dim {dim}",
            )
        x = reshape(x, (count,) + (1,) * (y.ndim - 1 - axis))
        at = 0
    else:
        at = normal_axis(dim, x.ndim)
    steps = x.narrow(at, min(1, x.shape[at]), max(0, x.shape[at] - 1)) - x.narrow(
        at, 0, max(0, x.shape[at] - 1)
    )
    return both * steps / 2.0, axis


@method("trapezoid", "trapz", only_function=True)
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral along `dim` by the trapezoid rule, at points `x` or at a distance of `dx`."""
    areas, axis = _trapezoids(y, x, dx, dim)
    return areas.sum(axis)


@method(only_function=True)
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The running integral along `dim` by the trapezoid rule (one element fewer)."""
    areas, axis = _trapezoids(y, x, dx, dim)
    return areas.cumsum(axis)
