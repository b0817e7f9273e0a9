"""The error function."""

from __future__ import annotations

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_core import F32, at_most, copysign, fabs, format_of, polynomial
from graphc.backends.llvm.math_exp import exp

# float32: erf(x)/x - 1 in -x^2 below 475/512; -erfc(x) exp(x^2) in x - 1 above
SMALL32 = (1.28379166e-1, 3.76125336e-1, 1.12819925e-1, 2.67681349e-2, 4.99119423e-3, 5.96761703e-4)
LARGE32 = (-0.42758357524871826, 0.27321234345436096, -0.15437108278274536, 0.07917123287916183,
           -0.03719411790370941, 0.015562016516923904, -0.005253135692328215, 0.0011871044989675283,
           -0.0001262767327716574)  # fmt: skip
# float64: erf(x)/x - 1 in -x^2 below 1; erfc(x) exp(x^2) in t = 2 / (2 + x) above
SMALL64 = (0.1283791670955126, 0.37612638903183754, 0.1128379167095512, 0.02686617064512984,
           0.0052239776254232985, 0.000854832702193483, 0.00012055332902888736, 1.4925647567519332e-05,
           1.6462045441468418e-06, 1.6364642158167616e-07, 1.4792401209404813e-08, 1.216456005728345e-09,
           8.709045129053106e-11, 4.230945824295338e-12)  # fmt: skip
LARGE64 = (8.06996312173578e-09, 0.2820945178902828, 0.28209869445000274, 0.24680601403241229,
           0.1763377096315686, 0.08498545342453037, -0.017925994188306697, 0.02500687127866638,
           -0.39397409627370195, 1.034546669173998, -2.3090008742701658, 4.01802907916358,
           -4.786255479495366, 3.7799880036249918, -1.91802039744989, 0.5722101913167975,
           -0.07692728720176453)  # fmt: skip


def erf(b: Builder, x: Operand) -> Operand:
    """Small arguments by a series, large ones by exp(-x^2), which is the same code as that expression's:
    where the derivative is computed beside (GELU's gradient) LLVM has it once."""
    single = format_of(x) is F32
    size, square = fabs(b, x), -(x * x)
    small = b.fma(polynomial(b, square, SMALL32 if single else SMALL64), x, x)
    tail = exp(b, square)
    if single:
        large = b.fma(polynomial(b, at_most(b, 3.0, size - 1.0), LARGE32), tail, 1.0)
        limit = 475.0 / 512.0
    else:
        t = 2.0 / (at_most(b, 6.2, size) + 2.0)
        large = 1.0 - polynomial(b, t, LARGE64) * tail
        limit = 1.0
    return b.select(size < limit, small, copysign(b, large, x))
