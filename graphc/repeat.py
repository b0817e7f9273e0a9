"""Lowering loops: the group of a scan's results becomes calls before the loop, and the loop.

The body is a graph like any other, partitioned and lowered by the same machinery, once, whatever the number
of steps. What is special is where its values lie:

    x of a step, a stacked emit   a slice of the whole, one further on each trip
    a carry that is stacked too   read where the trip before wrote it; on the first trip the initial value
    a carry stacked as it is      one memory of length + 1 slices, the initial value at one end: the values
      before the step (h[t - 1])  before the steps are one view of it, those after the steps another
    another carry                 over itself, if the kernel that writes it does not read it later; else two
                                  memories take turns, so that the last trip writes to the final value
    anything else                 temporary memory of the trip

A loop whose trips take fewer kernels when turned by half a step (`passes/turn.py`) is lowered turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from graphc.aliases import is_alias
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType
from graphc.loop.lower import lower_repeated
from graphc.loop.lower.pieces import without_pieces
from graphc.loop.lowered import (
    Arg,
    KernelCall,
    Part,
    Repeat,
    Temp,
    Trips,
    Turns,
    Value,
    piece,
    with_args,
)
from graphc.loop_body import Lowered, LoweredBody, split_once
from graphc.ops.scan import Loop
from graphc.passes import fuse
from graphc.passes.roles import behind_identity
from graphc.passes.turn import Turned, turned
from graphc.plan_kernels import copy_call
from graphc.program import Machine


def lower(group: Group, machine: Machine, fixed: AbstractSet[Node] = frozenset()) -> Lowered:
    """Lower a group of a partition, which may be a loop; `fixed` inputs are the same each time it runs."""
    if group.outputs[0].kind is Kind.SCAN:
        return _lower_loop(group.outputs, machine, fixed)
    group, pieces = without_pieces(group, fixed)
    repeated = lower_repeated(group, machine, fixed)
    if not pieces:
        return Lowered(repeated.once, repeated.each)

    def place(value: Value) -> Arg:
        return pieces.get(value, value) if isinstance(value, Node) else value

    return Lowered(with_args(repeated.once, place), with_args(repeated.each, place))


def _lower_loop(results: Sequence[Node], machine: Machine, fixed: AbstractSet[Node]) -> Lowered:
    """Lower the results of one loop: turned, if that takes fewer kernels a step."""
    loop: Loop = results[0].attrs.loop
    emits = [node.attrs.emit for node in results if node.attrs.emit is not None]
    outputs = tuple(dict.fromkeys((*loop.nexts, *emits)))
    groups = fuse.partition(Graph(loop.params, outputs), machine).groups
    other = turned(loop, results)
    if other is not None:
        fewer = fuse.partition(other.body, machine).groups
        if _kernels(fewer) < _kernels(groups):
            return _TurnedLowering(results, machine, other, fewer).run(fixed)
    return _LoopLowering(results, machine, groups).run(fixed)


def _kernels(groups: Sequence[Group]) -> int:
    return sum(not is_alias(group) for group in groups)


class _Placing:
    """What the two ways to lower a loop share: its operands, and slices of stacks.

    parts  results that lie inside other values
    """

    def __init__(self, results: Sequence[Node], machine: Machine, trips: int) -> None:
        self.results, self.machine = results, machine
        self.loop: Loop = results[0].attrs.loop
        self.trips = Trips(trips)
        self.parts: dict[Node, Part] = {}
        n, m = len(self.loop.carries), len(self.loop.carries) + len(self.loop.xs)
        given = [behind_identity(x) for x in results[0].inputs]
        self.init: list[Node] = given[:n]
        self.stacks: list[Node] = given[n:m]
        self.consts = dict(zip(self.loop.consts, given[m:], strict=True))

    def body(self, groups: Sequence[Group]) -> LoweredBody:
        """The calls of a body that reads the loop's consts."""
        body = LoweredBody(groups, self.consts.keys(), lambda group, fixed: lower(group, self.machine, fixed))
        body.where.update(self.consts)
        return body

    def slice_(self, stack: Arg, type_: TensorType, base: int = 0, ahead: int = 0) -> Arg:
        """The slice of a stack, which starts `base` bytes in, for a trip (or a number of trips ahead)."""
        size = type_.nbytes
        at = self.loop.length - 1 - ahead if self.loop.reverse else ahead
        return piece(stack, type_, base + at * size, ((self.trips, -size if self.loop.reverse else size),))

    def name(self, home: Value, offset: int, nodes: Sequence[Node]) -> None:
        """Results that lie inside `home`."""
        for node in nodes:
            self.parts[node] = Part(home, node.type, offset)

    def turns(self, home: Value, in_place: bool) -> tuple[Arg, ...]:
        """Where a carry is written on the trips: in two places that take turns, if it must not be written
        over itself. The last trip writes to `home`."""
        if self.trips.count < 2 or in_place:
            return (home,)
        other = Temp("carry", home.type)
        return (home, other) if self.trips.count % 2 else (other, home)


class _LoopLowering(_Placing):
    """Lowers the results of one loop step by step.

    before  calls that put initial values into stacks
    """

    def __init__(self, results: Sequence[Node], machine: Machine, groups: Sequence[Group]) -> None:
        super().__init__(results, machine, results[0].attrs.loop.length)
        self.before: list[KernelCall] = []
        self.steps = self.body(groups)
        self.where = self.steps.where
        for x, stack in zip(self.loop.xs, self.stacks, strict=True):
            self.where[x] = self.slice_(stack, x.type)

    def run(self, fixed: AbstractSet[Node]) -> Lowered:
        self._place_results()
        once, steps = self.steps.placed()
        outside, inside = split_once(once, fixed)
        return Lowered(outside, (*inside, *self.before, Repeat(self.trips, steps)), self.parts)

    def _place_results(self) -> None:
        """Give places to what leaves a trip."""
        made = {k: self.steps.made(after) for k, after in enumerate(self.loop.nexts)}
        early: dict[int, list[Node]] = {}
        stacks: dict[Value, list[Node]] = {}
        for node in self.results:
            if node.attrs.emit is None:
                continue
            k = self._carry_of(self.steps.root(node.attrs.emit), made)
            if k is not None:
                early.setdefault(k, []).append(node)
            else:
                stacks.setdefault(self.steps.made(node.attrs.emit), []).append(node)
        for value in dict.fromkeys((*made.values(), *stacks)):
            carries = [k for k, other in made.items() if other is value]
            finals = [node for node in self.results if node.attrs.final in carries]
            if any(k in early for k in carries):
                (k,) = [k for k in carries if k in early]
                self._shifted(value, carries, k, early[k], stacks.get(value, []), finals)
            elif value in stacks:
                self._stacked(value, carries, stacks[value], finals)
            else:
                self._carried(value, carries, finals)

    def _carry_of(self, root: Arg, made: Mapping[int, Value]) -> int | None:
        """The carry that an emitted value is before the step, unless another is written together with it."""
        for k, carry in enumerate(self.loop.carries):
            if root is carry:
                fellows = [other for other, value in made.items() if value is made[k]]
                return k if fellows[0] == k else None
        return None

    def _stacked(
        self, value: Value, carries: Sequence[int], stacks: Sequence[Node], finals: Sequence[Node]
    ) -> None:
        """Every trip's value is kept."""
        home, *others = stacks
        self.where[value] = self.slice_(home, value.type)
        self.name(home, 0, others)
        last = 0 if self.loop.reverse else (self.loop.length - 1) * value.type.nbytes
        self.name(home, last, finals)
        self._read_behind(carries, self.slice_(home, value.type, ahead=-1))

    def _shifted(
        self,
        value: Value,
        carries: Sequence[int],
        k: int,
        early: Sequence[Node],
        late: Sequence[Node],
        finals: Sequence[Node],
    ) -> None:
        """Every trip's value of carry `k` before the step is kept, and maybe that after it."""
        size, length, reverse = value.type.nbytes, self.loop.length, self.loop.reverse
        home = Temp("carries", TensorType((length + 1, *value.type.shape), value.type.dtype))
        first, base = (length * size, 0) if reverse else (0, size)
        init = self.init[k]
        self.before.append(copy_call(init, Part(home, init.type, first)))
        self.where[value] = self.slice_(home, value.type, base)
        before = self.slice_(home, value.type, base, ahead=-1)
        self.where[self.loop.carries[k]] = before
        self._read_behind([c for c in carries if c != k], before)
        self.name(home, base, late)
        self.name(home, size if reverse else 0, early)
        self.name(home, 0 if reverse else length * size, finals)

    def _carried(self, value: Value, carries: Sequence[int], finals: Sequence[Node]) -> None:
        """Only the last trip's value is kept."""
        home: Value = finals[0] if finals else Temp("carry", value.type)
        over = len(carries) == 1 and self.steps.writes_over(value, self.loop.carries[carries[0]])
        rest = self.turns(home, over)
        self.where[value] = Turns(self.trips, None, rest) if len(rest) > 1 else home
        for k in carries:
            self.where[self.loop.carries[k]] = Turns(self.trips, self.init[k], rest)
        self.name(home, 0, finals[1:])

    def _read_behind(self, carries: Sequence[int], place: Arg) -> None:
        """Carries are read where the trip before wrote them."""
        for k in carries:
            self.where[self.loop.carries[k]] = Turns(self.trips, self.init[k], (place,))


class _TurnedLowering(_Placing):
    """Lowers a turned loop: the early part of the first step, then trips from step to step.

    first  calls of the early part
    rest   calls of a trip
    """

    def __init__(
        self, results: Sequence[Node], machine: Machine, turned: Turned, groups: Sequence[Group]
    ) -> None:
        super().__init__(results, machine, results[0].attrs.loop.length - 1)
        self.turned = turned
        self.first = self.body(fuse.partition(Graph(self.loop.params, turned.cut), machine).groups)
        self.rest = self.body(groups)
        self.first.where.update(zip(self.loop.carries, self.init, strict=True))
        for x, held, after, stack in zip(self.loop.xs, turned.xs, turned.after, self.stacks, strict=True):
            self.first.where[x] = self._first_of(stack, x.type)
            self.rest.where[held] = self.slice_(stack, x.type)
            self.rest.where[after] = self.slice_(stack, x.type, ahead=1)

    def run(self, fixed: AbstractSet[Node]) -> Lowered:
        pairs = zip(self.turned.cut, self.turned.held, self.turned.body.outputs, strict=True)
        for node, held, after in pairs:
            stacks = [result for result in self.results if result.attrs.emit is node]
            start, value = self.first.made(node), self.rest.made(after)
            if stacks:
                self._stacked(start, held, value, stacks)
            else:
                self._carried(start, held, value)
        once, steps = self.rest.placed()
        early, before = self.first.placed()
        outside, inside = split_once((*early, *once), fixed)
        return Lowered(outside, (*inside, *before, Repeat(self.trips, steps)), self.parts)

    def _first_of(self, stack: Arg, type_: TensorType) -> Arg:
        """The slice of a stack for the first step."""
        return piece(stack, type_, (self.loop.length - 1) * type_.nbytes if self.loop.reverse else 0)

    def _stacked(self, start: Value, held: Node, value: Value, stacks: Sequence[Node]) -> None:
        """Every step's value is kept, and read where the trip before wrote it."""
        home, *others = stacks
        self.first.where[start] = self._first_of(home, start.type)
        self.rest.where[held] = self.slice_(home, held.type)
        self.rest.where[value] = self.slice_(home, held.type, ahead=1)
        self.name(home, 0, others)

    def _carried(self, start: Value, held: Node, value: Value) -> None:
        """Only the next trip reads the value."""
        begin = Temp("carry", held.type)
        rest = self.turns(Temp("carry", held.type), self.rest.writes_over(value, held))
        self.first.where[start] = begin
        self.rest.where[value] = Turns(self.trips, None, rest) if len(rest) > 1 else rest[0]
        self.rest.where[held] = Turns(self.trips, begin, rest)
