"""What lowering a group gives: calls of kernels on values and temporaries, and loops of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.loop.ir import Kernel


@dataclass(frozen=True, eq=False)
class Temp:
    """Memory that lives only between the kernels of one group (packed operands, partial sums)."""

    name: str
    type: TensorType


Value = Node | Temp


@dataclass(frozen=True, eq=False)
class Trips:
    """A loop's counter: it runs over range(count)."""

    count: int


@dataclass(frozen=True, eq=False)
class Part:
    """A dense piece of `value`, of type `type`: it starts `offset` bytes in, and so many bytes further on
    each trip of some loops."""

    value: Value
    type: TensorType
    offset: int = 0
    steps: tuple[tuple[Trips, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Turns:
    """Arguments that take turns: `first`, if given, on trip 0 of `loop`; on its other trips those of `rest`,
    one after another and over again. All have the same number of bytes."""

    loop: Trips
    first: Arg | None
    rest: tuple[Arg, ...]

    @property
    def type(self) -> TensorType:
        """The type of what the kernel sees."""
        return self.rest[0].type


Arg = Value | Part | Turns


@dataclass(frozen=True, eq=False)
class KernelCall:
    """A kernel and, for each of its params, what it works on.

    `writes` are the positions of params that the kernel writes.
    """

    kernel: Kernel
    args: tuple[Arg, ...]
    writes: tuple[int, ...]

    def touched(self) -> list[Value]:
        """The values in whose memory the call reads or writes, in order of its params."""
        return [value for arg in self.args for value in values_of(arg)]

    def written(self) -> list[Value]:
        """The values in whose memory it writes."""
        return [value for w in self.writes for value in values_of(self.args[w])]

    def positions(self, value: Value) -> list[int]:
        """The params that lie in the memory of a value."""
        return [i for i, arg in enumerate(self.args) if value in values_of(arg)]


@dataclass(frozen=True, eq=False)
class Repeat:
    """A loop: the body runs on every trip."""

    trips: Trips
    body: tuple[KernelCall | Repeat, ...]


Step = KernelCall | Repeat


def values_of(arg: Arg) -> list[Value]:
    """The values in whose memory an argument lies (on some trip)."""
    if isinstance(arg, Turns):
        given = (*arg.rest, arg.first) if arg.first is not None else arg.rest
        return list(dict.fromkeys([value for place in given for value in values_of(place)]))
    return [arg.value if isinstance(arg, Part) else arg]


def moved(arg: Arg, to: Callable[[Value], Arg]) -> Arg:
    """The argument with every value replaced by where it lies."""
    if isinstance(arg, Turns):
        first = None if arg.first is None else moved(arg.first, to)
        return Turns(arg.loop, first, tuple([moved(place, to) for place in arg.rest]))
    if isinstance(arg, Part):
        return piece(to(arg.value), arg.type, arg.offset, arg.steps)
    return to(arg)


def piece(arg: Arg, type_: TensorType, offset: int, steps: tuple[tuple[Trips, int], ...] = ()) -> Arg:
    """A piece of an argument, which may itself be a piece, or take turns."""
    if isinstance(arg, Turns):
        first = None if arg.first is None else piece(arg.first, type_, offset, steps)
        return Turns(arg.loop, first, tuple([piece(place, type_, offset, steps) for place in arg.rest]))
    if isinstance(arg, Part):
        return Part(arg.value, type_, arg.offset + offset, (*arg.steps, *steps))
    return Part(arg, type_, offset, steps)


def calls_in(steps: Sequence[Step]) -> Iterator[KernelCall]:
    """All kernel calls, those in loops once, in order."""
    stack = list(reversed(steps))
    while stack:
        step = stack.pop()
        if isinstance(step, Repeat):
            stack.extend(reversed(step.body))
        else:
            yield step


S = TypeVar("S", bound=Step)


def with_args(steps: Sequence[S], to: Callable[[Value], Arg]) -> tuple[S, ...]:
    """The same steps with every value in their arguments replaced by where it lies."""
    result: list[Any] = []
    for step in steps:
        if isinstance(step, Repeat):
            result.append(Repeat(step.trips, with_args(step.body, to)))
        else:
            args = tuple([moved(arg, to) for arg in step.args])
            result.append(KernelCall(step.kernel, args, step.writes))
    return tuple(result)
