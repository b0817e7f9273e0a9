"""From lowered groups to a Plan: order, memory and barriers of all kernel calls.

groups + calls --storage--> works with places --schedule--> order --here--> arena, slots, barriers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.analysis.arena import aligned, lower_bound
from graphc.analysis.barriers import Range, Touched, barriers
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.lifetimes import ArenaBuffer, Listing, arena
from graphc.loop.ir import Kernel
from graphc.loop.lowered import Arg, KernelCall, Part, Step, Turns, Value, calls_in
from graphc.loop.scratch import scratch_bytes
from graphc.program import Call, Place, Plan, Slot, Turn, check_donations
from graphc.schedule import order
from graphc.storage import lay_out


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan and how it came about: `steps[i]` is call i on values, `buffers` the arena.

    graph  what was planned; its last inputs are the outputs of `setup`, if there is one
    setup  the plan that computes what is kept from call to call
    """

    graph: Graph
    plan: Plan
    steps: tuple[KernelCall, ...]
    buffers: tuple[ArenaBuffer, ...]
    setup: Planned | None = None


def make(
    graph: Graph,
    groups: Sequence[Group],
    calls: Mapping[Group, Sequence[Step]],
    *,
    donated: Mapping[int, int] | None = None,
    flags: Sequence[Value] = (),
    checks: Sequence[str] = (),
    prelude: Sequence[KernelCall] = (),
    parts: Mapping[Node, Part] | None = None,
    setup: Planned | None = None,
) -> Planned:
    """Plan a program.

    graph    its outputs are the program's; every input has a slot, read or not
    groups   a partition of the graph (with flags that the prelude does not write as further outputs)
    calls    the lowered calls of each group (alias groups need none)
    donated  output position -> input position to overwrite; at most one output an input
    flags    bool scalars that must all be true; checks[i] says what it means if flags[i] is not
    prelude  calls on inputs, constants and temporaries of their own that write flags
    parts    nodes that lie inside other values of the calls
    setup    the plan whose outputs are the last inputs of this one
    """
    donated = dict(donated or {})
    check_donations(graph, donated)
    layout = lay_out(graph, groups, calls, flags, donated, prelude, parts or {})
    precedence = layout.precedence
    sequence = order(precedence, layout.arena_size())
    listing = Listing()
    for i in sequence:
        listing.add(precedence.works[i].steps)
    gate = 0
    if layout.gate is not None:
        ran = sequence[: sequence.index(layout.gate) + 1]
        gate = sum(len(list(calls_in(precedence.works[i].steps))) for i in ran)
    buffers = arena(listing, layout.place)
    place = dict(layout.place)
    for buffer in buffers:
        place.update((value, Slot("arena", 0, buffer.offset)) for value in buffer.values)
    kernels = tuple(dict.fromkeys(call.kernel for call in listing.calls))
    plan = Plan(
        kernels=kernels,
        calls=_calls(listing, kernels, _Places(listing, place, donated)),
        inputs=tuple(node.type for node in graph.inputs),
        outputs=tuple(node.type for node in graph.outputs),
        constants=tuple(_constant_array(node) for node in layout.constants),
        donated=donated,
        arena_bytes=max((b.offset + aligned(b.interval.size) for b in buffers), default=0),
        arena_lower_bound=lower_bound([b.interval for b in buffers]),
        scratch_bytes=max((scratch_bytes(kernel) for kernel in kernels), default=0),
        gate=gate,
        checks=tuple(checks),
        loops=tuple(listing.loops),
    )
    return Planned(graph, plan, tuple(listing.calls), buffers, setup)


def _constant_array(node: Node) -> np.ndarray:
    return np.ascontiguousarray(node.attrs.array).reshape(node.shape)


# ------------------------------------------------------------------------ calls


class _Places:
    """Where arguments lie, as a backend sees it, and the bytes they are."""

    def __init__(self, listing: Listing, place: Mapping[Value, Slot], donated: Mapping[int, int]) -> None:
        self.listing, self.place, self.donated = listing, place, donated

    def of(self, arg: Arg) -> Place:
        """The place of an argument."""
        if isinstance(arg, Turns):
            first = None if arg.first is None else self.of(arg.first)
            return Turn(self.listing.number[arg.loop], first, tuple([self.of(a) for a in arg.rest]))
        if isinstance(arg, Part):
            slot = self.place[arg.value]
            steps = tuple([(self.listing.number[loop], step) for loop, step in arg.steps])
            return replace(slot, offset=slot.offset + arg.offset, steps=steps)
        return self.place[arg]

    def range_of(self, place: Place, size: int, trips: Mapping[int, int]) -> Range:
        """The `size` bytes at a place on some trips."""
        while isinstance(place, Turn):
            place = place.on(trips[place.loop])
        memory: tuple[str, int] = (place.space, place.index)
        if place.space == "output" and place.index in self.donated:
            memory = ("input", self.donated[place.index])
        low = place.offset + sum([trips[loop] * step for loop, step in place.steps])
        return Range(memory, low, low + size)


def _calls(listing: Listing, kernels: Sequence[Kernel], places: _Places) -> tuple[Call, ...]:
    number = {kernel: i for i, kernel in enumerate(kernels)}
    args = [tuple([places.of(arg) for arg in call.args]) for call in listing.calls]

    def touches(i: int, trips: Mapping[int, int]) -> Touched:
        call = listing.calls[i]
        sizes = [arg.type.nbytes for arg in call.args]
        ranges = [places.range_of(p, size, trips) for p, size in zip(args[i], sizes, strict=True)]
        reads = [r for k, r in enumerate(ranges) if k not in call.writes]
        return reads, [ranges[w] for w in call.writes]

    flags = barriers(touches, len(listing.calls), listing.loops)
    return tuple(
        Call(number[call.kernel], places_, flag)
        for call, places_, flag in zip(listing.calls, args, flags, strict=True)
    )
