"""What the attention kernels are made of: blocks of squares, packed operands, register tiles.

A square [batch, rows, cols] is walked in blocks of rows x cols that stay in the first-level cache. Operands
are copied once per block, whatever views, scale factors or casts they are read through, so that tiles read
plain memory and padding is nobody's worry.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import (
    ZERO,
    Accumulate,
    Address,
    Binary,
    Buffer,
    Const,
    Expr,
    Store,
    Tile,
    Var,
    address,
    binary,
    cast,
    identity_of,
    load,
)
from graphc.loop.lower.attention.hidden import Hidden
from graphc.loop.lower.attention.squares import Consumer, Producer, Side, Softmax, space_of
from graphc.loop.lower.contraction.blocking import choose_tile
from graphc.loop.lower.contraction.pack import PAD
from graphc.loop.lower.evaluate import Evaluator, Want
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.scope import Scope
from graphc.program import Machine

ROWS = 64  # most rows of a block
COLS = 128  # most columns of a block
SKIPPED = 64  # most columns of a block that may be hidden: smaller ones are more often


@dataclass(frozen=True, eq=False)
class Plan:
    """The parts of an attention group. `dependent`: the squares that follow from its producers."""

    softmax: Softmax
    producers: Sequence[Producer]
    consumers: Sequence[Consumer]
    dependent: frozenset[Node]


@dataclass(frozen=True)
class Cut:
    """range(extent) in `count` blocks of `block` each (the last one may be shorter)."""

    extent: int
    block: int
    count: int

    def start(self, number: Expr) -> Expr:
        return ix.mul(number, self.block)

    def length(self, number: Expr) -> Expr:
        """Elements of a block."""
        return ix.minimum(self.block, ix.sub(self.extent, self.start(number)))


def cut(extent: int, most: int, multiple: int = 1) -> Cut:
    """Even blocks of at most `most`, of a multiple of elements if there are several."""
    count = -(-extent // most)
    block = -(-extent // count)
    if count > 1:
        block = -(-block // multiple) * multiple
    return Cut(extent, block, -(-extent // block))


@dataclass(frozen=True)
class Tiling:
    """The register tile of one product: `rows` x `lanes`; `down` tiles cover the rows of a block, `across`
    its columns."""

    rows: int
    lanes: int
    down: int
    across: int

    @property
    def height(self) -> int:
        """Rows of a block, padded."""
        return self.rows * self.down

    @property
    def width(self) -> int:
        """Columns of a block, padded."""
        return self.lanes * self.across


def tiling(rows: int, cols: int, depth: int, machine: Machine, itemsize: int) -> Tiling:
    """The tile for a block of rows x cols."""
    tall, lanes = choose_tile(rows, cols, depth, machine, itemsize)
    return Tiling(tall, lanes, -(-rows // tall), -(-cols // lanes))


def pitch(width: int) -> int:
    """A row length that keeps the rows of a block out of each other's cache sets."""
    return -(-width // PAD) * PAD + PAD


class SquareEvaluator(Evaluator):
    """Evaluates functions of a square's elements, the results of products being `given`.

    Divisions by what does not change in the innermost loop become products.
    """

    def __init__(self, scope: Scope, frame: Frame) -> None:
        super().__init__(scope, frame.group.inputs, frame.buffer)
        self.given: dict[Node, Expr] = {}

    def unbound(self, want: Want) -> Expr:
        """The value of a product or row statistic at the element at hand: all are read there only."""
        known = self.given.get(want.node)
        return super().unbound(want) if known is None else known

    def _share(self, value: Expr) -> Expr:
        if isinstance(value, Binary) and value.op == "div" and value.dtype.is_float:
            divisor = value.b
            if self.scope.depth_of(divisor) < self.scope.depth:
                inverse = binary("div", Const(value.dtype, 1.0), divisor)
                return binary("mul", value.a, self.scope.bind(("inverse", divisor), inverse, "inverse"))
        return super()._share(value)


class Blocks:
    """One attention kernel under construction: its params, loops and scratch buffers."""

    def __init__(self, group: Group, plan: Plan, hidden: Hidden, machine: Machine) -> None:
        self.group, self.plan, self.hidden, self.machine = group, plan, hidden, machine
        self.space = space_of(plan.softmax.score)
        self.dtype = plan.softmax.score.dtype
        self.itemsize = self.dtype.itemsize
        self.vector = machine.lanes(self.itemsize)
        self.frame = Frame(group)
        self.w = Scope()
        self.evaluator = SquareEvaluator(self.w, self.frame)
        self.rows = cut(self.space.rows, ROWS)
        self.cols = cut(self.space.cols, SKIPPED if hidden else COLS, self.vector)
        self.batch: Expr = ZERO
        self.zero = identity_of("add", self.dtype)

    def tile(self, rows: int, cols: int, depth: int) -> Tiling:
        return tiling(rows, cols, depth, self.machine, self.itemsize)

    def lead(self, shape: tuple[int, ...]) -> ix.Index:
        """The batch at hand as the leading indices of a square of this leading shape."""
        return ix.unflatten(self.batch, shape)

    # ------------------------------------------------------------------- memory

    def alloc(self, stem: str, *shape: int) -> Buffer:
        return self.w.alloc(stem, self.dtype, shape)

    def fill(self, buffer: Buffer, value: Expr) -> None:
        """Every element of a buffer := value."""
        w = self.w
        with (
            w.nest("f", buffer.shape[:-1]) as outer,
            w.loop("v", buffer.shape[-1], None, "vector", 4 * self.vector) as v,
        ):
            w.put(Store(buffer, (*outer, v), value))

    def pack_rows(self, buffer: Buffer, at: ix.Index, side: Side, lead: ix.Index, start: Expr, count: Expr,
                  most: int) -> None:  # fmt: skip
        """buffer[*at, p, e] = element e of position start + p, for p < count."""
        w = self.w
        lanes = self.vector * (4 if side.features % (4 * self.vector) == 0 else 1)
        with w.loop("p", count, most) as p, w.loop("e", side.features, None, "vector", lanes) as e:
            value = self.evaluator.value(side.node, side.at(lead, ix.add(start, p), e))
            w.put(Store(buffer, (*at, p, e), value))

    def pack_panels(self, buffer: Buffer, side: Side, lead: ix.Index, start: Expr, count: Expr) -> None:
        """buffer[panel, e, lane] = element e of position start + panel * lanes + lane."""
        w = self.w
        panels, _, lanes = buffer.shape
        here = ix.floordiv(ix.add(count, lanes - 1), lanes)
        with w.loop("p", here, panels) as p:
            first = ix.mul(p, lanes)
            length = ix.minimum(lanes, ix.sub(count, first))
            with (
                w.loop("j", length, lanes, "vector", self.vector) as j,
                w.loop("e", side.features) as e,
            ):
                place = ix.add(start, ix.add(first, j))
                w.put(Store(buffer, (p, e, j), self.evaluator.value(side.node, side.at(lead, place, e))))

    # -------------------------------------------------------------------- tiles

    def multiply(
        self,
        shape: Tiling,
        a: Callable[[Expr], Address],
        a_steps: tuple[int, int],
        b: Callable[[Expr], Address],
        b_step: int,
        c: Callable[[Expr, Expr], Address],
        c_row: int,
        depth: Expr,
        rows: Expr,
        cols: Expr,
        accumulate: bool,
    ) -> None:
        """c(row, panel) (+)= a(row) @ b(panel) for the first `rows` rows and `cols` columns of a block."""
        w = self.w
        down = ix.floordiv(ix.add(rows, shape.rows - 1), shape.rows)
        across = ix.floordiv(ix.add(cols, shape.lanes - 1), shape.lanes)
        steps = ix.const(a_steps[0]), ix.const(a_steps[1])
        with w.loop("q", across, shape.across) as panel, w.loop("t", down, shape.down) as t:
            row = ix.mul(t, shape.rows)
            w.put(
                Tile(
                    shape.rows, shape.lanes, depth, a(row), *steps, b(panel), ix.const(b_step),
                    c(row, panel), ix.const(c_row), accumulate,
                )
            )  # fmt: skip

    # -------------------------------------------------------------------- loops

    @contextmanager
    def elements(self, rows: Expr, cols: Expr) -> Iterator[tuple[Expr, Expr]]:
        """(r, j): a serial loop over rows around vectors of columns."""
        w = self.w
        with (
            w.loop("r", rows, self.rows.block) as r,
            w.loop("j", cols, self.cols.block, "vector", self.lanes) as j,
        ):
            yield r, j

    @property
    def lanes(self) -> int:
        """Elements of a row that are worked on together."""
        return 8 * self.vector

    def matters(self, index: ix.Index) -> Expr:
        """Whether a block with this element of the score is to be worked on."""
        return self.hidden.visible(self.evaluator, index)

    @contextmanager
    def unless_hidden(self, i: Expr, rows: Expr, j: Expr, cols: Expr) -> Iterator[None]:
        """A condition around the work on a block: some element of it matters."""
        if not self.hidden:
            yield
            return
        w, score = self.w, self.plan.softmax.score
        seen = w.alloc("seen", int64, (), "local")
        w.put(Store(seen, (), ZERO))
        with (
            w.loop("j", cols, self.cols.block, "vector", self.lanes) as c,
            w.loop("r", rows, self.rows.block) as r,
        ):
            index = self.space.index(score.shape, self.batch, ix.add(i, r), ix.add(j, c))
            w.put(Accumulate(seen, (), "max", cast(self.matters(index), int64)))
        found = w.let(load(seen, ()), "seen")
        with w.when(binary("ne", found, ZERO)):
            yield

    def produce(self, producer: Producer, shape: Tiling, square: Buffer, a: Buffer, at: ix.Index,
                panels: Buffer, rows: Expr, cols: Expr) -> None:  # fmt: skip
        """square[r, j] = the producer's block."""
        self.multiply(
            shape,
            lambda row: address(a, (*at, row, ZERO)),
            (a.shape[-1], 1),
            lambda panel: address(panels, (panel, ZERO, ZERO)),
            shape.lanes,
            lambda row, panel: address(square, (row, ix.mul(panel, shape.lanes))),
            square.shape[-1],
            ix.const(producer.rows.features),
            rows,
            cols,
            False,
        )

    def tasks(self, count: int) -> Expr:
        """Fix the number of tasks; the task index."""
        self.frame.set_tasks(count)
        return self.frame.task()


class Packs:
    """Copies of operands as [position, feature]; operands with the same elements share one."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.sides: dict[Hashable, tuple[Side, Shape]] = {}
        self.sizes: dict[Hashable, tuple[int, int]] = {}
        self.buffers: dict[Hashable, Buffer] = {}
        self.symbols: dict[tuple[str, int], Var] = {}

    def _symbol(self, name: str, extent: int) -> Var:
        return self.symbols.setdefault((name, extent), Var(int64, name, extent))

    def _key(self, side: Side, lead: Shape) -> Hashable:
        """Equal for sides that are the same element at every batch, position and feature."""
        batch = self._symbol("b", self.blocks.space.batch)
        place = self._symbol("p", side.positions), self._symbol("e", side.features)
        index = side.at(ix.unflatten(batch, lead), *place)
        return side.node, ix.flatten(index, side.node.shape)

    def want(self, side: Side, lead: Shape, height: int, width: int) -> None:
        """Ask for a copy of at least height x width elements."""
        key = self._key(side, lead)
        self.sides.setdefault(key, (side, lead))
        known = self.sizes.get(key, (0, 0))
        self.sizes[key] = max(height, known[0]), max(width, known[1])

    def alloc(self, stem: str) -> None:
        """Make the buffers, after all is asked for."""
        for key, (height, width) in self.sizes.items():
            self.buffers[key] = self.blocks.alloc(stem, height, pitch(width))

    def buffer(self, side: Side, lead: Shape) -> Buffer:
        return self.buffers[self._key(side, lead)]

    def fill(self, start: Expr, count: Expr, most: int) -> None:
        """Copy positions start ... start + count - 1 of every operand."""
        for key, (side, lead) in self.sides.items():
            self.blocks.pack_rows(self.buffers[key], (), side, self.blocks.lead(lead), start, count, most)
