"""Lines beyond a core's cache: a radix sort whose passes run over blocks of a line in parallel.

A pass over one digit is three kernels: every block counts its digits; the counts become where each block's
elements of each digit go (digit by digit, and block after block within a digit, so that equal elements keep
their order); every block moves its pairs there. The kernels of all passes are the same: which digit it is,
and on which side of memory the pairs are, stands in memory. A digit that is the same in the whole line (those
of small integers) is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import ONE, ZERO, Accumulate, Buffer, Const, Expr, Mode, Store, binary, cast, load, select
from graphc.loop.lower import cost
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Grid, cut
from graphc.loop.lower.scope import Scope
from graphc.loop.lower.sorting.keys import DIGIT_BITS, DIGITS, Lines
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

LEAST_BLOCK = 64 * DIGITS  # elements of a block, so that its table of counts is small beside it
# what is known of a line's pass: the sides its pairs move from and to (the same: they need not move), and
# the first bit of its digit
FROM, TO, SHIFT = ix.const(0), ix.const(1), ix.const(2)
STATE = 3


def sort_in_blocks(group: Group, lines: Lines, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernels that make the pairs, those of each digit's pass, and the one that gives the positions."""
    sort = _Blocks(group, lines, machine)
    one_pass = (sort.count_call(), sort.start_call(), sort.move_call())
    return (sort.begin_call(), *(one_pass * lines.key_digits), sort.end_call())


class _Blocks:
    """The memory of the sort, and its kernels; a task of most of them is one block of one line."""

    def __init__(self, group: Group, lines: Lines, machine: Machine) -> None:
        self.group, self.lines, self.machine = group, lines, machine
        wanted = max(1, min(cost.MOST // lines.count, lines.extent // LEAST_BLOCK))
        self.blocks: Grid = cut(lines.extent, wanted, 1, machine.lanes(4))
        kind, count = lines.place_type, lines.count
        sides = (count, 2, lines.extent)
        self.keys = Temp("sort_keys", TensorType(sides, lines.key_type))
        self.places = Temp("sort_places", TensorType(sides, kind))
        self.counts = Temp("sort_counts", TensorType((count, self.blocks.tasks, DIGITS), kind))
        self.state = Temp("sort_state", TensorType((count, STATE), int64))
        # the bits in which keys of a block differ from the line's first one
        self.bits = Temp("sort_bits", TensorType((count, self.blocks.tasks), lines.key_type))

    # ----------------------------------------------------------------- kernels

    def begin_call(self) -> KernelCall:
        """Keys and positions, on the first side."""
        lines = self.lines
        frame, scope, line, block = self._open()
        evaluator = frame.evaluator(scope)
        with scope.when(ix.compare("eq", block, 0)):
            for entry, value in ((FROM, 0), (TO, 0), (SHIFT, -DIGIT_BITS)):
                _put(frame, scope, self.state, (line, entry), ix.const(value))
        lanes = self.machine.lanes(lines.key_type.itemsize)
        first = scope.let(lines.unsigned(lines.key(scope, evaluator, line, ZERO)), "first")
        bits = self._no_bits(scope)
        with _elements(scope, self.blocks, block, lanes) as at:
            key = scope.let(lines.unsigned(lines.key(scope, evaluator, line, at)), "key")
            _put(frame, scope, self.keys, (line, ZERO, at), key)
            _put(frame, scope, self.places, (line, ZERO, at), cast(at, lines.place_type))
            scope.put(Accumulate(bits, (), "or", binary("xor", key, first)))
        _put(frame, scope, self.bits, (line, block), load(bits, ()))
        return frame.call(scope, "sort_begin", cost.flops(self.group))

    def count_call(self) -> KernelCall:
        """How often each digit occurs in each block."""
        lines = self.lines
        frame, scope, line, block = self._open()
        side = self._state(frame, scope, line, TO)
        shift = self._shift(scope, ix.add(self._state(frame, scope, line, SHIFT), DIGIT_BITS))
        kind = lines.place_type
        with scope.when(self._differs(frame, scope, line, shift)):
            with scope.loop("b", DIGITS, None, "vector", self.machine.lanes(kind.itemsize)) as b:
                _put(frame, scope, self.counts, (line, block, b), Const(kind, 0))
            with _elements(scope, self.blocks, block) as at:
                digit = lines.digit(scope, _get(frame, self.keys, (line, side, at)), shift)
                place = ix.flatten((line, block, digit), self.counts.type.shape)
                frame.accumulate(scope, self.counts, place, "add", Const(kind, 1))
        return frame.call(scope, "sort_count", float(lines.node.type.size))

    def start_call(self) -> KernelCall:
        """Counts become the places where the runs of digits start; whether the pass moves anything."""
        kind, frame, scope = self.lines.place_type, Frame(self.group), Scope()
        frame.set_tasks(self.lines.count)
        line = frame.task()
        side = self._state(frame, scope, line, TO)
        start = ix.add(self._state(frame, scope, line, SHIFT), DIGIT_BITS)
        differs = scope.let(self._differs(frame, scope, line, self._shift(scope, start)), "differs")
        total = scope.alloc("total", kind, (), "local")
        scope.put(Store(total, (), Const(kind, 0)))
        with (
            scope.when(differs),
            scope.loop("d", DIGITS) as digit,
            scope.loop("b", self.blocks.tasks) as block,
        ):
            count = scope.let(_get(frame, self.counts, (line, block, digit)), "count")
            _put(frame, scope, self.counts, (line, block, digit), load(total, ()))
            scope.put(Accumulate(total, (), "add", count))
        other = select(differs, binary("sub", ONE, side), side)
        for entry, value in ((FROM, side), (TO, other), (SHIFT, start)):
            _put(frame, scope, self.state, (line, entry), value)
        return frame.call(scope, "sort_start", float(self.counts.type.size))

    def move_call(self) -> KernelCall:
        """The pairs of every block go where they belong."""
        lines, kind = self.lines, self.lines.place_type
        frame, scope, line, block = self._open()
        side = self._state(frame, scope, line, FROM)
        other = self._state(frame, scope, line, TO)
        with scope.when(ix.compare("ne", side, other)):
            shift = self._shift(scope, self._state(frame, scope, line, SHIFT))
            with _elements(scope, self.blocks, block) as at:
                key = scope.let(_get(frame, self.keys, (line, side, at)), "key")
                count = (line, block, lines.digit(scope, key, shift))
                to = scope.let(_get(frame, self.counts, count), "to")
                _put(frame, scope, self.counts, count, binary("add", to, Const(kind, 1)))
                place = ix.canonical(scope.let(cast(to, int64), "place"))
                position = _get(frame, self.places, (line, side, at))
                _put(frame, scope, self.keys, (line, other, place), key)
                _put(frame, scope, self.places, (line, other, place), position)
        return frame.call(scope, "sort_move", float(lines.node.type.size))

    def end_call(self) -> KernelCall:
        """The positions as the result holds them."""
        lines, frame, scope = self.lines, Frame(self.group), Scope()
        grid = cut(lines.kept, self.blocks.tasks, 1, self.machine.lanes(8))
        frame.set_tasks(lines.count * grid.tasks)
        line, block = ix.floordiv(frame.task(), grid.tasks), ix.mod(frame.task(), grid.tasks)
        side = self._state(frame, scope, line, TO)
        with _elements(scope, grid, block, self.machine.lanes(8)) as at:
            position = cast(_get(frame, self.places, (line, side, at)), int64)
            frame.store(scope, lines.node, lines.result(line, at), position)
        return frame.call(scope, "sort_end", float(lines.node.type.size))

    # -------------------------------------------------------------------- parts

    def _open(self) -> tuple[Frame, Scope, Expr, Expr]:
        """A kernel of one block a task; also its line and block."""
        frame = Frame(self.group)
        frame.set_tasks(self.lines.count * self.blocks.tasks)
        task = frame.task()
        return frame, Scope(), ix.floordiv(task, self.blocks.tasks), ix.mod(task, self.blocks.tasks)

    def _state(self, frame: Frame, scope: Scope, line: Expr, entry: Expr) -> Expr:
        return ix.canonical(scope.let(_get(frame, self.state, (line, entry)), "state"))

    def _no_bits(self, scope: Scope) -> Buffer:
        bits = scope.alloc("bits", self.lines.key_type, (), "local")
        scope.put(Store(bits, (), Const(bits.dtype, 0)))
        return bits

    def _differs(self, frame: Frame, scope: Scope, line: Expr, shift: Expr) -> Expr:
        """Whether the digit from bit `shift` on is not the same in the whole line."""
        bits = self._no_bits(scope)
        with scope.loop("b", self.blocks.tasks) as block:
            scope.put(Accumulate(bits, (), "or", _get(frame, self.bits, (line, block))))
        return ix.compare("ne", self.lines.digit(scope, load(bits, ()), shift), 0)

    def _shift(self, scope: Scope, shift: Expr) -> Expr:
        return scope.let(cast(shift, self.lines.key_type), "shift")


@contextmanager
def _elements(scope: Scope, blocks: Grid, block: Expr, lanes: int = 1) -> Iterator[Expr]:
    """A loop over the elements of a block, of vectors if there are lanes; gives positions in the line."""
    mode: Mode = "vector" if lanes > 1 else "serial"
    with scope.loop("e", blocks.extent(block), blocks.block, mode, lanes) as e:
        yield ix.below(ix.add(ix.mul(block, blocks.block), e), blocks.size)


def _get(frame: Frame, temp: Temp, index: tuple[Expr, ...]) -> Expr:
    return frame.read(temp, ix.flatten(index, temp.type.shape))


def _put(frame: Frame, scope: Scope, temp: Temp, index: tuple[Expr, ...], value: Expr) -> None:
    frame.store(scope, temp, ix.flatten(index, temp.type.shape), value)
