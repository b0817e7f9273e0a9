"""Checks that a kernel is well formed: scopes, dtypes, ranks, loops, and bounds where they are certain.

Bounds are checked for accesses that surely happen: unmasked, under no condition, with an index that is a
sum of variables of known ranges. Other accesses are the interpreter's to check.
"""

from __future__ import annotations

from graphc.ir.types import DType, bool_, int64
from graphc.loop import index as ix
from graphc.loop.ir import (
    BINARY_OPS,
    COMPARE_OPS,
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
    unary_dtype,
)
from graphc.loop.printer import print_kernel

PLAIN_BITS = frozenset(["and", "or", "xor"])


class VerifyError(ValueError):
    """A kernel that breaks a rule of the loop IR."""


def verify_kernel(kernel: Kernel) -> None:
    """Raise VerifyError, with the rule and the kernel's text, unless `kernel` is well formed."""
    if kernel.tasks < 1:
        raise VerifyError(f"kernel {kernel.name} has {kernel.tasks} tasks")
    if len(set(kernel.params)) != len(kernel.params) or any(p.space != "param" for p in kernel.params):
        raise VerifyError(f"kernel {kernel.name}: params must be distinct buffers of space param")
    try:
        _Verifier(kernel).block(kernel.body, frozenset(), exact=True)
    except _Broken as broken:
        try:
            text = print_kernel(kernel)
        except ValueError as unprintable:
            text = f"(its text cannot be printed: {unprintable})"
        raise VerifyError(f"{broken}\n{text}") from None


class _Broken(Exception):
    """The rule that is broken."""


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.buffers: set[Buffer] = set(kernel.params)
        self.values: set[Expr] = {kernel.task}
        self.exact: set[Expr] = {kernel.task}
        self.checked: set[Expr] = set()

    def block(self, body: Block, inside: frozenset[str], exact: bool) -> None:
        """Statements of one scope. `inside`: kinds of loops around; `exact`: not under a condition."""
        buffers, values, checked = set(self.buffers), set(self.values), set(self.checked)
        for stmt in body:
            self.statement(stmt, inside, exact)
        self.buffers, self.values, self.checked = buffers, values, checked

    def statement(self, stmt: Stmt, inside: frozenset[str], exact: bool) -> None:
        match stmt:
            case For():
                self.loop(stmt, inside, exact)
            case If(condition, body):
                self.expect(condition, bool_, "a condition", exact)
                self.block(body, inside, False)
            case Alloc(buffer):
                _rule(buffer.space != "param", f"alloc of param {buffer.name}")
                self.buffers.add(buffer)
            case Let(local, value):
                self.expect(value, local.dtype, f"let {local.name}", exact)
                _rule(local not in self.values, f"{local.name} is bound twice")
                self.values.add(local)
            case Store(buffer, index, value):
                self.expect(value, buffer.dtype, f"store to {buffer.name}", exact)
                self.place(buffer, index, exact)
            case Accumulate(buffer, index, combine, value):
                _rule(combine in ("add", "mul", "max", "min", "and", "or"), f"no combine {combine!r}")
                self.expect(value, buffer.dtype, f"accumulate into {buffer.name}", exact)
                self.place(buffer, index, exact)
            case Prefetch(buffer, index, _):
                _rule(buffer in self.buffers, f"buffer {buffer.name} is not allocated here")
                for i in index:
                    self.expect(i, int64, f"an index of {buffer.name}", False)
            case Note(places, slot, buffer, index):
                _rule(places.dtype is int64, "a list of places must be of int64")
                self.place(places, (slot,), exact)
                _rule(buffer in self.buffers, f"buffer {buffer.name} is not allocated here")
                for i in index:
                    self.expect(i, int64, f"an index of {buffer.name}", False)
            case Check(condition, code):
                _rule(code > 0, "the code of a check must be positive")
                self.expect(condition, bool_, "a check", exact)
            case Tile():
                _rule("vector" not in inside, "a tile inside a vector loop")
                self.tile(stmt, exact)
            case _:
                raise _Broken(f"unknown statement {type(stmt).__name__}")

    def loop(self, loop: For, inside: frozenset[str], exact: bool) -> None:
        self.expect(loop.extent, int64, "a loop extent", exact)
        _rule(loop.var not in self.values, f"loop variable {loop.var.name} is used by an outer loop")
        extent = loop.extent.value if isinstance(loop.extent, Const) else None
        _rule(extent is None or extent == loop.var.extent, f"extent and range of {loop.var.name} differ")
        if loop.mode == "vector":
            _rule(loop.lanes >= 1, "a vector loop without lanes")
            _rule("vector" not in inside, "a vector loop inside a vector loop")
        self.values.add(loop.var)
        if extent is not None:
            self.exact.add(loop.var)
        self.block(loop.body, inside | {loop.mode}, exact and bool(extent))
        self.values.discard(loop.var)

    def tile(self, tile: Tile, exact: bool) -> None:
        _rule(tile.rows >= 1 and tile.lanes >= 1, "a tile without rows or lanes")
        for e in (tile.depth, tile.a_row, tile.a_step, tile.b_step, tile.c_row):
            self.expect(e, int64, "a size of a tile", exact)
        for place in (tile.a, tile.b, tile.c):
            _rule(place.dtype is tile.c.dtype, "operands of a tile differ in dtype")
            self.place(place.buffer, place.index, exact)
        if (walk := tile.walk) is not None:
            _rule(walk.at.dtype is int64, "a walk must be a table of int64")
            self.place(walk.at.buffer, walk.at.index, exact)
        if (fetch := tile.fetch) is not None:
            _rule(fetch.lines >= 1, "a fetch of no lines")
            listed = isinstance(fetch, Listed)
            _rule(not listed or fetch.at.dtype is int64, "a list of places must be of int64")
            for e in fetch.at.index if isinstance(fetch, Listed) else (fetch.step, *fetch.at.index):
                self.expect(e, int64, "a size of a fetch", exact)
            _rule(fetch.at.buffer in self.buffers, f"buffer {fetch.at.buffer.name} is not allocated here")

    # ----------------------------------------------------------------------- accesses

    def place(self, buffer: Buffer, index: tuple[Expr, ...], exact: bool) -> None:
        _rule(buffer in self.buffers, f"buffer {buffer.name} is not allocated here")
        _rule(
            len(index) == len(buffer.shape), f"{buffer.name} has rank {len(buffer.shape)}, index {len(index)}"
        )
        for i, extent in zip(index, buffer.shape, strict=True):
            self.expect(i, int64, f"an index of {buffer.name}", exact)
            sums = ix.form(i)
            _rule(sums.low < extent and sums.high >= 0, f"an index of {buffer.name} is never within {extent}")
            if exact and all(atom in self.exact for atom, _ in sums.terms):
                _rule(
                    sums.low >= 0 and sums.high < extent, f"an index of {buffer.name} leaves range({extent})"
                )

    # --------------------------------------------------------------------- expressions

    def expect(self, expr: Expr, dtype: DType, what: str, exact: bool) -> None:
        _rule(expr.dtype is dtype, f"{what} must be {dtype.name}, is {expr.dtype.name}")
        stack = [expr]
        while stack:
            e = stack.pop()
            if e in self.checked:
                continue
            self.one(e, exact)
            self.checked.add(e)
            stack.extend(ix.operands(e))

    def one(self, expr: Expr, exact: bool) -> None:
        """One operation, given that its operands will be checked too."""
        match expr:
            case Const():
                return
            case Var() | Local():
                _rule(expr in self.values, f"{expr.name} is used outside its scope")
            case Load(dtype, buffer, index, mask, other):
                _rule(dtype is buffer.dtype, f"load of {buffer.name} as {dtype.name}")
                _rule((mask is None) == (other is None), "a masked load needs a mask and another value")
                if mask is not None and other is not None:
                    self.expect(mask, bool_, "a mask", False)
                    _rule(other.dtype is dtype, "the other value of a load has another dtype")
                self.place(buffer, index, exact and mask is None)
            case Unary(dtype, op, x):
                try:
                    expected = unary_dtype(op, x.dtype)
                except ValueError as error:
                    raise _Broken(str(error)) from None
                _rule(dtype is expected, f"{op} of {x.dtype.name} as {dtype.name}")
            case Binary(dtype, op, a, b):
                _rule(op in BINARY_OPS or op in COMPARE_OPS, f"no binary operation {op!r}")
                _rule(a.dtype is b.dtype, f"{op} of {a.dtype.name} and {b.dtype.name}")
                _rule(dtype is (bool_ if op in COMPARE_OPS else a.dtype), f"result of {op} is {dtype.name}")
                _rule(a.dtype is not bool_ or op in COMPARE_OPS | PLAIN_BITS, f"{op} of bools")
            case Select(dtype, condition, a, b):
                _rule(condition.dtype is bool_ and a.dtype is b.dtype is dtype, "dtypes of a select")
            case Cast():
                return
            case Address():
                raise _Broken("an address outside a tile")
            case _:
                raise _Broken(f"unknown expression {type(expr).__name__}")


def _rule(holds: bool, broken: str) -> None:
    if not holds:
        raise _Broken(broken)
