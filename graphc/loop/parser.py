"""Reads a kernel back from the text that `printer.py` writes: parse(print(k)) prints the same text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from graphc.ir.types import BY_SHORT, DType, bool_, int64
from graphc.loop.ir import (
    BINARY_OPS,
    COMPARE_OPS,
    UNARY_NAMES,
    Accumulate,
    Address,
    Alloc,
    Below,
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
    Var,
    Walk,
    unary,
)
from graphc.loop.printer import INFIX

_TOKEN = re.compile(
    r"\s*(\d+x\d+"  # the size of a tile
    r"|-?(?:inf|nan|\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?::\w+)?(?![\w.])|true:bool|false:bool"
    r"|[A-Za-z_]\w*|\+=|[][(),;:<=&+*-])"
)
_SYMBOLS = {symbol: op for op, symbol in INFIX.items()}
_COMBINES = frozenset(["add", "mul", "max", "min", "and", "or"])


class ParseError(ValueError):
    """The text is no kernel: says the line and what was expected."""


def parse_kernel(text: str) -> Kernel:
    """The kernel that `text` describes; ParseError if it describes none."""
    return _Parser(text).kernel()


class _Parser:
    """Cursor over lines, and over the tokens of one line; names of what is in scope."""

    def __init__(self, text: str) -> None:
        self.lines = [(i + 1, line) for i, line in enumerate(text.splitlines()) if line.strip()]
        self.row = 0
        self.tokens: list[str] = []
        self.at = 0
        self.names: dict[str, Buffer | Var | Local] = {}

    # ------------------------------------------------------------------------ tokens

    def fail(self, wanted: str) -> ParseError:
        number, line = self.lines[min(self.row, len(self.lines) - 1)] if self.lines else (1, "")
        found = self.tokens[self.at] if self.at < len(self.tokens) else "the end of the line"
        return ParseError(f"line {number}: expected {wanted}, found {found}: {line.strip()}")

    def open_line(self) -> None:
        """Cut the current line into tokens."""
        line = self.lines[self.row][1].strip()
        self.tokens, self.at, position = [], 0, 0
        while position < len(line):
            match = _TOKEN.match(line, position)
            if match is None:
                raise ParseError(f"line {self.lines[self.row][0]}: cannot read {line[position:]!r}")
            self.tokens.append(match[1])
            position = match.end()

    @property
    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek
        self.at += 1
        return token

    def expect(self, *tokens: str) -> None:
        for token in tokens:
            if self.peek != token:
                raise self.fail(repr(token))
            self.at += 1

    def accept(self, token: str) -> bool:
        if self.peek == token:
            self.at += 1
            return True
        return False

    def number(self) -> int:
        if not self.peek.lstrip("-").isdigit():
            raise self.fail("a whole number")
        return int(self.take())

    def end(self) -> None:
        if self.at != len(self.tokens):
            raise self.fail("the end of the line")

    # -------------------------------------------------------------------- statements

    def kernel(self) -> Kernel:
        if not self.lines:
            raise ParseError("line 1: expected a kernel, found nothing")
        self.open_line()
        self.expect("kernel")
        name = self.take()
        self.expect("(")
        params = [] if self.peek == ")" else self._list(lambda: self.declaration("param"))
        self.expect(")", "tasks", "t", "<")
        tasks = self.number()
        self.expect(":")
        self.end()
        task = Var(int64, "t", tasks)
        self.names["t"] = task
        self.row += 1
        body = self.block(self._indent() if self.row < len(self.lines) else 0)
        if self.row < len(self.lines):
            raise ParseError(f"line {self.lines[self.row][0]}: unexpected indentation")
        return Kernel(name, tuple(params), task, tasks, body)

    def _list(self, item: Callable) -> list:
        items = [item()]
        while self.accept(","):
            items.append(item())
        return items

    def declaration(self, space: str) -> Buffer:
        name = self.take()
        self.expect(":")
        dtype = self._dtype(self.take())
        self.expect("[")
        shape = [] if self.peek == "]" else self._list(self.number)
        self.expect("]")
        buffer = Buffer(name, dtype, tuple(shape), space)  # type: ignore[arg-type]
        self.names[name] = buffer
        return buffer

    def _dtype(self, short: str) -> DType:
        if short not in BY_SHORT:
            self.at -= 1
            raise self.fail("an element type")
        return BY_SHORT[short]

    def _indent(self) -> int:
        line = self.lines[self.row][1]
        return len(line) - len(line.lstrip())

    def block(self, indent: int) -> Block:
        body: list[Stmt] = []
        while self.row < len(self.lines) and self._indent() == indent and indent:
            self.open_line()
            body.append(self.statement(indent))
        return tuple(body)

    def nested(self, indent: int) -> Block:
        self.expect(":")
        self.end()
        self.row += 1
        if self.row < len(self.lines) and self._indent() > indent:
            return self.block(self._indent())
        return ()

    def statement(self, indent: int) -> Stmt:
        word = self.peek
        if word == "for":
            return self.loop(indent)
        if word == "if":
            self.take()
            condition = self.expr()
            return If(condition, self.nested(indent))
        stmt = self.simple()
        self.end()
        self.row += 1
        return stmt

    def loop(self, indent: int) -> For:
        self.take()
        name = self.take()
        self.expect("<")
        extent = self.expr()
        if self.accept("most"):
            most = self.number()
        elif isinstance(extent, Const):
            most = int(extent.value)
        else:
            raise self.fail("'most' and a bound, for an extent that is not constant")
        mode, lanes = "serial", 1
        if self.peek in ("vector", "unroll"):
            mode = self.take()
            lanes = self.number() if mode == "vector" else 1
        var = Var(int64, name, most)
        self.names[name] = var
        return For(var, extent, self.nested(indent), mode, lanes)  # type: ignore[arg-type]

    def simple(self) -> Stmt:
        word = self.take()
        if word == "alloc":
            at = self.tokens[-1]
            buffer = self.declaration(at)
            self.expect(at)
            return Alloc(buffer)
        if word == "check":
            condition = self.expr()
            self.expect("else")
            return Check(condition, self.number())
        if word == "tile":
            return self.tile()
        if word == "prefetch":
            near = not self.accept("far")
            return Prefetch(self.buffer(), self.index(), near)
        if word == "note":
            places, (slot,) = self.buffer(), self.index()
            return Note(places, slot, self.buffer(), self.index())
        known = self.names.get(word)
        if isinstance(known, Buffer):
            index = self.index()
            if self.accept("="):
                return Store(known, index, self.expr())
            combine = self.take()
            if combine not in _COMBINES:
                self.at -= 1
                raise self.fail("'=' or a combining operation")
            self.expect("=")
            return Accumulate(known, index, combine, self.expr())  # type: ignore[arg-type]
        self.expect("=")
        value = self.expr()
        local = Local(value.dtype, word)
        self.names[word] = local
        return Let(local, value)

    def tile(self) -> Tile:
        match = re.fullmatch(r"(\d+)x(\d+)", self.peek)
        if match is None:
            raise self.fail("rows x lanes")
        self.at += 1
        c = self.address()
        self.expect("row")
        c_row = self.expr()
        accumulate = self.accept("+=")
        if not accumulate:
            self.expect("=")
        a = self.address()
        self.expect("row")
        a_row = self.expr()
        self.expect("step")
        a_step = self.expr()
        below = self.below() if self.accept("below") else ""
        self.expect(",")
        b = self.address()
        self.expect("step")
        b_step = self.expr()
        self.expect(",", "depth")
        depth = self.expr()
        rows, lanes = int(match[1]), int(match[2])
        more = self.accept(",")
        walk = self.walk() if more and self.accept("walk") else None
        more = self.accept(",") if walk is not None else more
        fetch = self.fetch() if more else None
        return Tile(rows, lanes, depth, a, a_row, a_step, b, b_step, c, c_row, accumulate, fetch, walk, below)

    def below(self) -> Below:
        if self.peek not in ("rows", "line"):
            raise self.fail("rows or line")
        below: Below = "rows" if self.peek == "rows" else "line"
        self.at += 1
        return below

    def walk(self) -> Walk:
        if self.peek not in ("a", "b"):
            raise self.fail("a or b")
        operand: Literal["a", "b"] = "a" if self.peek == "a" else "b"
        self.at += 1
        return Walk(self.address(), operand)

    def fetch(self) -> Fetch | Listed:
        self.expect("fetch")
        if self.accept("listed"):
            places = self.address()
            self.expect("lines")
            return Listed(places, self.number())
        at = self.address()
        self.expect("step")
        step = self.expr()
        self.expect("lines")
        lines = self.number()
        return Fetch(at, step, lines, self.accept("each"))

    # ------------------------------------------------------------------- expressions

    def index(self) -> tuple[Expr, ...]:
        self.expect("[")
        index = [] if self.peek in ("]", ";") else self._list(self.expr)
        if self.peek == "]":
            self.take()
        return tuple(index)

    def address(self) -> Address:
        self.expect("&")
        buffer = self.buffer()
        return Address(buffer.dtype, buffer, self.index())

    def buffer(self) -> Buffer:
        buffer = self.names.get(self.take())
        if not isinstance(buffer, Buffer):
            raise self.fail("a buffer")
        return buffer

    def expr(self) -> Expr:
        token = self.take()
        if token == "(":
            a = self.expr()
            op = _SYMBOLS.get(self.take())
            if op is None:
                self.at -= 1
                raise self.fail("+, - or *")
            b = self.expr()
            self.expect(")")
            return Binary(int64, op, a, b)
        if token in ("true:bool", "false:bool"):
            return Const(bool_, token == "true:bool")
        if token and (token[0].isdigit() or token[0] == "-" or token.split(":")[0] in ("inf", "nan")):
            return self.constant(token)
        if self.peek == "(":
            return self.call(token)
        known = self.names.get(token)
        if isinstance(known, Var | Local):
            return known
        if isinstance(known, Buffer):
            return self.load(known)
        self.at -= 1
        raise self.fail("an expression")

    def constant(self, token: str) -> Const:
        text, _, short = token.partition(":")
        dtype = BY_SHORT[short] if short else int64
        try:
            return Const(dtype, float(text) if dtype.is_float else int(text))
        except ValueError:
            self.at -= 1
            raise self.fail(f"a constant of {dtype.name}") from None

    def load(self, buffer: Buffer) -> Load:
        index = self.index()
        mask = other = None
        if self.accept(";"):
            mask = self.expr()
            self.expect(";")
            other = self.expr()
            self.expect("]")
        return Load(buffer.dtype, buffer, index, mask, other)

    def call(self, name: str) -> Expr:
        self.expect("(")
        args: list[Expr] = self._list(self.expr)
        self.expect(")")
        if name == "select" and len(args) == 3:
            return Select(args[1].dtype, args[0], args[1], args[2])
        if name in BY_SHORT and len(args) == 1:
            return Cast(BY_SHORT[name], args[0])
        if name in UNARY_NAMES and len(args) == 1:
            return unary(name, args[0])
        if (name in BINARY_OPS or name in COMPARE_OPS) and len(args) == 2:
            return Binary(bool_ if name in COMPARE_OPS else args[0].dtype, name, args[0], args[1])
        raise self.fail(f"an operation of {len(args)} operands instead of {name!r}")
