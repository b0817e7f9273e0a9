"""The plain interpreter of the loop IR: slow, obvious, the oracle for every emitter.

Vector loops run lane by lane (their meaning does not depend on the lanes, except for the order of
reductions). Scratch starts as a poison value, reads outside a buffer raise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.types import DType, int64
from graphc.loop.ir import (
    Accumulate,
    Address,
    Alloc,
    Binary,
    Block,
    Buffer,
    Cast,
    Check,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Note,
    Prefetch,
    Select,
    Stmt,
    Store,
    Tile,
    Unary,
)


def _erf(x: Any) -> Any:
    return type(x)(math.erf(x))


def _sigmoid(x: Any) -> Any:
    one = type(x)(1)
    return one / (one + np.exp(-x)) if x >= 0 else np.exp(x) / (one + np.exp(x))


def _round(x: Any) -> Any:
    return np.rint(x)


UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": lambda x: np.sign(x) if x == x else type(x)(0),  # (0 for NaN)
    "floor": np.floor,
    "ceil": np.ceil,
    "round": _round,
    "trunc": np.trunc,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: type(x)(1) / np.sqrt(x),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "tanh": np.tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "not": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
}


def _div(a: Any, b: Any) -> Any:
    return np.divide(a, b) if np.issubdtype(type(a), np.floating) else np.floor_divide(a, b)


def _pow(a: Any, b: Any) -> Any:
    """A negative power of an integer is truncated to an integer: 0 unless `a` is 1 or -1."""
    if np.issubdtype(type(b), np.signedinteger) and b < 0:
        return type(a)(0 if abs(a) != 1 else 1 if b % 2 == 0 else a)
    return np.power(a, b)


def _mulhi(a: Any, b: Any) -> Any:
    return np.uint32((int(a) * int(b)) >> 32)


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "rem": np.remainder,
    "pow": _pow,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "atan2": np.arctan2,
    "mulhi": _mulhi,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def run(kernel: Kernel, arrays: Sequence[np.ndarray], tasks: Sequence[int] | None = None) -> int:
    """Run `kernel` on `arrays` (one per param, C-contiguous, of the param's dtype and size), in place.

    `tasks` gives the task indices to run (default: all, in order). Returns the status: 0, or the code of the
    first failed Check. Raises ValueError for arrays that do not fit, IndexError for bad accesses.
    """
    if len(arrays) != len(kernel.params):
        raise ValueError(f"kernel {kernel.name} has {len(kernel.params)} params, got {len(arrays)} arrays")
    memory: dict[Buffer, np.ndarray] = {}
    for param, array in zip(kernel.params, arrays, strict=True):
        if array.dtype != param.dtype.numpy or array.size != math.prod(param.shape):
            raise ValueError(
                f"param {param.name} is {param.dtype.short}{list(param.shape)}, got {array.dtype}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"array for param {param.name} is not contiguous")
        memory[param] = array.reshape(-1)
    machine = _Interpreter(memory)
    with np.errstate(all="ignore"):
        for task in range(kernel.tasks) if tasks is None else tasks:
            machine.env = {kernel.task: np.int64(task)}
            machine.block(kernel.body)
    return machine.status


class _Interpreter:
    """State of a running kernel: memory of buffers (flat), values of variables, status."""

    def __init__(self, memory: dict[Buffer, np.ndarray]) -> None:
        self.memory = memory
        self.env: dict[Expr, Any] = {}
        self.status = 0

    def block(self, body: Block) -> None:
        for stmt in body:
            self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        match stmt:
            case For(var, extent, body, _, _):
                for i in range(int(self.expr(extent))):
                    self.env[var] = np.int64(i)
                    self.block(body)
            case Alloc(buffer):
                self.memory[buffer] = _poisoned(buffer)
            case Let(local, value):
                self.env[local] = self.expr(value)
            case Store(buffer, index, value):
                result = self.expr(value)  # before the place: an in-place store reads first
                self.memory[buffer][self.position(buffer, index)] = result
            case Accumulate(buffer, index, combine, value):
                result = self.expr(value)
                at = self.position(buffer, index)
                self.memory[buffer][at] = BINARY[combine](self.memory[buffer][at], result)
            case Tile():
                self.tile(stmt)
            case Prefetch() | Note():
                pass
            case Check(condition, code):
                if not self.expr(condition) and not self.status:
                    self.status = code
            case If(condition, body):
                if self.expr(condition):
                    self.block(body)
            case _:
                raise TypeError(f"unknown statement {type(stmt).__name__}")

    def position(self, buffer: Buffer, index: Sequence[Expr]) -> int:
        """The flat place of an element; IndexError where it lies outside."""
        if buffer not in self.memory:
            raise IndexError(f"buffer {buffer.name} is not allocated here")
        at = [int(self.expr(i)) for i in index]
        if len(at) != len(buffer.shape) or not all(0 <= i < n for i, n in zip(at, buffer.shape, strict=True)):
            raise IndexError(f"{buffer.name}{at} is outside {list(buffer.shape)}")
        flat = 0
        for i, n in zip(at, buffer.shape, strict=True):
            flat = flat * n + i
        return flat

    def expr(self, expr: Expr) -> Any:
        match expr:
            case Const(dtype, value):
                return _scalar(value, dtype)
            case Load(_, buffer, index, mask, other):
                if mask is not None and not self.expr(mask):
                    assert other is not None
                    return self.expr(other)
                return self.memory[buffer][self.position(buffer, index)]
            case Unary(dtype, op, x):
                return dtype.numpy.type(UNARY[op](self.expr(x)))
            case Binary(dtype, op, a, b):
                return dtype.numpy.type(BINARY[op](self.expr(a), self.expr(b)))
            case Select(_, condition, a, b):
                return self.expr(a if self.expr(condition) else b)
            case Cast(dtype, x):
                return np.asarray(self.expr(x)).astype(dtype.numpy)[()]
        try:
            return self.env[expr]
        except KeyError:
            name = getattr(expr, "name", type(expr).__name__)
            raise IndexError(f"{name} has no value here") from None

    def tile(self, tile: Tile) -> None:
        a, a_at = self.address(tile.a)
        b, b_at = self.address(tile.b)
        c, c_at = self.address(tile.c)
        depth, a_row, a_step = (int(self.expr(e)) for e in (tile.depth, tile.a_row, tile.a_step))
        b_step, c_row = (int(self.expr(e)) for e in (tile.b_step, tile.c_row))
        lanes = np.arange(tile.lanes)
        steps = np.arange(depth)
        a_steps, b_steps = steps * a_step, steps * b_step
        if tile.walk is not None:
            table, start = self.address(tile.walk.at)
            walked = np.cumsum(table[start + steps]) - table[start + steps]
            a_steps, b_steps = (walked, b_steps) if tile.walk.operand == "a" else (a_steps, walked)
        panel = b[b_at + b_steps[:, None] + lanes]
        for i in range(tile.rows):
            total = a[a_at + i * a_row + a_steps] @ panel
            at = c_at + i * c_row
            if at < 0 or at + tile.lanes > c.size:
                raise IndexError(f"tile row {i} is outside {tile.c.buffer.name}")
            c[at : at + tile.lanes] = c[at : at + tile.lanes] + total if tile.accumulate else total

    def address(self, place: Address) -> tuple[np.ndarray, int]:
        return self.memory[place.buffer], self.position(place.buffer, place.index)


def _scalar(value: int | float | bool, dtype: DType) -> Any:
    if dtype is int64:
        return np.int64(value)
    return np.asarray(value).astype(dtype.numpy)[()]


def _poisoned(buffer: Buffer) -> np.ndarray:
    """Memory that shows when it is read before it is written."""
    poison = np.nan if buffer.dtype.is_float else 113
    return np.full(math.prod(buffer.shape), poison, buffer.dtype.numpy)
