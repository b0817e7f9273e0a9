"""Transcendental functions on LLVM operands, scalar or vector, by the same inline code."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm import math_erf, math_exp, math_log, math_pow, math_trig
from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.math_pow import integer_power


def rsqrt(b: Builder, x: Operand) -> Operand:
    return 1.0 / b.intrinsic("sqrt", x)


UNARY: dict[str, Callable[[Builder, Operand], Operand]] = {
    "rsqrt": rsqrt,
    "exp": math_exp.exp,
    "expm1": math_exp.expm1,
    "tanh": math_exp.tanh,
    "sigmoid": math_exp.sigmoid,
    "sinh": math_exp.sinh,
    "cosh": math_exp.cosh,
    "log": math_log.log,
    "log1p": math_log.log1p,
    "log2": math_log.log2,
    "asinh": math_log.asinh,
    "acosh": math_log.acosh,
    "atanh": math_log.atanh,
    "erf": math_erf.erf,
    "sin": math_trig.sin,
    "cos": math_trig.cos,
    "tan": math_trig.tan,
    "asin": math_trig.asin,
    "acos": math_trig.acos,
    "atan": math_trig.atan,
}

BINARY: dict[str, Callable[[Builder, Operand, Operand], Operand]] = {
    "pow": math_pow.power,
    "atan2": math_trig.atan2,
    "rem": math_pow.remainder,
}


def unary(b: Builder, op: str, x: Operand) -> Operand:
    """A float Unary that has no single LLVM instruction."""
    if op not in UNARY:
        raise ValueError(f"no code for {op}")
    return UNARY[op](b, x)


def binary(b: Builder, op: str, x: Operand, y: Operand) -> Operand:
    """A float Binary that has no LLVM instruction: pow, atan2, rem."""
    if op not in BINARY:
        raise ValueError(f"no code for {op}")
    return BINARY[op](b, x, y)


__all__ = ["binary", "integer_power", "unary"]
