"""A builder of loop-IR blocks: nested loops as `with` statements."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from graphc.ir.types import DType, Shape
from graphc.loop import index as ix
from graphc.loop.ir import (
    ZERO,
    Alloc,
    Block,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Let,
    Local,
    Mode,
    Space,
    Stmt,
    Store,
    Var,
    index_const,
)


class Writer:
    """Collects statements into the innermost open block."""

    def __init__(self) -> None:
        self.open: list[list[Stmt]] = [[]]
        self.numbers = itertools.count()

    @property
    def block(self) -> list[Stmt]:
        """The innermost open block, to which statements are appended."""
        return self.open[-1]

    def done(self) -> Block:
        """The finished outermost block."""
        return tuple(self.open[0])

    def name(self, stem: str) -> str:
        return f"{stem}{next(self.numbers)}"

    def let(self, value: Expr, stem: str = "v") -> Expr:
        """A name for a value that is used more than once (atoms stay as they are)."""
        if isinstance(value, Const | Var | Local):
            return value
        local = Local(value.dtype, self.name(stem))
        self.block.append(Let(local, value))
        return local

    def alloc(self, stem: str, dtype: DType, shape: Shape, space: Space = "scratch") -> Buffer:
        buffer = Buffer(self.name(stem), dtype, shape, space)
        self.block.append(Alloc(buffer))
        return buffer

    def store(self, buffer: Buffer, index: tuple[Expr, ...], value: Expr) -> None:
        self.block.append(Store(buffer, index, value))

    def put(self, stmt: Stmt) -> None:
        self.block.append(stmt)

    @contextmanager
    def loop(
        self, stem: str, extent: Expr | int, most: int | None = None, mode: Mode = "serial", lanes: int = 1
    ) -> Iterator[Expr]:
        """A loop over range(extent); `most` bounds an extent that is not constant. A loop of one iteration is
        its body."""
        if isinstance(extent, int):
            extent = index_const(extent)
        if isinstance(extent, Const):
            most = int(extent.value)
        assert most is not None, "a dynamic extent needs a bound"
        if isinstance(extent, Const) and extent.value == 1:
            yield ZERO
            return
        var = Var(extent.dtype, self.name(stem), most)
        self.open.append([])
        try:
            yield var
        finally:
            body = tuple(self.open.pop())
        self.block.append(For(var, extent, body, mode, lanes))

    @contextmanager
    def nest(self, stem: str, extents: Shape) -> Iterator[tuple[Expr, ...]]:
        """Serial loops over a box, outermost first."""
        with ExitStack() as stack:
            yield tuple([stack.enter_context(self.loop(stem, extent)) for extent in extents])

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """What is written inside is run under `condition`, or always if that is known to hold."""
        if ix.is_true(condition):
            yield
            return
        self.open.append([])
        try:
            yield
        finally:
            body = tuple(self.open.pop())
        self.block.append(If(condition, body))
