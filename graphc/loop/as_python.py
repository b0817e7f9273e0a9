"""A kernel as Python text, for the interpreter: a line for each operation, on NumPy's scalars.

Whatever counts (loop variables, and what is computed of them and of small constants) is a plain int, since
that is several times faster; everything else has its element type, and wraps or rounds as that does. Branches
that are not taken are not computed: they may read outside of buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.ir.types import DTYPES, DType, bool_, int64
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

_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}  # of numbers; of bools they are functions
_BITS = {"and": "&", "or": "|", "xor": "^"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COUNTS = {
    "div": "{} // {}",
    "rem": "{} % {}",
    "min": "{0} if {0} < {1} else {1}",
    "max": "{0} if {0} > {1} else {1}",
}
_SMALL = 1 << 31  # constants below it count; what is computed of larger ones wraps as int64 does


class Writer:
    """Writes the function of a kernel: it takes the number of a task and flat arrays for the params, and
    returns the status.

    given    what the text refers to by name: constants, buffers, the `functions`
    meaning  what the text's names are
    """

    def __init__(self, kernel: Kernel, functions: Mapping[str, Callable]) -> None:
        self.given: dict[str, Any] = {**functions, **{t.short: t.numpy.type for t in DTYPES}}
        self.meaning: dict[str, Any] = {}
        self._names: dict[object, str] = {}
        self._counts: set[str] = set()  # names of plain ints
        self._lines: list[str] = []
        self._depth = 1
        names = [self._name(kernel.task), *[self._name(p) for p in kernel.params]]
        self._counts.add(names[0])
        self._block(kernel.body)
        lines = [f"def task({', '.join(names)}):", " status = 0", *self._lines, " return status"]
        self.text = "\n".join(lines)

    # ------------------------------------------------------------------- lines

    def _name(self, thing: object) -> str:
        """The name of a buffer or a variable."""
        if thing not in self._names:
            name = self._names[thing] = f"v{len(self._names)}"
            self.meaning[name] = thing
        return self._names[thing]

    def _constant(self, value: object) -> str:
        name = f"c{len(self.given)}"
        self.given[name] = value
        return name

    def _put(self, line: str) -> None:
        self._lines.append(" " * self._depth + line)

    @contextmanager
    def _under(self, line: str) -> Iterator[None]:
        self._put(line)
        self._depth += 1
        yield
        self._depth -= 1

    def _set(self, text: str, into: str | None, counts: bool = False) -> str:
        """Give a value a name."""
        name = into or self._name(object())
        self._put(f"{name} = {text}")
        (self._counts.add if counts else self._counts.discard)(name)
        return name

    # -------------------------------------------------------------- statements

    def _block(self, body: Block) -> None:
        for stmt in body:
            self._statement(stmt)
        if not body:
            self._put("pass")

    def _statement(self, stmt: Stmt) -> None:
        match stmt:
            case For(var, extent, body, _, _):
                name, stop = self._name(var), self._expr(extent)
                self._counts.add(name)
                with self._under(f"for {name} in range({stop}):"):
                    self._block(body)
            case Alloc(buffer):
                self._put(f"{self._name(buffer)} = poisoned({self._constant(buffer)})")
            case Let(local, value):
                self._expr(value, self._name(local))
            case Store(buffer, index, value):
                result = self._expr(value)  # before the place: an in-place store reads first
                self._put(f"{self._name(buffer)}[{self._position(buffer, index)}] = {result}")
            case Accumulate(buffer, index, combine, value):
                result = self._expr(value)
                at = self._set(self._position(buffer, index), None)
                old = f"{self._name(buffer)}[{at}]"
                self._put(f"{old} = {self._combined(combine, buffer.dtype, old, result)}")
            case Tile():
                self._tile(stmt)
            case Prefetch() | Note():
                self._put("pass")
            case Check(condition, code):
                self._put(f"if not {self._expr(condition)} and not status: status = {code}")
            case If(condition, body):
                with self._under(f"if {self._expr(condition)}:"):
                    self._block(body)
            case _:
                raise TypeError(f"unknown statement {type(stmt).__name__}")

    def _tile(self, tile: Tile) -> None:
        parts = [self._constant(tile)]
        for place in (tile.a, tile.b, tile.c):
            parts += self._address(place)
        strides = (tile.depth, tile.a_row, tile.a_step, tile.b_step, tile.c_row)
        parts += [self._expr(e) for e in strides]
        if tile.walk is not None:
            parts += self._address(tile.walk.at)
        self._put(f"tile({', '.join(parts)})")

    def _address(self, place: Address) -> tuple[str, str]:
        return self._name(place.buffer), self._position(place.buffer, place.index)

    def _position(self, buffer: Buffer, index: Sequence[Expr]) -> str:
        """The flat place of an element, after a test that it lies inside."""
        at = [self._expr(i) for i in index]
        inside, flat = "False", "0"
        if len(at) == len(buffer.shape):
            pairs = list(zip(at, buffer.shape, strict=True))
            inside = " and ".join([f"0 <= {i} < {n}" for i, n in pairs if i != "0" or n == 0])
            for i, n in pairs:
                flat = i if flat == "0" else f"({flat}) * {n} + {i}"
        if inside:
            self._put(f"if not ({inside}): outside({self._constant(buffer)}, [{', '.join(at)}])")
        return flat

    # ------------------------------------------------------------- expressions

    def _expr(self, expr: Expr, into: str | None = None) -> str:
        """The name (or the literal) of a value that the lines so far compute."""
        match expr:
            case Const(dtype, value):
                return self._leaf(*self._literal(dtype, value), into)
            case Var() | Local():
                name = self._name(expr)
                return self._leaf(name, name in self._counts, into)
            case Load(_, buffer, index, None, _):
                return self._set(f"{self._name(buffer)}[{self._position(buffer, index)}]", into)
            case Load(_, buffer, index, mask, other):
                assert mask is not None
                assert other is not None
                return self._branch(mask, Load(buffer.dtype, buffer, index), other, into)
            case Select(_, condition, a, b):
                return self._branch(condition, a, b, into)
            case Unary(_, op, x):
                return self._unary(op, x, into)
            case Binary(_, op, a, b):
                left, right = self._expr(a), self._expr(b)
                counts = a.dtype is int64 and self._is_count(left) and self._is_count(right)
                counted = self._counted(op, left, right) if counts else None
                text = counted or self._combined(op, a.dtype, left, right)
                return self._set(text, into, counted is not None)
            case Cast(dtype, x):
                return self._cast(dtype, x, into)
        raise TypeError(f"unknown expression {type(expr).__name__}")

    def _literal(self, dtype: DType, value: int | float | bool) -> tuple[str, bool]:
        """(text, whether it counts)"""
        if dtype is int64 and abs(value) < _SMALL:
            return (f"{value}" if value >= 0 else f"({value})"), True
        with np.errstate(all="ignore"):
            return self._constant(np.asarray(value).astype(dtype.numpy)[()]), False

    def _leaf(self, text: str, counts: bool, into: str | None) -> str:
        return text if into is None else self._set(text, into, counts)

    def _is_count(self, text: str) -> bool:
        return text in self._counts or text.strip("(-)").isdigit()

    def _branch(self, condition: Expr, a: Expr, b: Expr, into: str | None) -> str:
        """One of two values; the other is not computed."""
        name = into or self._name(object())
        chosen = self._expr(condition)
        counts = []
        for line, value in ((f"if {chosen}:", a), ("else:", b)):
            with self._under(line):
                self._expr(value, name)
                counts.append(name in self._counts)
        (self._counts.add if all(counts) else self._counts.discard)(name)
        return name

    def _unary(self, op: str, x: Expr, into: str | None) -> str:
        value = self._expr(x)
        counts = op == "neg" and x.dtype is int64 and self._is_count(value)
        if op == "neg" and (counts or x.dtype.is_float):
            return self._set(f"-{value}", into, counts)
        return self._set(f"{op}_({value})", into)

    def _counted(self, op: str, a: str, b: str) -> str | None:
        """An operation on plain ints; None if it may give what is none."""
        if op in _ARITHMETIC:
            return f"{a} {_ARITHMETIC[op]} {b}"
        if op in _COUNTS and (op not in ("div", "rem") or (b.strip("(-)").isdigit() and b != "0")):
            return _COUNTS[op].format(a, b)
        return None

    def _combined(self, op: str, dtype: DType, a: str, b: str) -> str:
        """An operation on values of an element type."""
        if op in _COMPARE:
            return f"{a} {_COMPARE[op]} {b}"
        if op in _BITS:
            return f"{a} {_BITS[op]} {b}"
        if op in _ARITHMETIC and dtype is not bool_:
            return f"{a} {_ARITHMETIC[op]} {b}"
        if op == "div" and dtype.is_float:
            return f"{a} / {b}"
        return f"{op}_({a}, {b})"

    def _cast(self, dtype: DType, x: Expr, into: str | None) -> str:
        value = self._expr(x)
        if dtype is bool_:
            return self._set(f"{value} != 0", into)
        if x.dtype is bool_ or (dtype.is_float and (x.dtype.is_float or self._is_count(value))):
            return self._set(f"{dtype.short}({value})", into)
        return self._set(f"asarray({value}).astype({dtype.short})[()]", into)
