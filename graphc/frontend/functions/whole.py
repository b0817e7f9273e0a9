"""Functions of whole numbers and positions: common divisors, powers of a vector, places in flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.convert import convert
from graphc.frontend.functions.creation import arange
from graphc.frontend.functions.elementwise import result_dtype, where
from graphc.frontend.functions.joining import cat
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.scan import scan
from graphc.frontend.nodes import broadcast_shapes, normal_axis
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bool_, int64


@method("gcd", inplace=True)
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise: the greatest common divisor of whole numbers (never negative), by Euclid's algorithm."""
    need_tensors("gcd", input, other)
    dtype = result_dtype(input, other)
    if dtype.is_float or dtype is bool_:
        raise fail(NotImplementedError, f"\"gcd\" not implemented for '{dtype.name}'")
    a = convert(input, dtype).abs()
    b = convert(other, dtype).abs()
    shape = broadcast_shapes(tuple(a.shape), tuple(b.shape))

    def step(carry: Any, _: Any) -> Any:
        x, y = carry
        done = y.eq(0)
        return (where(done, x, y), where(done, 0, x % where(done, 1, y))), None

    # numbers below 2 ** bits take at most 1.45 * bits steps (the worst are those of Fibonacci)
    bits = 8 * dtype.itemsize
    (found, _), _ = scan(step, (a.expand(shape), b.expand(shape)), length=bits * 3 // 2)
    return found


@method("lcm", inplace=True)
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise: the least common multiple of whole numbers (never negative)."""
    need_tensors("lcm", input, other)
    divisor = gcd(input, other)
    quotient = METHODS["div"](input, where(divisor.eq(0), 1, divisor), rounding_mode="trunc")
    return (quotient * other).abs()


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The matrix of powers of a vector: [n] -> [n, N], the highest first unless `increasing`."""
    if x.ndim != 1:
        raise fail(RuntimeError, f"x must be a one-dimensional tensor: {describe(x)}")
    count = x.shape[0] if N is None else N
    if count < 0:
        raise fail(RuntimeError, f"N must be non-negative, got {N}")
    kept = x.long() if not x.dtype.is_float else x
    powers = kept.unsqueeze(1) ** arange(count)
    return powers if increasing else powers.flip(1)


method(only_function=True)(vander)


@method(only_function=True)
def unravel_index(indices: Tensor, shape: int | Sequence[int]) -> tuple[Tensor, ...]:
    """The coordinates, in a tensor of `shape`, of positions in the flattened tensor: one tensor a dim."""
    if indices.dtype.is_float or indices.dtype is bool_:
        raise fail(ValueError, f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    rest, found = indices.to(int64), []
    for extent in reversed((shape,) if isinstance(shape, int) else tuple(shape)):
        found.append(rest % extent)
        rest = METHODS["div"](rest, extent, rounding_mode="floor")
    return tuple(reversed(found))


@method("put", inplace=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with its elements at positions `index` (flattened) replaced by `source`, or added to."""
    if index.numel() != source.numel():
        raise fail(
            IndexError,
            "put_(): Expected source and index to have the same number of elements: "
            f"{describe(index, source)}",
        )
    if source.dtype is not input.dtype:
        raise fail(RuntimeError, f"put_(): dtypes of self and source differ: {describe(input, source)}")
    if not index.numel():
        return input.clone()
    flat = METHODS["index_put"](input.reshape(-1), (index.reshape(-1),), source.reshape(-1), accumulate)
    return flat.reshape(input.shape)


@method(only_function=True)
def gradient(
    input: Tensor, *, spacing: float | Sequence[float] = 1, dim: Any = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Derivatives along dims, estimated by central differences (one-sided ones at the ends).

    `spacing` is the distance of neighbours, one number or one a dim; `edge_order` is 1 or 2.
    """
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    axes = [normal_axis(d, input.ndim) for d in dims]
    steps = [spacing] * len(axes) if isinstance(spacing, int | float) else list(spacing)
    if edge_order not in (1, 2) or len(steps) != len(axes):
        raise fail(
            RuntimeError,
            "gradient: edge_order must be 1 or 2 and spacing have one number a dim; got "
            f"{edge_order}, {spacing}",
        )
    found = []
    for axis, h in zip(axes, steps, strict=True):
        x = (input if input.dtype.is_float else input.float()).movedim(axis, -1)
        n = x.shape[-1]
        if n < edge_order + 1:
            raise fail(
                RuntimeError, "torch.gradient expected each dimension size to be at least edge_order+1"
            )
        inner = (x[..., 2:] - x[..., : n - 2]) / (2 * h)
        if edge_order == 1:
            first, last = (x[..., 1] - x[..., 0]) / h, (x[..., n - 1] - x[..., n - 2]) / h
        else:
            first = (-1.5 * x[..., 0] + 2 * x[..., 1] - 0.5 * x[..., 2]) / h
            last = (1.5 * x[..., n - 1] - 2 * x[..., n - 2] + 0.5 * x[..., n - 3]) / h
        edges = [first.unsqueeze(-1), inner, last.unsqueeze(-1)]
        found.append(cat(edges, -1).movedim(-1, axis))
    return tuple(found)
