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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType
from graphc.loop.inplace import inplace_pairs
from graphc.loop.lower import lower_repeated
from graphc.loop.lowered import (
    Arg,
    KernelCall,
    Part,
    Repeat,
    Step,
    Temp,
    Trips,
    Turns,
    Value,
    calls_in,
    piece,
    values_of,
    with_args,
)
from graphc.ops.scan import Loop
from graphc.passes import fuse
from graphc.passes.roles import behind_identity
from graphc.plan_kernels import copy_call
from graphc.program import Machine
from graphc.storage import is_alias


@dataclass(frozen=True, eq=False)
class Lowered:
    """What computes the outputs of a group.

    once   calls that depend on fixed inputs alone; they go first, and need not be run again
    steps  the other calls and loops, in order
    parts  outputs that lie inside other values
    """

    once: tuple[KernelCall, ...]
    steps: tuple[Step, ...]
    parts: Mapping[Node, Part] = field(default_factory=dict)


def lower(group: Group, machine: Machine, fixed: AbstractSet[Node] = frozenset()) -> Lowered:
    """Lower a group of a partition, which may be a loop; `fixed` inputs are the same each time it runs."""
    if group.outputs[0].kind is Kind.SCAN:
        return _LoopLowering(group.outputs, machine).run(fixed)
    repeated = lower_repeated(group, machine, fixed)
    return Lowered(repeated.once, repeated.each)


class _LoopLowering:
    """Lowers the results of one loop.

    body   the steps of the loop, on values of the body
    alias  body values that lie where others do
    where  body values whose place is decided, as values outside
    parts  results that lie inside other values
    """

    def __init__(self, results: Sequence[Node], machine: Machine) -> None:
        self.results, self.machine = results, machine
        self.loop: Loop = results[0].attrs.loop
        self.trips = Trips(self.loop.length)
        self.before: list[KernelCall] = []
        self.once: list[KernelCall] = []
        self.body: list[Step] = []
        self.alias: dict[Value, Arg] = {}
        self.where: dict[Value, Arg] = {}
        self.parts: dict[Node, Part] = {}
        n, m = len(self.loop.carries), len(self.loop.carries) + len(self.loop.xs)
        given = [behind_identity(x) for x in results[0].inputs]
        self.init = dict(zip(self.loop.carries, given[:n], strict=True))
        for x, stack in zip(self.loop.xs, given[n:m], strict=True):
            self.where[x] = self._slice(stack, x.type)
        self.where.update(zip(self.loop.consts, given[m:], strict=True))

    def run(self, fixed: AbstractSet[Node]) -> Lowered:
        self._lower_body()
        self._place_results()
        once = with_args(tuple(self.once), self._place_of)
        body = with_args(tuple(self.body), self._place_of)
        outside, inside = _split(once, fixed)
        return Lowered(outside, (*inside, *self.before, Repeat(self.trips, body)), self.parts)

    # ------------------------------------------------------------------ the body

    def _lower_body(self) -> None:
        """Calls of the body on its own values; copies for results that are no more than other values."""
        emits = [node.attrs.emit for node in self.results if node.attrs.emit is not None]
        outputs = tuple(dict.fromkeys((*self.loop.nexts, *emits)))
        steps: list[Step] = []
        for group in fuse.partition(Graph(self.loop.params, outputs), self.machine).groups:
            if is_alias(group):
                root = self._root(group.inputs[0])
                for node in group.outputs:
                    self.alias[node] = replace(root, type=node.type) if isinstance(root, Part) else root
                continue
            fixed = {x for x in group.inputs if x in self.loop.consts or x.kind is Kind.CONSTANT}
            lowered = lower(group, self.machine, fixed)
            self.alias.update(lowered.parts.items())
            self.once += lowered.once
            steps += lowered.steps
        self.body = list(with_args(tuple(steps), self._root))
        self.written = {
            v for call in calls_in(self.body) for w in call.writes for v in values_of(call.args[w])
        }

    def _root(self, value: Value) -> Arg:
        """Where in the body a value lies."""
        return self.alias.get(value, value)

    def _made(self, node: Node) -> Value:
        """The value that calls of the body write as a whole, and which is `node`."""
        root = self._root(node)
        if isinstance(root, Node | Temp) and root in self.written:
            return root
        copy = Temp(f"{node.op.name}.copy", node.type)
        self.body.append(copy_call(root, copy))
        self.written.add(copy)
        return copy

    def _place_of(self, value: Value) -> Arg:
        """Where outside the body a value of the body lies."""
        if isinstance(value, Node) and value.kind is not Kind.CONSTANT and value not in self.where:
            self.where[value] = Temp(value.op.name, value.type)
        return self.where.get(value, value)

    # ------------------------------------------------------------------ results and carries

    def _place_results(self) -> None:
        """Give places to what leaves a trip."""
        made = {k: self._made(after) for k, after in enumerate(self.loop.nexts)}
        early: dict[int, list[Node]] = {}
        stacks: dict[Value, list[Node]] = {}
        for node in self.results:
            if node.attrs.emit is None:
                continue
            k = self._carry_of(self._root(node.attrs.emit), made)
            if k is not None:
                early.setdefault(k, []).append(node)
            else:
                stacks.setdefault(self._made(node.attrs.emit), []).append(node)
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

    def _slice(self, stack: Arg, type_: TensorType, base: int = 0, ahead: int = 0) -> Arg:
        """The slice of a stack, which starts `base` bytes in, for a trip (or a number of trips ahead)."""
        size = type_.nbytes
        at = self.loop.length - 1 - ahead if self.loop.reverse else ahead
        return piece(stack, type_, base + at * size, ((self.trips, -size if self.loop.reverse else size),))

    def _stacked(
        self, value: Value, carries: Sequence[int], stacks: Sequence[Node], finals: Sequence[Node]
    ) -> None:
        """Every trip's value is kept."""
        home, *others = stacks
        self.where[value] = self._slice(home, value.type)
        self._name(home, 0, others)
        last = 0 if self.loop.reverse else (self.loop.length - 1) * value.type.nbytes
        self._name(home, last, finals)
        self._read_behind(carries, self._slice(home, value.type, ahead=-1))

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
        init = self.init[self.loop.carries[k]]
        self.before.append(copy_call(init, Part(home, init.type, first)))
        self.where[value] = self._slice(home, value.type, base)
        before = self._slice(home, value.type, base, ahead=-1)
        self.where[self.loop.carries[k]] = before
        self._read_behind([c for c in carries if c != k], before)
        self._name(home, base, late)
        self._name(home, size if reverse else 0, early)
        self._name(home, 0 if reverse else length * size, finals)

    def _carried(self, value: Value, carries: Sequence[int], finals: Sequence[Node]) -> None:
        """Only the last trip's value is kept."""
        home: Value = finals[0] if finals else Temp("carry", value.type)
        rest: tuple[Arg, ...] = (home,)
        if self.loop.length > 1 and not self._in_place(value, carries):
            other = Temp("carry", value.type)
            rest = (home, other) if self.loop.length % 2 else (other, home)
        self.where[value] = Turns(self.trips, None, rest) if len(rest) > 1 else home
        for k in carries:
            carry = self.loop.carries[k]
            self.where[carry] = Turns(self.trips, self.init[carry], rest)
        self._name(home, 0, finals[1:])

    def _read_behind(self, carries: Sequence[int], place: Arg) -> None:
        """Carries are read where the trip before wrote them."""
        for k in carries:
            carry = self.loop.carries[k]
            self.where[carry] = Turns(self.trips, self.init[carry], (place,))

    def _name(self, home: Value, offset: int, nodes: Sequence[Node]) -> None:
        """Results that lie inside `home`."""
        for node in nodes:
            self.parts[node] = Part(home, node.type, offset)

    def _in_place(self, value: Value, carries: Sequence[int]) -> bool:
        """Whether the body may write `value` over what it is the next value of."""
        if len(carries) != 1:
            return False
        carry = self.loop.carries[carries[0]]
        calls = list(calls_in(self.body))
        writers = [i for i, call in enumerate(calls) if value in _written(call)]
        readers = [i for i, call in enumerate(calls) if any(carry in values_of(arg) for arg in call.args)]
        if len(writers) != 1 or any(i > writers[0] for i in readers):
            return False
        call = calls[writers[0]]
        if call not in self.body:
            return False  # it is in a loop of the body
        targets = [w for w in call.writes if call.args[w] is value]
        sources = [r for r, arg in enumerate(call.args) if carry in values_of(arg)]
        plain = len(targets) == 1 and all(call.args[r] is carry for r in sources)
        return plain and all((r, targets[0]) in inplace_pairs(call.kernel) for r in sources)


def _written(call: KernelCall) -> set[Value]:
    return {value for w in call.writes for value in values_of(call.args[w])}


def _split(
    calls: Sequence[KernelCall], fixed: AbstractSet[Node]
) -> tuple[tuple[KernelCall, ...], tuple[KernelCall, ...]]:
    """(calls that depend on fixed values alone, the others)."""
    known: set[Value] = set(fixed)
    outside, inside = [], []
    for call in calls:
        written = _written(call)
        read = {value for arg in call.args for value in values_of(arg)} - written
        if all(v in known or (isinstance(v, Node) and v.kind is Kind.CONSTANT) for v in read):
            known |= written
            outside.append(call)
        else:
            inside.append(call)
    return tuple(outside), tuple(inside)
