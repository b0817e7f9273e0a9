"""pow of floats and integers, and the remainder with the divisor's sign."""

from __future__ import annotations

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_core import (
    F32,
    at_least,
    at_most,
    bits_of,
    copysign,
    estrin,
    fabs,
    format_of,
    polynomial,
    power_of_two,
    round_to_integer,
    split_exponent,
)
from graphc.backends.llvm.math_exp import exp_sum

INFINITY = float("inf")

# float32 goes through double: 2^r on |r| <= 1/2, and log2((1+s)/(1-s)) / s in s^2 on [sqrt(1/2), sqrt(2)]
EXP2 = (0.999999999959497, 0.6931471805568274, 0.24022651214120053, 0.05550410906373737,
        0.009618025530398209, 0.0013333478409865399, 0.00015469755744925822,
        1.5303721130801367e-05)  # fmt: skip
LOG2 = (2.88539008177785, 0.9617966941132127, 0.5770779423594591, 0.412209256786155, 0.3199053739227617,
        0.2829066165906811)  # fmt: skip
# float64: (2 atanh(s) - 2s - 2/3 s^3) / s^5 in s^2
LOG_TAIL = (0.4, 0.2857142857142937, 0.22222222221652765, 0.18181818336099848, 0.1538459488700718,
            0.1333480879881234, 0.11706126464563398, 0.11724327060846747)  # fmt: skip
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def power(b: Builder, x: Operand, y: Operand) -> Operand:
    """x to the y, with the special cases of IEEE 754 (C's pow)."""
    size = fabs(b, x)
    result = _power32(b, size, y) if format_of(x) is F32 else _power64(b, size, y)
    return _power_specials(b, x, y, size, result)


def _power32(b: Builder, x: Operand, y: Operand) -> Operand:
    """|x|^y for finite positive |x|, in double precision throughout."""
    wide, exponent = b.cast("fpext", x, "double"), b.cast("fpext", y, "double")
    m, e = split_exponent(b, wide)
    s = (m - 1.0) / (m + 1.0)
    logarithm = b.fma(polynomial(b, s * s, LOG2), s, e)
    product = at_least(b, -1000.0, at_most(b, 1000.0, exponent * logarithm))
    rounded, n = round_to_integer(b, product, 1.0)
    value = estrin(b, product - rounded, EXP2) * power_of_two(b, n)
    return b.cast("fptrunc", value, "float")


def _power64(b: Builder, x: Operand, y: Operand) -> Operand:
    """|x|^y for finite positive |x|: the logarithm as a sum of two doubles, good to about 2^-65."""
    high, low = _long_log(b, x)
    product = y * high
    rest = b.fma(y, low, b.fma(y, high, -product))
    rest = b.select(fabs(b, product) < 1e4, rest, 0.0)  # inf - inf
    return exp_sum(b, product, rest)


def _long_log(b: Builder, x: Operand) -> tuple[Operand, Operand]:
    """log(x) as high + low."""
    ln2_high, ln2_low = format_of(x).ln2
    m, e = split_exponent(b, x)
    top, bottom = m - 1.0, m + 1.0
    bottom_low = m - (bottom - 1.0)
    s = top / bottom
    s_low = b.fma(-s, bottom_low, b.fma(-s, bottom, top)) / bottom
    z = s * s
    z_low = b.fma(s, s, -z) + 2.0 * s * s_low
    cube = s * z
    cube_low = b.fma(s, z, -cube) + (s * z_low + s_low * z)
    third = cube * TWO_THIRDS[0]
    third_low = b.fma(cube, TWO_THIRDS[0], -third) + (cube_low * TWO_THIRDS[0] + cube * TWO_THIRDS[1])
    tail = cube * z * estrin(b, z, LOG_TAIL)
    twice = s * 2.0
    mantissa = twice + third
    mantissa_low = ((twice - mantissa) + third) + (tail + third_low + s_low * 2.0)
    whole = e * ln2_high
    whole_low = b.fma(e, ln2_low, b.fma(e, ln2_high, -whole))
    total = whole + mantissa
    rest = ((whole - total) + mantissa) + (whole_low + mantissa_low)
    high = total + rest
    return high, (total - high) + rest


def _power_specials(b: Builder, x: Operand, y: Operand, size: Operand, result: Operand) -> Operand:
    grows = y > 0.0
    edge = size.equals(0.0) | size.equals(INFINITY)
    zero = size.equals(0.0) ^ grows  # 0^-y and inf^y are infinite, the others 0
    result = b.select(edge, b.select(zero, x.like(INFINITY), 0.0), result)
    whole = b.intrinsic("floor", y).equals(y)
    half = y * 0.5
    odd = whole & b.compare("une", b.intrinsic("floor", half), half) & (fabs(b, y) < 2.0**53)
    negative = bits_of(b, x) < 0
    result = b.select(negative & odd, -result, result)
    wrong = (x < 0.0) & ~whole & b.compare("une", size, INFINITY)
    result = b.select(wrong, float("nan"), result)
    result = b.select(size.equals(1.0) & fabs(b, y).equals(INFINITY), 1.0, result)
    result = b.select(b.compare("uno", x, y), float("nan"), result)
    return b.select(y.equals(0.0) | x.equals(1.0), 1.0, result)


# ----------------------------------------------------------------- remainder

# |x| mod |y| exactly: double y up to x's size, then subtract while halving it back.
_FMOD = """\
define internal void @graphc_fmod_{elem}(ptr %x, ptr %y, ptr %r, i64 %n) noinline nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %px = getelementptr {elem}, ptr %x, i64 %i
  %py = getelementptr {elem}, ptr %y, i64 %i
  %a = load {elem}, ptr %px
  %d = load {elem}, ptr %py
  br label %up
up:
  %t = phi {elem} [ %d, %loop ], [ %t2, %up ]
  %t2 = fadd {elem} %t, %t
  %fits = fcmp ole {elem} %t2, %a
  br i1 %fits, label %up, label %down
down:
  %s = phi {elem} [ %t, %up ], [ %half, %down ]
  %rest = phi {elem} [ %a, %up ], [ %less, %down ]
  %difference = fsub {elem} %rest, %s
  %enough = fcmp oge {elem} %rest, %s
  %less = select i1 %enough, {elem} %difference, {elem} %rest
  %half = fmul {elem} %s, {one_half}
  %last = fcmp ole {elem} %s, %d
  br i1 %last, label %done, label %down
done:
  %pr = getelementptr {elem}, ptr %r, i64 %i
  store {elem} %less, ptr %pr
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %finish
finish:
  ret void
}}"""


def remainder(b: Builder, x: Operand, y: Operand) -> Operand:
    """x - floor(x / y) * y without rounding error, with the sign of y (Python's and NumPy's)."""
    f = format_of(x)
    a, d = fabs(b, x), fabs(b, y)
    quotient = a / d
    rest = b.fma(-b.intrinsic("trunc", quotient), d, a)
    rest = b.select(rest < 0.0, rest + d, rest)  # the quotient may have been rounded up
    rest = b.select(rest >= d, rest - d, rest)
    far = (quotient >= 2.0 ** (f.mantissa - 1)) & (a < INFINITY) & (d > 0.0)
    some = b.call(f"llvm.vector.reduce.or.v{x.lanes}i1", "i1", 0, [far]) if x.lanes else far

    def slow() -> list[Operand]:
        name = f"graphc_fmod_{f.elem}"
        half = b.constant(f.elem, 0.5).text
        b.helpers[name] = _FMOD.format(elem=f.elem, one_half=half)
        exact = b.lane_by_lane(name, [b.select(far, a, 1.0), b.select(far, d, 1.0)], [f.elem])[0]
        return [b.select(far, exact, rest)]

    rest = b.unlikely(some, slow, [rest])[0]
    rest = b.select(d.equals(INFINITY) & (a < INFINITY), a, rest)
    signed = copysign(b, rest, x)
    other = b.compare("slt", bits_of(b, x) ^ bits_of(b, y), 0)
    moved = b.select(other, signed + y, signed)
    return b.select(rest.equals(0.0), copysign(b, rest, y), moved)


# ------------------------------------------------------------- integer power

_INTEGER_POWER = """\
define internal void @graphc_power_{elem}(ptr %x, ptr %y, ptr %r, i64 %n) noinline nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %px = getelementptr {elem}, ptr %x, i64 %i
  %py = getelementptr {elem}, ptr %y, i64 %i
  %base = load {elem}, ptr %px
  %exponent = load {elem}, ptr %py
  br label %square
square:
  %b = phi {elem} [ %base, %loop ], [ %b2, %square ]
  %e = phi {elem} [ %exponent, %loop ], [ %e2, %square ]
  %p = phi {elem} [ 1, %loop ], [ %p2, %square ]
  %low = and {elem} %e, 1
  %odd = icmp ne {elem} %low, 0
  %product = mul {elem} %p, %b
  %p2 = select i1 %odd, {elem} %product, {elem} %p
  %b2 = mul {elem} %b, %b
  %e2 = lshr {elem} %e, 1
  %again = icmp ne {elem} %e2, 0
  br i1 %again, label %square, label %done
done:
  %pr = getelementptr {elem}, ptr %r, i64 %i
  store {elem} %p2, ptr %pr
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %finish
finish:
  ret void
}}"""


def integer_power(b: Builder, x: Operand, y: Operand, signed: bool) -> Operand:
    """x to the y, wrapping; a negative exponent gives 1/x rounded toward zero (0 but for 1 and -1)."""
    name = f"graphc_power_{x.elem}"
    b.helpers[name] = _INTEGER_POWER.format(elem=x.elem)
    result = b.lane_by_lane(name, [x, y], [x.elem])[0]
    if not signed:
        return result
    unit = b.compare("ult", x + 1, 3) & b.compare("ne", x, 0)  # 1 or -1
    parity = b.select(b.compare("eq", y & 1, 0), x * x, x)
    return b.select(y < 0, b.select(unit, parity, 0), result)
