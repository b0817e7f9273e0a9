"""The body of a loop as kernel calls on its own values, before those have places outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from graphc.aliases import Aliases, is_alias
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.inplace import inplace_pairs
from graphc.loop.lowered import (
    Arg,
    KernelCall,
    Part,
    Step,
    Temp,
    Value,
    calls_in,
    with_args,
)
from graphc.plan_kernels import copy_call


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


LowerGroup = Callable[[Group, AbstractSet[Node]], Lowered]


class LoweredBody:
    """The calls of a body's groups.

    once     calls that depend on `fixed` values alone, on values of the body
    steps    the others
    aliases  values that lie where others do
    where    values whose place outside is decided
    """

    def __init__(self, groups: Sequence[Group], fixed: AbstractSet[Node], lower: LowerGroup) -> None:
        self.once: list[KernelCall] = []
        self.aliases = Aliases()
        self.where: dict[Value, Arg] = {}
        steps: list[Step] = []
        for group in groups:
            if is_alias(group):
                self.aliases.rename(group)
                continue
            lowered = lower(group, {x for x in group.inputs if x in fixed or x.kind is Kind.CONSTANT})
            self.aliases.enter(lowered.parts)
            self.once += lowered.once
            steps += lowered.steps
        self.steps = list(with_args(tuple(steps), self.root))
        self.written = {v for call in calls_in(self.steps) for v in call.written()}

    def root(self, value: Value) -> Arg:
        """Where in the body a value lies."""
        return self.aliases.root(value)

    def made(self, node: Node) -> Value:
        """The value that calls of the body write as a whole, and which is `node`."""
        root = self.root(node)
        if isinstance(root, Node | Temp) and root in self.written:
            return root
        copy = Temp(f"{node.op.name}.copy", node.type)
        self.steps.append(copy_call(root, copy))
        self.written.add(copy)
        return copy

    def writes_over(self, value: Value, carry: Node) -> bool:
        """Whether the body may write `value` where it reads `carry`."""
        calls = list(calls_in(self.steps))
        writers = [i for i, call in enumerate(calls) if value in call.written()]
        readers = [i for i, call in enumerate(calls) if call.positions(carry)]
        if len(writers) != 1 or any(i > writers[0] for i in readers):
            return False
        call = calls[writers[0]]
        if call not in self.steps:
            return False  # it is in a loop of the body
        targets = [w for w in call.writes if call.args[w] is value]
        sources = call.positions(carry)
        plain = len(targets) == 1 and all(call.args[r] is carry for r in sources)
        return plain and all((r, targets[0]) in inplace_pairs(call.kernel) for r in sources)

    def placed(self) -> tuple[tuple[KernelCall, ...], tuple[Step, ...]]:
        """(once, steps) on values outside; what has no place yet is temporary memory of a trip."""
        return with_args(tuple(self.once), self._place_of), with_args(tuple(self.steps), self._place_of)

    def _place_of(self, value: Value) -> Arg:
        """Where outside the body a value of the body lies."""
        if isinstance(value, Node) and value.kind is not Kind.CONSTANT and value not in self.where:
            self.where[value] = Temp(value.op.name, value.type)
        return self.where.get(value, value)


def split_once(
    calls: Sequence[KernelCall], fixed: AbstractSet[Node]
) -> tuple[tuple[KernelCall, ...], tuple[KernelCall, ...]]:
    """(calls that depend on fixed values alone, the others)."""
    known: set[Value] = set(fixed)
    outside, inside = [], []
    for call in calls:
        written = set(call.written())
        read = set(call.touched()) - written
        if all(v in known or (isinstance(v, Node) and v.kind is Kind.CONSTANT) for v in read):
            known |= written
            outside.append(call)
        else:
            inside.append(call)
    return tuple(outside), tuple(inside)
