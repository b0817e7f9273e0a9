"""The error function."""

from __future__ import annotations

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_core import F32, at_most, copysign, fabs, format_of, polynomial
from graphc.backends.llvm.math_exp import SHORT32, exp, exp_finite

# float32: erf(x)/x - 1 in x^2 below 475/512, log(erfc(x)) + x in x above
SMALL32 = (1.28379166e-1, -3.76125336e-1, 1.12819925e-1, -2.67681349e-2, 4.99119423e-3, -5.96761703e-4)
LARGE32 = (-1.28717512e-1, -6.34846687e-1, -1.06777877e-1, 2.42546219e-2, -3.88396438e-3, 3.83197126e-4,
           -1.72853470e-5)  # fmt: skip
# float64: erf(x)/x - 1 in x^2 below 1; erfc(x) exp(x^2) in t = 2 / (2 + x) above
SMALL64 = (0.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.02686617064512984,
           0.0052239776254232985, -0.000854832702193483, 0.00012055332902888736, -1.4925647567519332e-05,
           1.6462045441468418e-06, -1.6364642158167616e-07, 1.4792401209404813e-08, -1.216456005728345e-09,
           8.709045129053106e-11, -4.230945824295338e-12)  # fmt: skip
LARGE64 = (8.06996312173578e-09, 0.2820945178902828, 0.28209869445000274, 0.24680601403241229,
           0.1763377096315686, 0.08498545342453037, -0.017925994188306697, 0.02500687127866638,
           -0.39397409627370195, 1.034546669173998, -2.3090008742701658, 4.01802907916358,
           -4.786255479495366, 3.7799880036249918, -1.91802039744989, 0.5722101913167975,
           -0.07692728720176453)  # fmt: skip


def erf(b: Builder, x: Operand) -> Operand:
    single = format_of(x) is F32
    square = x * x
    small = b.fma(polynomial(b, square, SMALL32 if single else SMALL64), x, x)
    y = at_most(b, 4.0 if single else 6.2, fabs(b, x))  # from there on it is 1
    if single:
        large = 1.0 - exp_finite(b, b.fma(polynomial(b, y, LARGE32), y, -y), SHORT32)
        limit = 475.0 / 512.0
    else:
        t = 2.0 / (y + 2.0)
        large = 1.0 - polynomial(b, t, LARGE64) * exp(b, -(y * y))
        limit = 1.0
    return b.select(fabs(b, x) < limit, small, copysign(b, large, x))
