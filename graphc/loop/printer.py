"""Kernels as text: deterministic, one statement a line, and complete (`parser.py` reads it back).

    kernel rows(p0: f32[1024], p1: f32[1024]) tasks t < 4:
      alloc a0: f32[] local
      for i0 < 256 vector 32:
        x0 = p0[(t*256) + i0]
        p1[(t*256) + i0] = exp(x0)
        a0[] add= x0

Names are given by order of appearance (p params, s scratch, a locals, i loop variables, x lets), so kernels
of equal structure have equal text: the text, without the kernel's name, is the key of compiled code.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.types import int64
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
    Fetch,
    For,
    If,
    Kernel,
    Let,
    Listed,
    Load,
    Local,
    Note,
    Prefetch,
    Select,
    Stmt,
    Store,
    Tile,
    Unary,
    Var,
)

INFIX = {"add": "+", "sub": "-", "mul": "*"}
LETTERS = {"param": "p", "scratch": "s", "local": "a"}


def print_kernel(kernel: Kernel, name: str | None = None) -> str:
    """The text of a kernel; `name` instead of its own name."""
    return _Printer().kernel(kernel, name or kernel.name)


def kernel_key(kernel: Kernel) -> str:
    """Text that is equal for kernels that do the same (names of kernels and variables do not count)."""
    return print_kernel(kernel, "kernel")


def const_text(value: int | float | bool, dtype_short: str) -> str:
    """A constant: int64 plainly, others with their dtype: ``3``, ``0.5:f32``, ``true:bool``."""
    if dtype_short == "bool":
        return "true:bool" if value else "false:bool"
    if dtype_short in ("f32", "f64"):
        return f"{float(value)!r}:{dtype_short}"
    return str(int(value)) if dtype_short == "i64" else f"{int(value)}:{dtype_short}"


class _Printer:
    """Writes one kernel; keeps the names given so far."""

    def __init__(self) -> None:
        self.names: dict[object, str] = {}
        self.counts: dict[str, int] = {}
        self.lines: list[str] = []

    def name(self, thing: object, letter: str) -> str:
        name = self.names.get(thing)
        if name is None:
            number = self.counts.get(letter, 0)
            self.counts[letter] = number + 1
            name = self.names[thing] = f"{letter}{number}"
        return name

    def buffer(self, buffer: Buffer) -> str:
        return self.name(buffer, LETTERS[buffer.space])

    def declare(self, buffer: Buffer) -> str:
        return f"{self.buffer(buffer)}: {buffer.dtype.short}[{', '.join(map(str, buffer.shape))}]"

    def kernel(self, kernel: Kernel, name: str) -> str:
        params = ", ".join(self.declare(p) for p in kernel.params)
        self.names[kernel.task] = "t"
        self.lines.append(f"kernel {name}({params}) tasks t < {kernel.tasks}:")
        self.block(kernel.body, 1)
        return "\n".join(self.lines) + "\n"

    def block(self, body: Block, depth: int) -> None:
        for stmt in body:
            self.statement(stmt, depth)

    def statement(self, stmt: Stmt, depth: int) -> None:
        text = self.header(stmt)
        self.lines.append("  " * depth + text)
        if isinstance(stmt, For | If):
            self.block(stmt.body, depth + 1)

    def header(self, stmt: Stmt) -> str:
        match stmt:
            case For(var, extent, _, mode, lanes):
                limit = self.expr(extent)
                if isinstance(extent, Const) and extent.value == var.extent:
                    limit = str(var.extent)
                else:
                    limit = f"{limit} most {var.extent}"
                tail = "" if mode == "serial" else f" {mode}" + (f" {lanes}" if mode == "vector" else "")
                return f"for {self.name(var, 'i')} < {limit}{tail}:"
            case Alloc(buffer):
                return f"alloc {self.declare(buffer)} {buffer.space}"
            case Let(local, value):
                text = self.expr(value)  # before the name: numbering follows the reading order
                return f"{self.name(local, 'x')} = {text}"
            case Store(buffer, index, value):
                return f"{self.place(buffer, index)} = {self.expr(value)}"
            case Accumulate(buffer, index, combine, value):
                return f"{self.place(buffer, index)} {combine}= {self.expr(value)}"
            case Tile():
                return self.tile(stmt)
            case Prefetch(buffer, index, near):
                return f"prefetch {'' if near else 'far '}{self.place(buffer, index)}"
            case Note(places, slot, buffer, index):
                return f"note {self.place(places, (slot,))} {self.place(buffer, index)}"
            case Check(condition, code):
                return f"check {self.expr(condition)} else {code}"
            case If(condition, _):
                return f"if {self.expr(condition)}:"
        raise TypeError(f"unknown statement {type(stmt).__name__}")

    def tile(self, tile: Tile) -> str:
        verb = "+=" if tile.accumulate else "="
        a, b, c = self.expr(tile.a), self.expr(tile.b), self.expr(tile.c)
        strides = [self.expr(e) for e in (tile.c_row, tile.a_row, tile.a_step, tile.b_step, tile.depth)]
        c_row, a_row, a_step, b_step, length = strides
        below = f" below {tile.below}" if tile.below else ""
        operands = f"{a} row {a_row} step {a_step}{below}, {b} step {b_step}"
        head = f"tile {tile.rows}x{tile.lanes} {c} row {c_row} {verb} {operands}, depth {length}"
        if (walk := tile.walk) is not None:
            head = f"{head}, walk {walk.operand} {self.expr(walk.at)}"
        return head if tile.fetch is None else f"{head}, fetch {self.fetch(tile.fetch)}"

    def fetch(self, fetch: Fetch | Listed) -> str:
        if isinstance(fetch, Listed):
            return f"listed {self.expr(fetch.at)} lines {fetch.lines}"
        at, step = self.expr(fetch.at), self.expr(fetch.step)
        return f"{at} step {step} lines {fetch.lines}{' each' if fetch.each else ''}"

    def place(self, buffer: Buffer, index: Sequence[Expr], extra: str = "") -> str:
        return f"{self.buffer(buffer)}[{', '.join([self.expr(i) for i in index])}{extra}]"

    def expr(self, expr: Expr) -> str:
        match expr:
            case Const(dtype, value):
                return const_text(value, dtype.short)
            case Var() | Local():
                known = self.names.get(expr)
                if known is None:
                    raise ValueError(f"{type(expr).__name__.lower()} {expr.name!r} is used outside its scope")
                return known
            case Load(_, buffer, index, mask, other):
                if mask is None:
                    return self.place(buffer, index)
                if other is None:
                    raise ValueError(f"a masked load of {buffer.name!r} without another value")
                return self.place(buffer, index, f"; {self.expr(mask)}; {self.expr(other)}")
            case Address(_, buffer, index):
                return "&" + self.place(buffer, index)
            case Binary(_, op, a, b) if op in INFIX and a.dtype is int64:
                return f"({self.expr(a)} {INFIX[op]} {self.expr(b)})"
            case Binary(_, op, a, b):
                return f"{op}({self.expr(a)}, {self.expr(b)})"
            case Unary(_, op, x):
                return f"{op}({self.expr(x)})"
            case Select(_, condition, a, b):
                return f"select({self.expr(condition)}, {self.expr(a)}, {self.expr(b)})"
            case Cast(dtype, x):
                return f"{dtype.short}({self.expr(x)})"
        raise TypeError(f"unknown expression {type(expr).__name__}")
