"""Transcendental functions on LLVM operands, scalar or vector, by the same inline code."""

from __future__ import annotations

from .emit_builder import Builder, Operand


def unary(b: Builder, op: str, x: Operand) -> Operand:
    """A float Unary that has no single LLVM instruction."""
    if op == "rsqrt":
        return 1.0 / b.intrinsic("sqrt", x)
    raise ValueError(f"no code for {op}")


def binary(b: Builder, op: str, x: Operand, y: Operand) -> Operand:
    raise ValueError(f"no code for {op}")


def remainder(b: Builder, x: Operand, y: Operand) -> Operand:
    raise ValueError("no code for rem")


def integer_power(b: Builder, x: Operand, y: Operand) -> Operand:
    raise ValueError("no code for pow")
