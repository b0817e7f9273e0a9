"""Window functions of signal processing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import arange, ones
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.placement import placed
from graphc.frontend.functions.special import i0
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType


def _window(
    name: str,
    length: int,
    periodic: bool,
    dtype: DType | None,
    requires_grad: bool,
    build: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """`build(positions, last)` over 0 ... length - 1; a periodic window is that of one more, cut."""
    found = dtype or get_default_dtype()
    if not found.is_float:
        raise fail(RuntimeError, f"{name}_window expects floating point dtypes, got: {found}")
    if length < 0:
        raise fail(RuntimeError, f"{name}_window requires non-negative window_length, got {length}")
    if length <= 1:
        made = ones(length, dtype=found)
    else:
        last = length if periodic else length - 1
        made = build(arange(length, dtype=found), last)
    return made.detach().requires_grad_() if requires_grad else made


def _cosines(*weights: float) -> Callable[[Tensor, int], Tensor]:
    """Sums of cosines of 0, 1, 2, ... periods."""

    def build(n: Tensor, last: int) -> Tensor:
        total: Any = weights[0]
        for k, weight in enumerate(weights[1:], 1):
            total = total + weight * (n * (2 * math.pi * k / last)).cos()
        return total

    return build


@method(only_function=True)
@placed
def hann_window(
    window_length: int, periodic: bool = True, *, dtype: DType | None = None, requires_grad: bool = False
) -> Tensor:
    """The Hann window, (1 - cos(2 pi n / N)) / 2."""
    return _window("hann", window_length, periodic, dtype, requires_grad, _cosines(0.5, -0.5))


@method(only_function=True)
@placed
def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The Hamming window, alpha - beta cos(2 pi n / N)."""
    return _window("hamming", window_length, periodic, dtype, requires_grad, _cosines(alpha, -beta))


@method(only_function=True)
@placed
def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: DType | None = None, requires_grad: bool = False
) -> Tensor:
    """The Blackman window, 0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N)."""
    return _window("blackman", window_length, periodic, dtype, requires_grad, _cosines(0.42, -0.5, 0.08))


@method(only_function=True)
@placed
def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: DType | None = None, requires_grad: bool = False
) -> Tensor:
    """The Bartlett window, a triangle."""
    return _window(
        "bartlett",
        window_length,
        periodic,
        dtype,
        requires_grad,
        lambda n, last: 1 - (n * (2 / last) - 1).abs(),
    )


@method(only_function=True)
@placed
def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The Kaiser window with the shape `beta`."""

    def build(n: Tensor, last: int) -> Tensor:
        x = n * (2 / last) - 1
        return i0(beta * (1 - x * x).clamp(min=0).sqrt()) / i0(n.new_tensor(float(beta)))

    return _window("kaiser", window_length, periodic, dtype, requires_grad, build)
