"""From lowered groups to a Plan: order, memory and barriers of all kernel calls.

groups + calls --storage--> works with places --schedule--> order --here--> arena, slots, barriers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.analysis.arena import Interval, lower_bound, pack
from graphc.analysis.barriers import Range, barriers
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.loop.inplace import inplace_pairs
from graphc.loop.ir import Kernel
from graphc.loop.lowered import KernelCall
from graphc.loop.scratch import scratch_bytes
from graphc.program import Call, Plan, Slot
from graphc.schedule import Value, order
from graphc.storage import lay_out


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan and how it came about, for reports: `steps[i]` is call i on values, `buffers` the arena."""

    plan: Plan
    steps: tuple[KernelCall, ...]
    buffers: tuple[ArenaBuffer, ...]


@dataclass(frozen=True, eq=False)
class ArenaBuffer:
    """Arena memory of one value, or of a chain of values that overwrite each other."""

    values: tuple[Value, ...]
    interval: Interval
    offset: int


def make(
    graph: Graph,
    groups: Sequence[Group],
    calls: Mapping[Group, Sequence[KernelCall]],
    *,
    donated: Mapping[int, int] | None = None,
    flags: Sequence[Value] = (),
    checks: Sequence[str] = (),
    prelude: Sequence[KernelCall] = (),
) -> Planned:
    """Plan a program.

    graph    its outputs are the program's; every input has a slot, read or not
    groups   a partition of the graph (with flags that the prelude does not write as further outputs)
    calls    the lowered calls of each group (alias groups need none)
    donated  output position -> input position to overwrite; at most one output an input
    flags    bool scalars that must all be true; checks[i] says what it means if flags[i] is not
    prelude  calls on inputs, constants and temporaries of their own that write flags
    """
    donated = dict(donated or {})
    check_donations(graph, donated)
    layout = lay_out(graph, groups, calls, flags, donated, prelude)
    precedence = layout.precedence
    sequence = order(precedence, layout.arena_size())
    steps = [call for i in sequence for call in precedence.works[i].calls]
    gate = 0
    if layout.gate is not None:
        ran = sequence[: sequence.index(layout.gate) + 1]
        gate = sum(len(precedence.works[i].calls) for i in ran)
    buffers = _arena(steps, layout.place)
    place = dict(layout.place)
    for buffer in buffers:
        place.update((value, Slot("arena", 0, buffer.offset)) for value in buffer.values)
    kernels = tuple(dict.fromkeys(call.kernel for call in steps))
    plan = Plan(
        kernels=kernels,
        calls=_calls(steps, kernels, place, donated),
        inputs=tuple(node.type for node in graph.inputs),
        outputs=tuple(node.type for node in graph.outputs),
        constants=tuple(_constant_array(node) for node in layout.constants),
        donated=donated,
        arena_bytes=max((b.offset + b.interval.size for b in buffers), default=0),
        arena_lower_bound=lower_bound([b.interval for b in buffers]),
        scratch_bytes=max((scratch_bytes(kernel) for kernel in kernels), default=0),
        gate=gate,
        checks=tuple(checks),
    )
    return Planned(plan, tuple(steps), buffers)


def check_donations(graph: Graph, donated: Mapping[int, int]) -> None:
    """Raise ValueError unless each donated input has its output's type and is donated once."""
    for output, input_ in donated.items():
        old, new = graph.inputs[input_].type, graph.outputs[output].type
        if old != new:
            raise ValueError(f"output {output} is {new}: it cannot take the memory of input {input_}, {old}")
    if len(set(donated.values())) != len(donated):
        raise ValueError(f"an input can be donated to one output only (given {dict(donated)})")


def _constant_array(node: Node) -> np.ndarray:
    return np.ascontiguousarray(node.attrs.array).reshape(node.shape)


# ------------------------------------------------------------------------ arena


def _arena(steps: Sequence[KernelCall], place: Mapping[Value, Slot]) -> tuple[ArenaBuffer, ...]:
    """Lifetimes of the values without a place, chained in place where possible, and packed."""
    life = lifetimes(steps, place)
    chains = _chain_in_place(steps, life)
    intervals = [
        Interval(chain[0].type.nbytes, life[chain[0]][0], max(life[v][1] for v in chain)) for chain in chains
    ]
    if not intervals:
        return ()
    offsets, _ = pack(intervals)
    return tuple(
        ArenaBuffer(tuple(chain), interval, offset)
        for chain, interval, offset in zip(chains, intervals, offsets, strict=True)
    )


def lifetimes(steps: Sequence[KernelCall], place: Mapping[Value, Slot]) -> dict[Value, tuple[int, int]]:
    """First and last call that touches each value of the arena."""
    life: dict[Value, tuple[int, int]] = {}
    for i, call in enumerate(steps):
        for value in call.args:
            if value not in place:
                life[value] = (life.get(value, (i, i))[0], i)
    return life


def _chain_in_place(steps: Sequence[KernelCall], life: Mapping[Value, tuple[int, int]]) -> list[list[Value]]:
    """Group values into chains: each is written, by one kernel, over the one before it, which dies there."""
    chain_of: dict[Value, list[Value]] = {}
    for i, call in enumerate(steps):
        for value in call.args:
            if value in life and value not in chain_of:
                previous = _dying_operand(i, call, value, life, chain_of)
                chain = chain_of[previous] if previous is not None else []
                chain.append(value)
                chain_of[value] = chain
    return list({id(chain): chain for chain in chain_of.values()}.values())


def _dying_operand(
    i: int,
    call: KernelCall,
    value: Value,
    life: Mapping[Value, tuple[int, int]],
    chain_of: Mapping[Value, list[Value]],
) -> Value | None:
    """An operand of call `i` that `value`, written there, may take the memory of."""
    written = [w for w in call.writes if call.args[w] is value]
    if len(written) != 1:
        return None
    pairs = None
    for operand in call.args:
        if operand is value or operand not in chain_of or life[operand][1] != i:
            continue
        if operand.type.nbytes != value.type.nbytes or chain_of[operand][-1] is not operand:
            continue
        if pairs is None:
            pairs = inplace_pairs(call.kernel)
        positions = [r for r, arg in enumerate(call.args) if arg is operand]
        if all((r, written[0]) in pairs for r in positions):
            return operand
    return None


# ------------------------------------------------------------------------ calls


def _calls(
    steps: Sequence[KernelCall],
    kernels: Sequence[Kernel],
    place: Mapping[Value, Slot],
    donated: Mapping[int, int],
) -> tuple[Call, ...]:
    number = {kernel: i for i, kernel in enumerate(kernels)}

    def range_of(value: Value) -> Range:
        slot = place[value]
        memory: tuple[str, int] = (slot.space, slot.index)
        if slot.space == "output" and slot.index in donated:
            memory = ("input", donated[slot.index])
        return Range(memory, slot.offset, slot.offset + value.type.nbytes)

    reads, writes = [], []
    for call in steps:
        reads.append([range_of(v) for i, v in enumerate(call.args) if i not in call.writes])
        writes.append([range_of(call.args[i]) for i in call.writes])
    flags = barriers(reads, writes)
    return tuple(
        Call(number[call.kernel], tuple(place[value] for value in call.args), flag)
        for call, flag in zip(steps, flags, strict=True)
    )
