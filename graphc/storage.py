"""Which memory every value of a program lives in, decided before scheduling.

Inputs and constants have places of their own; a computed output is written where the caller wants
it; everything else goes to the arena. This module adds the copies that this takes and the
precedences that make in-place updates of donated inputs safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphc.aliases import Aliases, is_alias
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.inplace import inplace_pairs
from graphc.loop.lowered import (
    KernelCall,
    Part,
    Repeat,
    Step,
    Temp,
    Value,
    calls_in,
    moved,
    values_of,
)
from graphc.plan_kernels import check_call, copy_call
from graphc.program import Slot
from graphc.schedule import Precedence, Work, work_of


@dataclass(eq=False)
class Layout:
    """Works with their precedence and the places of values; `place` lacks the arena's values.

    `gate` is the index of the work that tests the check flags, if there are any.
    """

    precedence: Precedence = field(default_factory=Precedence)
    place: dict[Value, Slot] = field(default_factory=dict)
    constants: list[Node] = field(default_factory=list)
    gate: int | None = None

    def arena_size(self) -> dict[Value, int]:
        """Bytes of every value that needs arena memory."""
        sizes: dict[Value, int] = {}
        for work in self.precedence.works:
            for value in (*work.writes, *work.internal):
                if value not in self.place:
                    sizes[value] = value.type.nbytes
        return sizes


def lay_out(
    graph: Graph,
    groups: Sequence[Group],
    calls: Mapping[Group, Sequence[Step]],
    flags: Sequence[Value],
    donated: Mapping[int, int],
    prelude: Sequence[KernelCall] = (),
    parts: Mapping[Node, Part] | None = None,
) -> Layout:
    """Give places to the inputs, constants and outputs of `graph` (see the module's text).

    groups   a partition of the graph (with those flags as further outputs that are not written by
             the prelude); alias groups need no calls
    prelude  calls on inputs and temporaries of their own that come first
    donated  output position -> input position whose memory it takes over
    parts    nodes that lie inside other values, which the calls write
    """
    return _Builder(graph, groups, calls, flags, donated, prelude, parts or {}).run()


class _Builder:
    def __init__(
        self,
        graph: Graph,
        groups: Sequence[Group],
        calls: Mapping[Group, Sequence[Step]],
        flags: Sequence[Value],
        donated: Mapping[int, int],
        prelude: Sequence[KernelCall],
        parts: Mapping[Node, Part],
    ) -> None:
        self.graph = graph
        self.donated = dict(donated)
        self.aliases = Aliases(parts)
        self.shared = frozenset(part.value for part in parts.values())
        self.layout = Layout()
        for call in prelude:
            self.layout.precedence.add(Work((call,)))
        for group in groups:
            if is_alias(group):
                self.aliases.rename(group)
            else:
                self._add(calls[group])
        self.flags = [self.aliases.root(flag) for flag in flags]

    def run(self) -> Layout:
        layout = self.layout
        for i, node in enumerate(self.graph.inputs):
            layout.place[node] = Slot("input", i)
        self._place_constants()
        if self.flags:
            layout.gate = layout.precedence.add(Work((check_call(self.flags),)))
        self._place_outputs()
        self._close_gate()
        return layout

    def _add(self, steps: Sequence[Step]) -> None:
        """Enter a group's calls; those that write no bytes are dropped."""
        resolved = self._resolved(steps)
        if resolved:
            self.layout.precedence.add(work_of(resolved, self.shared))

    def _resolved(self, steps: Sequence[Step]) -> list[Step]:
        result: list[Step] = []
        for step in steps:
            if isinstance(step, Repeat):
                body = self._resolved(step.body)
                result += [Repeat(step.trips, tuple(body))] if body else []
            elif any(step.args[w].type.nbytes for w in step.writes):
                args = tuple([moved(arg, self.aliases.root) for arg in step.args])
                result.append(KernelCall(step.kernel, args, step.writes))
        return result

    def _place_constants(self) -> None:
        layout = self.layout
        calls = [call for work in layout.precedence.works for call in calls_in(work.steps)]
        used = [value for call in calls for value in call.touched()]
        for arg in (*(self.aliases.root(node) for node in self.graph.outputs), *self.flags):
            used += values_of(arg)
        for value in used:
            if isinstance(value, Node) and value.kind is Kind.CONSTANT and value not in layout.place:
                layout.place[value] = Slot("constant", len(layout.constants))
                layout.constants.append(value)

    # ------------------------------------------------------------------ outputs

    def _place_outputs(self) -> None:
        """Write each computed output in place where that is safe, and copy the rest.

        Copies of inputs and constants come first: they read old values that updates overwrite.
        """
        before_gate = self._before_gate()
        given: list[tuple[int, int]] = []
        computed: dict[Value, list[int]] = {}
        parts: list[tuple[Part, int]] = []
        for position, node in enumerate(self.graph.outputs):
            value = self.aliases.root(node)
            if isinstance(value, Part):
                parts.append((value, position))
            elif value.type.nbytes and value in self.layout.place:
                given += self._pass_through(value, position)
            elif value.type.nbytes:
                computed.setdefault(value, []).append(position)
        for work, position in given:
            self._after_readers(work, position)
        homes = {value: self._choose_home(value, computed[value], before_gate) for value in computed}
        for part, position in parts:
            self._after_readers(self._copy_out(part, position), position)
        for value, positions in computed.items():
            for position in positions:
                if position != homes[value]:
                    self._after_readers(self._copy_out(value, position), position)

    def _before_gate(self) -> set[int]:
        gate = self.layout.gate
        return set() if gate is None else self.layout.precedence.ancestors(gate)

    def _pass_through(self, value: Value, position: int) -> list[tuple[int, int]]:
        """Copy an input or constant to an output; nothing to do for state that keeps its value."""
        place = self.layout.place[value]
        target = self.donated.get(position)
        if place.space == "input" and target == place.index:
            return []
        if target is not None and place.space == "input" and place.index in self.donated.values():
            value = self._staged(value)  # two states may swap: save the old value first
        return [(self._copy_out(value, position), position)]

    def _staged(self, value: Value) -> Temp:
        temp = Temp("staged", value.type)
        self.layout.precedence.add(Work((copy_call(value, temp),)))
        return temp

    def _choose_home(self, value: Value, positions: Sequence[int], before_gate: set[int]) -> int | None:
        """Place a value in one of its outputs: over a donated input if safe, else in a fresh array."""
        home = next((p for p in positions if self._update_in_place(value, p, before_gate)), None)
        if home is None:
            home = next((p for p in positions if p not in self.donated), None)
        if home is not None:
            self.layout.place[value] = Slot("output", home)
        return home

    def _update_in_place(self, value: Value, position: int, before_gate: set[int]) -> bool:
        """Let `value` overwrite the donated input if all readers of the old value can come first."""
        if position not in self.donated:
            return False
        old = self.graph.inputs[self.donated[position]]
        precedence = self.layout.precedence
        writer = precedence.producer[value]
        others = [i for i in precedence.readers.get(old, ()) if i != writer]
        if writer in before_gate or not self._reads_before_write(precedence.works[writer], old, value):
            return False
        if precedence.reaches(writer, others):
            return False
        for reader in others:
            precedence.add_edge(reader, writer)
        return True

    def _reads_before_write(self, work: Work, old: Value, new: Value) -> bool:
        """Whether the work is done with each location of `old` when it writes it as `new`."""
        written = False
        for call in work.steps:
            if isinstance(call, Repeat):
                if any(inner.positions(old) for inner in calls_in((call,))):
                    return False
                continue
            if any(arg is not v and v in values_of(arg) for arg in call.args for v in (old, new)):
                return False
            reads = [i for i, arg in enumerate(call.args) if arg is old]
            writes = [i for i in call.writes if call.args[i] is new]
            if reads and written:
                return False
            pairs = inplace_pairs(call.kernel) if reads and writes else frozenset()
            if any((r, w) not in pairs for r in reads for w in writes):
                return False
            written = written or bool(writes)
        return True

    def _copy_out(self, value: Value | Part, position: int) -> int:
        """The number of a work that copies a value to an output."""
        target = Temp(f"out{position}", value.type)
        self.layout.place[target] = Slot("output", position)
        return self.layout.precedence.add(Work((copy_call(value, target),)))

    def _after_readers(self, work: int, position: int) -> None:
        """A work that overwrites donated memory waits for all readers of the old value."""
        if position in self.donated:
            old = self.graph.inputs[self.donated[position]]
            for reader in self.layout.precedence.readers.get(old, ()):
                if reader != work:
                    self.layout.precedence.add_edge(reader, work)

    def _close_gate(self) -> None:
        """Everything that the checks do not need runs after them."""
        gate = self.layout.gate
        if gate is None:
            return
        precedence = self.layout.precedence
        first = precedence.ancestors(gate) | {gate}
        for i, sources in enumerate(precedence.before):
            if i not in first and sources <= first:
                precedence.add_edge(gate, i)
