"""exp, expm1, tanh, sigmoid, sinh, cosh."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_core import (
    F32,
    LOG2E,
    at_least,
    at_most,
    copysign,
    estrin,
    fabs,
    format_of,
    paired,
    polynomial,
    power_of_two,
    round_to_integer,
    scale_by_power,
)

# (e^r - 1 - r) / r^2 (the shorter to 0.12 ulp of e^r - 1) and (e^r - 1 - r - r^2/2) / r^3 on |r| <= ln(2)/2
EXP32 = (0.5, 0.1666666716337204, 0.04166646674275398, 0.00833331048488617, 0.0013933649752289057,
         0.00019890991097781807)  # fmt: skip
SHORT32 = (0.5, 0.1666654795408249, 0.04166683182120323, 0.008366115391254425, 0.0013900178018957376)
DOUBLED32 = tuple([c * 2.0 ** (k + 1) for k, c in enumerate(EXP32)])  # ((e^2r - 1) / 2 - r) / r^2
TANH32_LARGE = 0.5493  # tanh is one half there
EXP64 = (0.16666666666666669, 0.041666666666666664, 0.008333333333330062, 0.0013888888888886552,
         0.00019841269863053618, 2.4801587317144498e-05, 2.7557268459997064e-06, 2.755728296954995e-07,
         2.510038549551032e-08, 2.0911236630261545e-09)  # fmt: skip
# (tanh(x) - x) / x^3 (float64) and (sinh(x) - x) / x^3 in x^2
TANH64 = (-0.3333333333333333, 0.13333333333332714, -0.053968253967434016, 0.021869488493666944,
          -0.008863234397814355, 0.003592110378689024, -0.001455661830100716, 0.0005889360520074057,
          -0.0002346347410887237, 8.511313685577672e-05, -2.060276537636634e-05)  # fmt: skip
SINH32 = (0.1666666716337204, 0.008333339355885983, 0.00019838102161884308, 2.806280235745362e-06)
SINH64 = (0.16666666666666666, 0.008333333333333333, 0.00019841269841269773, 2.755731922404034e-06,
          2.505210836405804e-08, 1.6059048396350562e-10, 7.646625361656657e-13,
          2.8445264169895285e-15)  # fmt: skip


def _reduce(b: Builder, x: Operand) -> tuple[Operand, Operand]:
    """(n, r) with x = n ln 2 + r, |r| <= ln(2)/2 (n an integer operand)."""
    high, low = format_of(x).ln2
    rounded, n = round_to_integer(b, x, LOG2E)
    return n, b.fma(rounded, -low, b.fma(rounded, -high, x))


def _expm1_reduced(b: Builder, r: Operand, single: Sequence[float] = EXP32) -> Operand:
    """e^r - 1 for |r| <= ln(2)/2; `single` are the coefficients for float32."""
    if format_of(r) is F32:
        return b.fma(polynomial(b, r, single), r * r, r)
    square = r * r
    tail = b.fma(estrin(b, r, EXP64), square * r, square * 0.5)
    return tail + r


def exp(b: Builder, x: Operand) -> Operand:
    single = format_of(x) is F32
    x = at_least(b, -105.0 if single else -746.0, at_most(b, 89.0 if single else 710.0, x))
    n, r = _reduce(b, x)
    return scale_by_power(b, _expm1_reduced(b, r) + 1.0, n)


def exp_sum(b: Builder, x: Operand, rest: Operand) -> Operand:
    """exp(x + rest) for a rest far below x's last digit or so."""
    x = at_least(b, -746.0, at_most(b, 710.0, x))
    n, r = _reduce(b, x)
    return scale_by_power(b, _expm1_reduced(b, r + rest) + 1.0, n)


def exp_finite(b: Builder, x: Operand, single: Sequence[float] = EXP32) -> Operand:
    """exp for |x| so small that neither overflow nor denormals occur (callers clamp)."""
    n, r = _reduce(b, x)
    return b.fma(_expm1_reduced(b, r, single), power_of_two(b, n), power_of_two(b, n))


def expm1(b: Builder, x: Operand) -> Operand:
    single = format_of(x) is F32
    clamped = at_least(b, -20.0 if single else -40.0, at_most(b, 89.0 if single else 710.0, x))
    n, r = _reduce(b, clamped)
    half = power_of_two(b, n - 1)  # 2^n itself may overflow where the result does not
    result = b.fma(_expm1_reduced(b, r), half, half - 0.5) * 2.0
    return b.select(x.equals(0.0), x, result)  # keeps -0.0


def tanh(b: Builder, x: Operand) -> Operand:
    if format_of(x) is F32:
        return _tanh32(b, x)
    size = fabs(b, x)
    square = x * x
    small = b.fma(polynomial(b, square, TANH64), square * size, size)
    y = at_most(b, 20.0, size)
    large = 1.0 - 2.0 / (exp_finite(b, y + y) + 1.0)
    return copysign(b, b.select(size < 0.55, small, large), x)


def _tanh32(b: Builder, x: Operand) -> Operand:
    """h / (h + 1) with h = (e^2|x| - 1) / 2; for large ones 1 - 1 / (h + 1), which loses nothing near one.

    |x| = n ln(2) / 2 + r in one step: what that loses is n / 32 ulp of e^2|x|, which matters the less to the
    quotient the larger n is.
    """
    size = at_most(b, 10.0, fabs(b, x))
    rounded, n = round_to_integer(b, size, 2.0 * LOG2E)
    r = b.fma(rounded, -0.5 * F32.ln2[0], size)
    power, square = power_of_two(b, n), r * r
    h = b.fma(b.fma(paired(b, r, square, DOUBLED32), square, r), power, b.fma(power, 0.5, -0.5))
    large = size > TANH32_LARGE
    quotient = b.select(large, x.like(1.0), h) / (h + 1.0)
    return copysign(b, b.select(large, 1.0 - quotient, quotient), x)


def sigmoid(b: Builder, x: Operand) -> Operand:
    single = format_of(x) is F32
    n, r = _reduce(b, at_least(b, -105.0 if single else -746.0, -fabs(b, x)))
    e = scale_by_power(b, _expm1_reduced(b, r, SHORT32) + 1.0, n)
    return b.select(x >= 0.0, x.like(1.0), e) / (e + 1.0)


def sinh(b: Builder, x: Operand) -> Operand:
    single = format_of(x) is F32
    square = x * x
    small = b.fma(polynomial(b, square, SINH32 if single else SINH64), square * x, x)
    half = _half_exp(b, fabs(b, x))
    large = copysign(b, half - 0.25 / half, x)
    return b.select(fabs(b, x) < 1.0, small, large)


def cosh(b: Builder, x: Operand) -> Operand:
    half = _half_exp(b, fabs(b, x))
    return half + 0.25 / half


def _half_exp(b: Builder, x: Operand) -> Operand:
    """exp(x) / 2 for x >= 0, overflowing only where that does."""
    single = format_of(x) is F32
    n, r = _reduce(b, at_most(b, 90.0 if single else 711.0, x))
    return scale_by_power(b, _expm1_reduced(b, r) + 1.0, n - 1)
