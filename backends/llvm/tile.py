"""The one register-tile emitter: every matrix product and convolution ends in these functions.

For i < rows and j < lanes, a tile function computes::

    c[i*c_row + j] (+)= sum over k < depth of a[i*a_row + k*a_step] * b[k*b_step + j]

with the whole of c in vector registers. With a walk, a table says for each k how far the next step of one
operand is, in place of a_step or b_step. (If it said how far from the start, steps would not depend on
each other, and LLVM would load those of a whole round at once and spill.) Every UNROLL steps of k it may
also ask for cache lines that the code after it will want, and for the rows of a that the next tile reads. It
is a function of its own because LLVM's register allocator spills as soon as other code is inlined beside a
loop that fills the register file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from graphc.backends.llvm.passes import FINISHED
from graphc.backends.llvm.target import Target
from graphc.loop.ir import FETCH_STEPS, Fetch, Listed, Tile
from graphc.program import LINE

UNROLL = FETCH_STEPS
_SYMBOL = re.compile(
    r"graphc_tile_(f32|f64)_(\d+)x(\d+)_(set|acc)(?:_walk([ab]))?(?:_below(rows|line))?(?:_(fetch|list|each)(\d+))?"
)
_ENTRY = 8  # bytes of an entry of a walk
_GROUP = 8  # rows addressed from one pointer, by 0, 1, 2, 4 x {1, 3, 5, 7} times the row stride


@dataclass(frozen=True)
class TileSpec:
    """One tile function: `rows` x `lanes` elements of `dtype` (f32 or f64); `accumulate` adds the old c;
    `fetch` cache lines are asked for every UNROLL steps, from the next place on a list if it is `listed`, or
    at `each` step; `walk`: the operand whose steps a table says; `below`: how rows of a are asked for."""

    rows: int
    lanes: int
    dtype: str
    accumulate: bool
    fetch: int = 0
    walk: str = ""
    listed: bool = False
    each: bool = False
    below: str = ""

    @property
    def symbol(self) -> str:
        mode = "acc" if self.accumulate else "set"
        tail = f"_walk{self.walk}" if self.walk else ""
        tail += f"_below{self.below}" if self.below else ""
        how = "list" if self.listed else "each" if self.each else "fetch"
        tail += f"_{how}{self.fetch}" if self.fetch else ""
        return f"graphc_tile_{self.dtype}_{self.rows}x{self.lanes}_{mode}{tail}"

    @property
    def strides(self) -> bool:
        """Whether the places to ask for are equally far apart."""
        return self.fetch > 0 and not self.listed

    @property
    def itemsize(self) -> int:
        return 4 if self.dtype == "f32" else 8


def spec_of(tile: Tile) -> TileSpec:
    """The function that a statement calls."""
    lines = 0 if tile.fetch is None else tile.fetch.lines
    walk = "" if tile.walk is None else tile.walk.operand
    listed, each = isinstance(tile.fetch, Listed), isinstance(tile.fetch, Fetch) and tile.fetch.each
    return TileSpec(
        tile.rows, tile.lanes, tile.c.dtype.short, tile.accumulate, lines, walk, listed, each, tile.below
    )


def parse_symbol(symbol: str) -> TileSpec:
    """The tile that a symbol names; ValueError if it names none."""
    match = _SYMBOL.fullmatch(symbol)
    if not match:
        raise ValueError(f"{symbol!r} is not a tile symbol")
    dtype, rows, lanes, mode, walk, below, how, fetch = match.groups()
    spec = TileSpec(
        int(rows), int(lanes), dtype, mode == "acc", int(fetch or 0), walk or "", below=below or ""
    )
    return replace(spec, listed=how == "list", each=how == "each")


def declaration(symbol: str) -> str:
    """The LLVM declaration a caller of the tile needs."""
    spec = parse_symbol(symbol)
    more = ", ptr" * bool(spec.walk) + ", ptr" * bool(spec.fetch) + ", i64" * spec.strides
    return f"declare void @{symbol}(ptr, i64, i64, ptr, i64, ptr, i64, i64{more})"


def emit_tile(spec: TileSpec, target: Target) -> str:
    """LLVM IR text of a module that defines `spec.symbol`.

    Raises ValueError if the tile is not a whole number of vectors or cannot be kept in registers.
    """
    width = min(spec.lanes, target.machine.lanes(spec.itemsize))
    if spec.lanes % width or spec.rows < 1:
        raise ValueError(f"tile {spec.rows}x{spec.lanes} is not made of vectors of {width} lanes")
    vectors = spec.lanes // width
    if spec.rows * vectors + vectors + 1 > target.registers:
        raise ValueError(
            f"tile {spec.rows}x{spec.lanes} needs {spec.rows * vectors + vectors + 1} vector registers, "
            f"target {target.name} has {target.registers}"
        )
    return _TileWriter(spec, target, vectors, width).module()


class _TileWriter:
    """Writes the text of one tile function, top to bottom."""

    def __init__(self, spec: TileSpec, target: Target, vectors: int, width: int) -> None:
        self.spec = spec
        self.target = target
        self.vectors = vectors
        self.width = width
        self.scalar = "float" if spec.dtype == "f32" else "double"
        self.vector = f"<{width} x {self.scalar}>"
        self.fma = f"llvm.fma.v{width}{spec.dtype}"
        self.cells = [(i, j) for i in range(spec.rows) for j in range(vectors)]
        self.groups = -(-spec.rows // _GROUP)
        self.heads = self.groups + 1 + bool(spec.walk)  # loop-carried pointers
        self.lines: list[str] = []
        self.count = 0

    def put(self, line: str) -> None:
        self.lines.append("  " + line)

    def let(self, value: str) -> str:
        """Add an instruction; the name of its result."""
        self.count += 1
        self.put(f"%t{self.count} = {value}")
        return f"%t{self.count}"

    def module(self) -> str:
        """The whole module."""
        self.prologue()
        state = self.loop("main", "%blocks", UNROLL, "entry", self.initial())
        state = self.loop("rest", "%left", 1, "main.done", state[: self.carried])
        self.epilogue(state)
        parameters = (
            "ptr noalias readonly captures(none) %a, i64 %a_row, i64 %a_step, "
            "ptr noalias readonly captures(none) %b, i64 %b_step, "
            "ptr noalias captures(none) %c, i64 %c_row, i64 %depth"
        )
        if self.spec.walk:
            parameters += ", ptr noalias readonly captures(none) %walk"
        if self.spec.fetch:
            parameters += ", ptr captures(none) %fetch"
        if self.spec.strides:
            parameters += ", i64 %fetch_step"
        return "\n".join(
            (
                f'target triple = "{self.target.triple}"',
                f"define void @{self.spec.symbol}({parameters}) noinline nounwind {FINISHED} {{",
                "entry:",
                *self.lines,
                "}",
                f"declare {self.vector} @{self.fma}({self.vector}, {self.vector}, {self.vector})",
                "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
                "",
            )
        )

    def prologue(self) -> None:
        """Strides in bytes, the odd multiples of the row stride, and c on its way into the cache."""
        size = self.spec.itemsize
        fetch = ("fetch_step",) if self.spec.strides else ()
        for name in ("a_row", "a_step", "b_step", "c_row", *fetch):
            self.put(f"%{name}.bytes = mul i64 %{name}, {size}")
        for odd in (1, 3, 5, 7):
            self.put(f"%a_row.x{odd} = mul i64 %a_row.bytes, {odd}")
        if self.spec.below:
            rows = self.spec.rows if self.spec.below == "rows" else 2 * self.spec.rows - 1
            self.put(f"%below = mul i64 %a_row.bytes, {rows}")
        self.put(f"%blocks = lshr i64 %depth, {UNROLL.bit_length() - 1}")
        self.put(f"%left = and i64 %depth, {UNROLL - 1}")
        for i in range(self.spec.rows):
            row = self.let(f"mul i64 %c_row.bytes, {i}")
            for at in range(0, self.spec.lanes * size, LINE):
                line = self.offset(self.offset("%c", row), str(at))
                self.put(f"call void @llvm.prefetch.p0(ptr {line}, i32 1, i32 3, i32 1)")

    def initial(self) -> list[str]:
        """The loop-carried values at the start: a pointer per group of rows, b, the table, and zeros."""
        pointers = ["%a"]
        for g in range(1, self.groups):
            rows = self.let(f"mul i64 %a_row.bytes, {g * _GROUP}")
            pointers.append(self.offset("%a", rows))
        walk = ["%walk"] if self.spec.walk else []
        fetch = ["%fetch"] if self.spec.fetch else []
        return [*pointers, "%b", *walk, *["zeroinitializer"] * len(self.cells), *fetch]

    @property
    def carried(self) -> int:
        """How many of the loop-carried values belong to the multiply-adds."""
        return self.heads + len(self.cells)

    def loop(self, name: str, trips: str, unroll: int, before: str, state: list[str]) -> list[str]:
        """A loop of `trips` times `unroll` k-steps, entered from block `before`; the values after it."""
        types = ["ptr"] * self.heads + [self.vector] * len(self.cells)
        types += ["ptr"] * (len(state) - self.carried)
        carried = [f"%{name}.v{n}" for n in range(len(state))]
        empty = self.let(f"icmp eq i64 {trips}, 0")
        self.put(f"br i1 {empty}, label %{name}.done, label %{name}.body")
        self.lines.append(f"{name}.body:")
        head = len(self.lines)
        after, fetch = carried[: self.carried], carried[self.carried :]
        if unroll > 1 and self.spec.below == "rows":
            self.ask_below(after[: self.groups])
        for _ in range(unroll):
            if unroll > 1 and self.spec.below == "line":
                self.prefetch(self.offset(after[0], "%below"))
            after = self.step(after)
            if self.spec.each:
                fetch = [self.ask(pointer) for pointer in fetch]
        after += fetch if self.spec.each else [self.ask(pointer) for pointer in fetch]
        left = self.let(f"sub i64 %{name}.n, 1")
        end = self.let(f"icmp eq i64 {left}, 0")
        self.put(f"br i1 {end}, label %{name}.done, label %{name}.body")
        phis = [f"  %{name}.n = phi i64 [ {trips}, %{before} ], [ {left}, %{name}.body ]"]
        for kind, phi, old, new in zip(types, carried, state, after, strict=True):
            phis.append(f"  {phi} = phi {kind} [ {old}, %{before} ], [ {new}, %{name}.body ]")
        self.lines[head:head] = phis
        self.lines.append(f"{name}.done:")
        result = []
        for n, (kind, old, new) in enumerate(zip(types, state, after, strict=True)):
            result.append(f"%{name}.r{n}")
            self.put(f"{result[n]} = phi {kind} [ {old}, %{before} ], [ {new}, %{name}.body ]")
        return result

    def step(self, state: list[str]) -> list[str]:
        """One k: load a row of b, broadcast a column of a, multiply and add."""
        pointers, b, cells = state[: self.groups], state[self.groups], state[self.heads :]
        pointers = [self.opaque(p) for p in pointers]
        columns = [self.load_vector(b, j) for j in range(self.vectors)]
        sums = []
        for i in range(self.spec.rows):
            value = self.broadcast(self.row_address(pointers[i // _GROUP], i % _GROUP))
            for j in range(self.vectors):
                sums.append(self.multiply_add(value, columns[j], cells[i * self.vectors + j]))
        return [*self.moved(pointers, b, state[self.groups + 1]), *sums]

    def moved(self, pointers: list[str], b: str, table: str) -> list[str]:
        """The pointers of the next step; `table` is the third of them if one operand walks."""
        if not self.spec.walk:
            return [*[self.offset(p, "%a_step.bytes") for p in pointers], self.offset(b, "%b_step.bytes")]
        far = self.let(f"load i64, ptr {table}, align {_ENTRY}")

        def walked(pointer: str) -> str:
            return self.let(f"getelementptr {self.scalar}, ptr {pointer}, i64 {far}")

        after = self.offset(table, str(_ENTRY))
        if self.spec.walk == "a":
            return [*[walked(p) for p in pointers], self.offset(b, "%b_step.bytes"), after]
        return [*[self.offset(p, "%a_step.bytes") for p in pointers], walked(b), after]

    def opaque(self, pointer: str) -> str:
        """The pointer, of unknown origin: LLVM would keep one for every offset it meets."""
        return self.let(f'call ptr asm "", "=r,0"(ptr {pointer})')

    def ask(self, pointer: str) -> str:
        """Ask for a round of lines from `pointer` on; where the next round begins."""
        pointer = self.opaque(pointer)
        first = self.let(f"load ptr, ptr {pointer}, align {_ENTRY}") if self.spec.listed else pointer
        for line in range(self.spec.fetch):
            self.prefetch(self.offset(first, str(LINE * line)))
        return self.offset(pointer, str(_ENTRY) if self.spec.listed else "%fetch_step.bytes")

    def ask_below(self, pointers: list[str]) -> None:
        """Ask for the elements of A that stand as many rows below these as the tile has."""
        for group, pointer in enumerate(pointers):
            pointer = self.opaque(self.offset(pointer, "%below"))
            for row in range(min(_GROUP, self.spec.rows - group * _GROUP)):
                self.prefetch(self.row_address(pointer, row))

    def prefetch(self, pointer: str) -> None:
        """Ask for the line of an address, into the second-level cache."""
        self.put(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 2, i32 1)")

    def multiply_add(self, a: str, b: str, c: str) -> str:
        kind = self.vector
        return self.let(f"call {kind} @{self.fma}({kind} {a}, {kind} {b}, {kind} {c})")

    def epilogue(self, state: list[str]) -> None:
        """Add the old c if asked, and store."""
        for (i, j), value in zip(self.cells, state[self.heads :], strict=True):
            row = self.let(f"mul i64 %c_row.bytes, {i}")
            place = self.vector_address(self.offset("%c", row), j)
            if self.spec.accumulate:
                old = self.let(f"load {self.vector}, ptr {place}, align {self.spec.itemsize}")
                value = self.let(f"fadd {self.vector} {old}, {value}")
            self.put(f"store {self.vector} {value}, ptr {place}, align {self.spec.itemsize}")
        self.put("ret void")

    def offset(self, pointer: str, amount: str) -> str:
        """pointer + amount bytes."""
        return pointer if amount == "0" else self.let(f"getelementptr i8, ptr {pointer}, i64 {amount}")

    def vector_address(self, pointer: str, j: int) -> str:
        return self.offset(pointer, str(j * self.width * self.spec.itemsize))

    def load_vector(self, pointer: str, j: int) -> str:
        place = self.vector_address(pointer, j)
        return self.let(f"load {self.vector}, ptr {place}, align {self.spec.itemsize}")

    def row_address(self, pointer: str, row: int) -> str:
        """pointer + row strides, shaped so that x86 folds it into one operand: base + stride * {1, 2, 4}."""
        if row == 0:
            return pointer
        scale = row & -row
        odd = row // scale
        stride = f"%a_row.x{odd}"
        if scale > 1:
            stride = self.let(f"mul i64 {stride}, {scale}")
        return self.offset(pointer, stride)

    def broadcast(self, pointer: str) -> str:
        """A vector filled with the scalar at pointer."""
        value = self.let(f"load {self.scalar}, ptr {pointer}, align {self.spec.itemsize}")
        first = self.let(f"insertelement {self.vector} poison, {self.scalar} {value}, i64 0")
        mask = f"<{self.width} x i32> zeroinitializer"
        return self.let(f"shufflevector {self.vector} {first}, {self.vector} poison, {mask}")
