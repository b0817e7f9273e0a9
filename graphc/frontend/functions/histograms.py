"""Histograms, covariances, and limits on norms of parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import return_types as kinds
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.creation import linspace
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.search import searchsorted
from graphc.frontend.nodes import normal_axis
from graphc.frontend.tensor import Tensor, is_concrete


def _float(name: str, input: Tensor) -> None:
    if not input.dtype.is_float:
        what = f"\"{name}\" not implemented for '{input.dtype.name}'"
        raise fail(NotImplementedError, f"{what}: {describe(input)}")


def _limits(name: str, input: Tensor, low: float, high: float, margin: float) -> tuple[Any, Any]:
    """The bounds of bins: those given, or (given as equal) those of the values, moved apart by `margin`."""
    if low > high or not np.isfinite([low, high]).all():
        raise fail(RuntimeError, f"{name}: max must be larger than min, and both finite: got {low}, {high}")
    if low != high or not input.numel():
        return (low, high) if low != high else (low - 0.0, high + 1.0)
    first, last = input.min(), input.max()
    same = first == last
    return where(same, first - margin, first), where(same, last + margin, last)


def _counts(input: Tensor, bins: int, low: Any, high: Any, weight: Tensor | None) -> Tensor:
    """How many elements (or what weight) fall into each of `bins` equal intervals of [low, high]."""
    flat = input.reshape(-1)
    inside = (flat >= low).logical_and(flat <= high)
    place = ((flat - low) * bins / (high - low)).floor().clamp(min=0, max=bins - 1)
    place = where(inside, place, 0.0).long()
    amount = inside.to(input.dtype) if weight is None else where(inside, weight.reshape(-1), 0.0)
    return input.new_zeros((bins,)).scatter_add(0, place, amount)


@method("histc")
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of `bins` equal intervals between min and max.

    Those of the values if both are equal. Elements outside (and NaN) are not counted. A float tensor [bins].
    """
    _float("histc", input)
    if bins <= 0:
        raise fail(RuntimeError, "bins must be > 0")
    input = input.detach()
    return _counts(input, bins, *_limits("histc", input, min, max, 1.0), None)


@method("histogram")
def histogram(
    input: Tensor,
    bins: int | Tensor = 100,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> kinds.histogram:
    """(hist, bin_edges): counts (or sums of `weight`) between edges, given or equally spaced over `range`.

    With `density` the integral is 1.
    """
    _float("histogram", input)
    input = input.detach()
    if isinstance(bins, Tensor):
        edges = bins
        flat = input.reshape(-1)
        place = searchsorted(edges, flat, right=True)
        last = edges.shape[0] - 1
        inside = (flat >= edges[0]).logical_and(flat <= edges[-1])
        amount = inside.to(input.dtype) if weight is None else where(inside, weight.reshape(-1), 0.0)
        hist = input.new_zeros((last,)).scatter_add(0, (place - 1).clamp(min=0, max=last - 1), amount)
    else:
        low, high = _limits("histogram", input, *(range or (0.0, 0.0)), 0.5)
        hist = _counts(input, bins, low, high, weight)
        steps = linspace(0.0, 1.0, bins + 1, dtype=input.dtype)
        edges = low + steps * (high - low)
    if density:
        hist = hist / hist.sum() / (edges[1:] - edges[:-1])
    return kinds.histogram(hist, edges)


@method("cov")
def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """The covariance matrix of variables (rows) from observations (columns), [n, m] -> [n, n].

    correction  subtracted from the number of observations
    fweights    how often each observation occurred (integers [m]); aweights how much each counts (floats [m])
    """
    if input.ndim > 2:
        raise fail(
            RuntimeError, f"cov(): expected input to have two or fewer dimensions but got {input.ndim}"
        )
    rows = input.reshape(1, -1) if input.ndim < 2 else input
    if not rows.dtype.is_float:
        rows = rows.float()
    weight: Any = None
    for given in (fweights, aweights):
        if given is not None:
            if tuple(given.shape) != (rows.shape[1],):
                raise fail(
                    RuntimeError, f"cov(): weights must have the shape [{rows.shape[1]}]: {describe(given)}"
                )
            _check_weights(given, given is fweights)
            weight = given if weight is None else weight * given
    if weight is None:
        total: Any = float(rows.shape[1])
        norm: Any = max(total - correction, 0.0) or rows.new_zeros(())
        centred = rows - rows.mean(1, keepdim=True)
        found = centred.matmul(centred.transpose(0, 1)) / norm
    else:
        total = weight.sum()
        norm = (
            total - correction if aweights is None else total - correction * (weight * aweights).sum() / total
        )
        centred = rows - (rows * weight).sum(1, keepdim=True) / total
        found = (centred * weight).matmul(centred.transpose(0, 1)) / norm.clamp(min=0)
    return found.squeeze()


def _check_weights(given: Tensor, counts: bool) -> None:
    """RuntimeError for counts that are no integers, weights that are integers, and negative ones if known."""
    name = "fweights" if counts else "aweights"
    if given.dtype.is_float == counts:
        kind = "integral" if counts else "floating point"
        raise fail(
            RuntimeError,
            f"cov(): expected {name} to have {kind} dtype but got {name} with {title(given.dtype)} dtype",
        )
    if is_concrete(given) and (value(given) < 0).any():
        raise fail(RuntimeError, f"cov(): {name} cannot be negative")


@method("corrcoef")
def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlation coefficients of variables (rows) from observations (columns)."""
    if input.ndim > 2:
        raise fail(
            RuntimeError, f"corrcoef(): expected input to have two or fewer dimensions but got {input.ndim}"
        )
    found = cov(input)
    if found.ndim == 0:
        return found / found
    spread = found.diagonal().sqrt()
    return (found / spread.unsqueeze(1) / spread).clamp(min=-1, max=1)


@method("renorm", inplace=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """`input` with each part along `dim` scaled down to p-norm `maxnorm`, if it is longer."""
    if p <= 0 or maxnorm < 0:
        raise fail(RuntimeError, f"renorm: p must be positive and maxnorm not negative: got {p}, {maxnorm}")
    if input.ndim < 2:
        raise fail(RuntimeError, f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    axis = normal_axis(dim, input.ndim)
    others = tuple(d for d in range(input.ndim) if d != axis)
    length = input.norm(float(p), others, keepdim=True)
    return where(length > maxnorm, input * (maxnorm / (length + 1e-7)), input)
