"""sin, cos, tan and their inverses.

Arguments are reduced to [-pi/4, pi/4] by subtracting multiples of pi/2, whose bits are split over three
numbers of the format (fused multiply-adds make each step exact or once rounded). Groups that hold an
argument too large for that branch to Payne and Hanek's method: the product with the bits of 2/pi that matter,
in integers.
"""

from __future__ import annotations

import math

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_core import (
    F32,
    bits_of,
    copysign,
    fabs,
    format_of,
    from_bits,
    polynomial,
    round_to_integer,
)

# (sin(r) - r) / r^3 and (cos(r) - 1 + r^2/2) / r^4 in r^2 on |r| <= pi/4
SIN32 = (-0.166666641831398, 0.008332724682986736, -0.00019582831009756774)
COS32 = (0.0416666641831398, -0.0013888279208913445, 2.4542870960431173e-05)
SIN64 = (-0.16666666666666666, 0.008333333333333331, -0.00019841269841264567, 2.7557319218954762e-06,
         -2.505210610025599e-08, 1.6058510875319195e-10, -7.585486485235938e-13)  # fmt: skip
COS64 = (0.041666666666666664, -0.0013888888888888887, 2.4801587301584367e-05, -2.75573192211891e-07,
         2.0876755717584403e-09, -1.1470449354466773e-11, 4.745198807202876e-14)  # fmt: skip
# (atan(x) - x) / x^3 in x^2 on |x| <= tan(pi/8), (asin(x) - x) / x^3 in x^2 on |x| <= 1/2
ATAN32 = (-0.3333333134651184, 0.19999539852142334, -0.14263944327831268, 0.10743605345487595,
          -0.06451509147882462)  # fmt: skip
ATAN64 = (-0.3333333333333333, 0.19999999999999804, -0.14285714285659729, 0.11111111105145725,
          -0.09090908753017178, 0.07692296361048218, -0.06666424634599337, 0.05878926110528101,
          -0.052304330074828924, 0.0455149623749493, -0.034568068014968874, 0.016282993238924487)  # fmt: skip
ASIN32 = (0.16666673123836517, 0.07498852908611298, 0.04500189423561096, 0.026550663635134697,
          0.03809396177530289)  # fmt: skip
ASIN64 = (0.1666666666666665, 0.07500000000020869, 0.04464285710323956, 0.030381947379559158,
          0.022372047201808885, 0.01735526856395352, 0.013929545950485803, 0.011876344296279416,
          0.0077986264075622334, 0.01604912458494932, -0.010773195325585556,
          0.028187667142318098)  # fmt: skip
HALF_PI32 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
HALF_PI64 = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)

# -------------------------------------------------------------- reduction

TWO_OVER_PI = (
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e00649"
    "2eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8b"
    "bdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5"
    "f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361da9e391615ee61b08"
)
_WORDS = [0] + [int(TWO_OVER_PI[i : i + 16], 16) for i in range(0, len(TWO_OVER_PI), 16)]

# For x = M 2^E the bits of 2/pi before number E-1 only add whole turns. 192 bits from there on times M leave
# the position in the turn with 2 bits before the point and 190 after it.
_TABLE = """\
@graphc_two_over_pi = private unnamed_addr constant [{count} x i64] [{words}], align 64"""
_REDUCE = """\
define internal void @graphc_reduce_{elem}(ptr %x, ptr %r, ptr %q, i64 %n) noinline nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %px = getelementptr {elem}, ptr %x, i64 %i
  %xe = load {elem}, ptr %px
  %xd = {widen}
  %bits = bitcast double %xd to i64
  %field = lshr i64 %bits, 52
  %exponent = and i64 %field, 2047
  %fraction = and i64 %bits, 4503599627370495
  %m = or i64 %fraction, 4503599627370496
  %enough = call i64 @llvm.smax.i64(i64 %exponent, i64 1013)
  %finite = call i64 @llvm.smin.i64(i64 %enough, i64 2046)
  %skip = sub i64 %finite, 1013
  %word = lshr i64 %skip, 6
  %shift = and i64 %skip, 63
  %pw = getelementptr i64, ptr @graphc_two_over_pi, i64 %word
  %w0 = load i64, ptr %pw
  %pw1 = getelementptr i64, ptr %pw, i64 1
  %w1 = load i64, ptr %pw1
  %pw2 = getelementptr i64, ptr %pw, i64 2
  %w2 = load i64, ptr %pw2
  %pw3 = getelementptr i64, ptr %pw, i64 3
  %w3 = load i64, ptr %pw3
  %a = call i64 @llvm.fshl.i64(i64 %w0, i64 %w1, i64 %shift)
  %b = call i64 @llvm.fshl.i64(i64 %w1, i64 %w2, i64 %shift)
  %c = call i64 @llvm.fshl.i64(i64 %w2, i64 %w3, i64 %shift)
  %a192 = zext i64 %a to i192
  %b192 = zext i64 %b to i192
  %c192 = zext i64 %c to i192
  %ahigh = shl i192 %a192, 128
  %bhigh = shl i192 %b192, 64
  %ab = or i192 %ahigh, %bhigh
  %window = or i192 %ab, %c192
  %m192 = zext i64 %m to i192
  %turn = mul i192 %window, %m192
  %half = shl i192 1, 189
  %rounded = add i192 %turn, %half
  %n192 = lshr i192 %rounded, 190
  %whole = shl i192 %n192, 190
  %rest = sub i192 %turn, %whole
  %below = icmp slt i192 %rest, 0
  %minus = sub i192 0, %rest
  %size = select i1 %below, i192 %minus, i192 %rest
  %zeros = call i192 @llvm.ctlz.i192(i192 %size, i1 false)
  %few = call i192 @llvm.umin.i192(i192 %zeros, i192 191)
  %lead = shl i192 %size, %few
  %top192 = lshr i192 %lead, 128
  %top = trunc i192 %top192 to i64
  %mantissa = uitofp i64 %top to double
  %z = trunc i192 %few to i64
  %e = sub i64 961, %z
  %ebits = shl i64 %e, 52
  %scale = bitcast i64 %ebits to double
  %quarter = fmul double %mantissa, %scale
  %angle = fmul double %quarter, 0x3FF921FB54442D18
  %sign = bitcast double %xd to i64
  %xneg = icmp slt i64 %sign, 0
  %flip = xor i1 %below, %xneg
  %nangle = fneg double %angle
  %signed = select i1 %flip, double %nangle, double %angle
  %n64 = trunc i192 %n192 to i64
  %nn = sub i64 0, %n64
  %quadrant = select i1 %xneg, i64 %nn, i64 %n64
  %pr = getelementptr {elem}, ptr %r, i64 %i
  {narrow}
  store {elem} %re, ptr %pr
  %pq = getelementptr {integer}, ptr %q, i64 %i
  {trunc}
  store {integer} %qe, ptr %pq
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}"""
_USED = (
    "i64 @llvm.smax.i64(i64, i64)",
    "i64 @llvm.smin.i64(i64, i64)",
    "i64 @llvm.fshl.i64(i64, i64, i64)",
    "i192 @llvm.ctlz.i192(i192, i1)",
    "i192 @llvm.umin.i192(i192, i192)",
)


def _reduce(b: Builder, x: Operand) -> tuple[Operand, Operand]:
    """(r, n) with x = r + n pi/2 up to whole turns, |r| <= pi/4 or a hair more."""
    f = format_of(x)
    first, second, third = HALF_PI32 if f is F32 else HALF_PI64
    rounded, n = round_to_integer(b, x, 2.0 / math.pi)
    r = b.fma(rounded, -third, b.fma(rounded, -second, b.fma(rounded, -first, x)))
    huge = fabs(b, x) > (1e5 if f is F32 else 1e9)
    some = b.call(f"llvm.vector.reduce.or.v{x.lanes}i1", "i1", 0, [huge]) if x.lanes else huge
    return tuple(b.unlikely(some, lambda: _reduce_huge(b, x, huge, r, n), (r, n)))  # type: ignore[return-value]


def _reduce_huge(b: Builder, x: Operand, huge: Operand, r: Operand, n: Operand) -> tuple[Operand, Operand]:
    """The lanes of x that are huge by Payne and Hanek's method, the others as they are."""
    f = format_of(x)
    name = f"graphc_reduce_{f.elem}"
    single = f is F32
    words = ", ".join(f"i64 {w - (1 << 64) if w >> 63 else w}" for w in _WORDS)
    b.helpers["graphc_two_over_pi"] = _TABLE.format(count=len(_WORDS), words=words)  # one for both formats
    b.helpers[name] = _REDUCE.format(
        elem=f.elem,
        integer=f.integer,
        widen="fpext float %xe to double" if single else "fadd double %xe, -0.0",
        narrow="%re = fptrunc double %signed to float" if single else "%re = fadd double %signed, -0.0",
        trunc="%qe = trunc i64 %quadrant to i32" if single else "%qe = add i64 %quadrant, 0",
    )
    for used in _USED:
        b.declare(used)
    safe = b.select(huge, x, 1e30)
    got_r, got_n = b.lane_by_lane(name, [safe], [f.elem, f.integer])
    got_r = b.select(fabs(b, x) < float("inf"), got_r, float("nan"))
    return b.select(huge, got_r, r), b.select(huge, got_n, n)


def _sin_cos(b: Builder, r: Operand) -> tuple[Operand, Operand]:
    """sin and cos on [-pi/4, pi/4]."""
    single = format_of(r) is F32
    z = r * r
    sine = b.fma(polynomial(b, z, SIN32 if single else SIN64) * z, r, r)
    cosine = b.fma(polynomial(b, z, COS32 if single else COS64), z * z, b.fma(z, -0.5, 1.0))
    return sine, cosine


def _quadrant(b: Builder, x: Operand, turn: int) -> Operand:
    r, n = _reduce(b, x)
    sine, cosine = _sin_cos(b, r)
    n = n + turn if turn else n
    odd = b.compare("ne", n & 1, 0)
    value = b.select(odd, cosine, sine)
    width = 32 if n.elem == "i32" else 64
    return from_bits(b, bits_of(b, value) ^ ((n & 2) << (width - 2)))


def sin(b: Builder, x: Operand) -> Operand:
    return b.select(x.equals(0.0), x, _quadrant(b, x, 0))


def cos(b: Builder, x: Operand) -> Operand:
    return _quadrant(b, x, 1)


def tan(b: Builder, x: Operand) -> Operand:
    r, n = _reduce(b, x)
    sine, cosine = _sin_cos(b, r)
    odd = b.compare("ne", n & 1, 0)
    result = b.select(odd, -cosine, sine) / b.select(odd, sine, cosine)
    return b.select(x.equals(0.0), x, result)


# -------------------------------------------------------------- inverses


def asin(b: Builder, x: Operand) -> Operand:
    half, low, _ = HALF_PI32 if format_of(x) is F32 else HALF_PI64
    y = fabs(b, x)
    near = _asin_reduced(b, x, x * x)
    z = b.fma(y, -0.5, 0.5)
    root = b.intrinsic("sqrt", z)
    far = half - (_asin_reduced(b, root, z) * 2.0 - low)
    return b.select(y < 0.5, near, copysign(b, far, x))


def acos(b: Builder, x: Operand) -> Operand:
    half, low, _ = HALF_PI32 if format_of(x) is F32 else HALF_PI64
    y = fabs(b, x)
    near = half - (_asin_reduced(b, x, x * x) - low)
    z = b.fma(y, -0.5, 0.5)
    root = b.intrinsic("sqrt", z)
    far = _asin_reduced(b, root, z) * 2.0
    far = b.select(x < 0.0, 2.0 * half - (far - 2.0 * low), far)
    return b.select(y < 0.5, near, far)


def _asin_reduced(b: Builder, x: Operand, square: Operand) -> Operand:
    single = format_of(x) is F32
    return b.fma(polynomial(b, square, ASIN32 if single else ASIN64) * square, x, x)


def atan(b: Builder, x: Operand) -> Operand:
    return copysign(b, _angle(b, fabs(b, x), x.like(1.0)), x)


def atan2(b: Builder, y: Operand, x: Operand) -> Operand:
    half, low, _ = HALF_PI32 if format_of(x) is F32 else HALF_PI64
    angle = _angle(b, fabs(b, y), fabs(b, x))
    left = bits_of(b, x) < 0  # -0.0 too
    angle = b.select(left, 2.0 * half - (angle - 2.0 * low), angle)
    angle = copysign(b, angle, y)
    return b.select(b.compare("uno", x, y), float("nan"), angle)


def _angle(b: Builder, y: Operand, x: Operand) -> Operand:
    """atan(y / x) for y, x >= 0, in [0, pi/2]; 0 at (0, 0)."""
    single = format_of(x) is F32
    half, low, _ = HALF_PI32 if single else HALF_PI64
    steep = y > x
    big, small = b.select(steep, y, x), b.select(steep, x, y)
    shrink = b.select(big > (1e37 if single else 1e307), x.like(0.125), 1.0)  # big + small must not overflow
    big, small = big * shrink, small * shrink
    equal = small.equals(big)
    middle = (small > big * math.tan(math.pi / 8)) | equal  # inf/inf is 1
    ratio = b.select(middle, small - big, small) / b.select(middle, small + big, big)
    ratio = b.select(equal, 0.0, ratio)
    middle = middle & b.compare("une", big, 0.0)
    square = ratio * ratio
    angle = b.fma(polynomial(b, square, ATAN32 if single else ATAN64) * square, ratio, ratio)
    angle = b.select(middle, (angle + 0.5 * low) + 0.5 * half, angle)
    angle = b.select(steep, half - (angle - low), angle)
    return b.select(b.compare("uno", x, y), float("nan"), angle)
