"""Pieces shared by the vector math: polynomials, range reduction by powers of two, bit tricks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from graphc.backends.llvm.emit_builder import Builder, Operand


@dataclass(frozen=True)
class Format:
    """An IEEE format. `magic` is 1.5 * 2^mantissa: adding it rounds a small number to an integer, whose
    two's complement then stands in the low bits."""

    elem: str
    integer: str
    mantissa: int
    bias: int
    magic: float
    smallest_normal: float
    ln2: tuple[float, float]


F32 = Format("float", "i32", 23, 127, 12582912.0, 2.0**-126, (0.6931471824645996, -1.9046542121259336e-09))
F64 = Format(
    "double", "i64", 52, 1023, 6755399441055744.0, 2.0**-1022, (0.6931471805599453, 2.3190468138462996e-17)
)
LOG2E = 1.4426950408889634


def format_of(x: Operand) -> Format:
    return F32 if x.elem == "float" else F64


def polynomial(b: Builder, x: Operand, coefficients: Sequence[float]) -> Operand:
    """coefficients[0] + coefficients[1]*x + ... by Horner's rule with fused multiply-adds."""
    result = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = b.fma(result, x, c)
    return result


def paired(b: Builder, x: Operand, square: Operand, coefficients: Sequence[float]) -> Operand:
    """The same polynomial as one in the square of x, of pairs: as many multiply-adds for who has the square
    anyway, on a chain of half the length."""
    pairs = []
    for low, high in zip_longest(coefficients[::2], coefficients[1::2]):
        pairs.append(x.like(low) if high is None else b.fma(x, high, low))
    result = pairs.pop()
    for pair in reversed(pairs):
        result = b.fma(result, square, pair)
    return result


def estrin(b: Builder, x: Operand, coefficients: Sequence[float]) -> Operand:
    """The same polynomial by Estrin's scheme: a shorter chain for many coefficients."""
    terms = [x.like(c) for c in coefficients]
    power = x
    while len(terms) > 1:
        pairs = [b.fma(terms[i + 1], power, terms[i]) for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[len(pairs) * 2 :]
        if len(terms) > 1:
            power = power * power
    return terms[0]


def fabs(b: Builder, x: Operand) -> Operand:
    return b.intrinsic("fabs", x)


def copysign(b: Builder, magnitude: Operand, sign: Operand) -> Operand:
    return b.intrinsic("copysign", magnitude, sign)


def at_least(b: Builder, low: float, x: Operand) -> Operand:
    """max(low, x); NaN stays NaN (one instruction: the second operand wins when unordered)."""
    bound = x.like(low)
    return b.select(b.compare("ogt", bound, x), bound, x)


def at_most(b: Builder, high: float, x: Operand) -> Operand:
    """min(high, x); NaN stays NaN."""
    bound = x.like(high)
    return b.select(b.compare("olt", bound, x), bound, x)


def bits_of(b: Builder, x: Operand) -> Operand:
    return b.cast("bitcast", x, format_of(x).integer)


def from_bits(b: Builder, x: Operand) -> Operand:
    return b.cast("bitcast", x, "float" if x.elem == "i32" else "double")


def round_to_integer(b: Builder, x: Operand, scale: float) -> tuple[Operand, Operand]:
    """round(x * scale) as a float and as an integer, for |x * scale| < 2^(mantissa - 1)."""
    f = format_of(x)
    shifted = b.fma(x, scale, f.magic)
    return shifted - f.magic, bits_of(b, shifted) - _magic_bits(f)


def _magic_bits(f: Format) -> int:
    return ((f.bias + f.mantissa) << f.mantissa) | (1 << (f.mantissa - 1))


def power_of_two(b: Builder, n: Operand) -> Operand:
    """2^n as a float, for an integer n in the normal exponent range."""
    f = F32 if n.elem == "i32" else F64
    return from_bits(b, (n + f.bias) << f.mantissa)


def scale_by_power(b: Builder, x: Operand, n: Operand) -> Operand:
    """x * 2^n in two steps, so that results may overflow or be denormal; |n| < 2 * bias."""
    if b.avx512:
        power = n if n.elem == "i32" else b.cast("trunc", n, "i32")
        kind = f"v{x.lanes}" if x.lanes else ""
        bits = "f32" if x.elem == "float" else "f64"
        return b.call(f"llvm.ldexp.{kind}{bits}.{kind}i32", x.elem, x.lanes, [x, power])
    half = b.binary("ashr", n, 1)
    return x * power_of_two(b, half) * power_of_two(b, n - half)


def split_exponent(b: Builder, x: Operand) -> tuple[Operand, Operand]:
    """(m, e) with x = m * 2^e and m in [sqrt(1/2), sqrt(2)), for positive finite x; e is a float."""
    f = format_of(x)
    tiny = x < f.smallest_normal
    lifted = b.select(tiny, x * 2.0 ** (f.mantissa + 1), x)
    bits = bits_of(b, lifted)
    low = 0x3F3504F3 if f is F32 else 0x3FE6A09E667F3BCD  # sqrt(1/2)
    steps = b.binary("ashr", bits - low, f.mantissa)
    m = from_bits(b, bits - (steps << f.mantissa))
    e = b.cast("sitofp", steps, f.elem)
    return m, b.select(tiny, e - (f.mantissa + 1.0), e)
