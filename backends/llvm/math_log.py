"""log, log1p, log2, asinh, acosh, atanh."""

from __future__ import annotations

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_core import (
    F32,
    bits_of,
    copysign,
    estrin,
    fabs,
    format_of,
    polynomial,
    power_of_two,
    split_exponent,
)

# (log(1+f) - f + f^2/2) / f^3 on [sqrt(1/2)-1, sqrt(2)-1]
LOG32 = (0.3333333134651184, -0.2499999701976776, 0.20000715553760529, -0.1666780263185501,
         0.14249058067798615, -0.12425687164068222, 0.11685419827699661, -0.11479733884334564,
         0.06971611827611923)  # fmt: skip
# (2 atanh(s) - 2s) / s^3 in s^2, with s = f / (2 + f)
LOG64 = (0.6666666666666666, 0.40000000000000885, 0.28571428570799784, 0.22222222392581045,
         0.18181795547521137, 0.15386244737621665, 0.13268638369266825, 0.13088034850927555)  # fmt: skip
LOG2E_LESS_1 = 0.4426950408889634


def _log1p_reduced(b: Builder, f: Operand) -> tuple[Operand, Operand]:
    """log(1+f) as f + rest, for 1+f in [sqrt(1/2), sqrt(2)]."""
    square = f * f
    if format_of(f) is F32:
        cubic = polynomial(b, f, LOG32) * f
        return f, b.fma(cubic, square, square * -0.5)
    s = f / (f + 2.0)
    z = s * s
    half = square * 0.5
    # log(1+f) = f - (f^2/2 - s * (f^2/2 + z R(z)))
    inner = b.fma(estrin(b, z, LOG64), z, half)
    return f, b.fma(s, inner, -half)


def _specials(b: Builder, x: Operand, result: Operand) -> Operand:
    """log's values at 0, infinity, negative numbers and NaN."""
    infinity = float("inf")
    result = b.select(b.compare("olt", x, infinity), result, x)  # inf and NaN give themselves
    result = b.select(x < 0.0, float("nan"), result)
    return b.select(x.equals(0.0), -infinity, result)


def log(b: Builder, x: Operand) -> Operand:
    high, low = format_of(x).ln2
    m, e = split_exponent(b, x)
    f, rest = _log1p_reduced(b, m - 1.0)
    return _specials(b, x, b.fma(e, high, f + b.fma(e, low, rest)))


def log2(b: Builder, x: Operand) -> Operand:
    m, e = split_exponent(b, x)
    f, rest = _log1p_reduced(b, m - 1.0)
    # (f + rest) * log2(e), the 1 in log2(e) = 1.44... taken apart so that it costs no rounding
    product = b.fma(rest, LOG2E_LESS_1, b.fma(f, LOG2E_LESS_1, rest))
    return _specials(b, x, e + (f + product))


def log1p(b: Builder, x: Operand) -> Operand:
    fmt = format_of(x)
    high, low = fmt.ln2
    one = x + 1.0
    # 1 + x = 2^e (1 + f): scale x and 1 separately, so that nothing of a small x is lost
    origin = 0x3F3504F3 if fmt is F32 else 0x3FE6A09E667F3BCD
    steps = b.binary("ashr", bits_of(b, one) - origin, fmt.mantissa)
    scale = power_of_two(b, 2 - steps) * 0.25  # may be denormal, for the largest x
    f = b.fma(x, scale, scale - 1.0)
    e = b.cast("sitofp", steps, fmt.elem)
    f, rest = _log1p_reduced(b, f)
    result = b.fma(e, high, f + b.fma(e, low, rest))
    result = b.select(b.compare("olt", x, float("inf")), result, x)
    result = b.select(x < -1.0, float("nan"), result)
    result = b.select(x.equals(-1.0), -float("inf"), result)
    return b.select(x.equals(0.0), x, result)


def atanh(b: Builder, x: Operand) -> Operand:
    y = fabs(b, x)
    return copysign(b, log1p(b, (y + y) / (1.0 - y)) * 0.5, x)


def asinh(b: Builder, x: Operand) -> Operand:
    y = fabs(b, x)
    huge = y > 1e9
    square = y * y
    near = log1p(b, y + square / (b.intrinsic("sqrt", square + 1.0) + 1.0))
    far = log(b, y) + 0.6931471805599453
    return copysign(b, b.select(huge, far, near), x)


def acosh(b: Builder, x: Operand) -> Operand:
    t = x - 1.0
    near = log1p(b, t + b.intrinsic("sqrt", t * (x + 1.0)))
    far = log(b, x) + 0.6931471805599453
    return b.select(x < 1.0, float("nan"), b.select(x > 1e9, far, near))
