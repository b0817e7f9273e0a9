"""Plans of graphs with one group per node, and an executor that runs a plan's calls with NumPy.

The kernels say what the planner must know (who reads and writes what, and for elementwise nodes
at which index); what they compute is the node's own evaluation. So these tests see the planner
alone, on real memory.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from graphc import plan
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import interpret
from graphc.loop.ir import Buffer, For, Kernel, Store, Var, binary, index_const, load
from graphc.loop.lowered import KernelCall
from graphc.ops.evaluate import evaluate_node
from graphc.program import Place, Plan, Turn


def groups_of(graph: Graph) -> list[Group]:
    """Every computed node alone."""
    return [
        Group((node,), tuple(dict.fromkeys(node.inputs)), (node,))
        for node in graph.nodes
        if node.kind not in (Kind.INPUT, Kind.CONSTANT)
    ]


class Lowered:
    """Stand-in kernels for the nodes of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.node: dict[Kernel, Node] = {}
        self.groups = groups_of(graph)
        self.calls = {group: (self._call(group.nodes[0]),) for group in self.groups}

    def _call(self, node: Node) -> KernelCall:
        values = (*node.inputs, node)
        params = tuple(Buffer(f"p{i}", v.dtype, (v.type.size,)) for i, v in enumerate(values))
        i = Var(int64, "i", node.type.size)
        body = ()
        if node.kind is Kind.ELEMENTWISE:
            total = None
            for param in params[:-1]:
                term = load(param, (i,))
                total = term if total is None or total.dtype is not term.dtype else binary("add", total, term)
            body = (For(i, index_const(node.type.size), (Store(params[-1], (i,), total),)),)
        kernel = Kernel(node.op.name, params, Var(int64, "t", 1), 1, body)
        self.node[kernel] = node
        return KernelCall(kernel, values, (len(node.inputs),))


def make_plan(
    graph: Graph, donated: Mapping[int, int] | None = None, flags: Sequence[Node] = ()
) -> tuple[plan.Planned, Lowered]:
    lowered = Lowered(graph.with_outputs((*graph.outputs, *flags)))
    checks = [f"check {i}" for i in range(len(flags))]
    planned = plan.make(graph, lowered.groups, lowered.calls, donated=donated, flags=flags, checks=checks)
    return planned, lowered


def as_they_run(plan_: Plan) -> list[tuple[int, dict[int, int]]]:
    """(number of a call, trip of every loop around it) for every call, loops written out."""
    rows: list[tuple[int, dict[int, int]]] = []

    def walk(start: int, stop: int, numbers: Sequence[int], trips: dict[int, int]) -> None:
        at = start
        while at < stop:
            here = [n for n in numbers if plan_.loops[n].start == at]
            if not here:
                rows.append((at, trips))
                at += 1
                continue
            loop = plan_.loops[here[0]]
            inside = [n for n in numbers if n > here[0] and plan_.loops[n].stop <= loop.stop]
            for trip in range(loop.trips):
                walk(loop.start, loop.stop, inside, {**trips, here[0]: trip})
            at = loop.stop

    walk(0, len(plan_.calls), range(len(plan_.loops)), {})
    return rows


class Machine:
    """Runs a plan on real bytes, calls between two barriers in a random order: none may depend on it."""

    def __init__(self, plan_: Plan, nodes: Mapping[Kernel, Node], seed: int = 0) -> None:
        self.plan, self.nodes, self.pick = plan_, nodes, random.Random(seed)

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> int:
        arena = np.full(self.plan.arena_bytes, 0xA5, np.uint8)
        self.memory = {"input": inputs, "output": outputs, "constant": self.plan.constants, "arena": [arena]}
        segment: list[tuple[int, dict[int, int]]] = []
        for number, trips in as_they_run(self.plan):
            if self.plan.calls[number].barrier or number == self.plan.gate:
                if self._run(segment):
                    return self.status
                segment = []
            segment.append((number, trips))
        self._run(segment)
        return self.status

    status = 0

    def _run(self, segment: list[tuple[int, dict[int, int]]]) -> int:
        self.pick.shuffle(segment)
        for number, trips in segment:
            call = self.plan.calls[number]
            kernel = self.plan.kernels[call.kernel]
            places = zip(call.args, kernel.params, strict=True)
            self._call(kernel, [self._view(place, param, trips) for place, param in places])
        return self.status

    def _call(self, kernel: Kernel, arrays: Sequence[np.ndarray]) -> None:
        if kernel.name == "check":
            false = [i + 1 for i, flag in enumerate(arrays) if not flag]
            self.status = self.status or (false[0] if false else 0)
        elif kernel.name == "copy":
            arrays[1][...] = arrays[0]
        else:
            node = self.nodes[kernel]
            operands = [a.reshape(n.shape) for a, n in zip(arrays, node.inputs, strict=False)]
            arrays[-1][...] = evaluate_node(node, operands).reshape(-1)

    def _view(self, place: Place, param: Buffer, trips: Mapping[int, int]) -> np.ndarray:
        while isinstance(place, Turn):
            place = place.on(trips[place.loop])
        memory = self.memory[place.space][place.index]
        assert memory.flags.c_contiguous
        size = int(np.prod(param.shape, dtype=np.int64)) * param.dtype.itemsize
        low = place.offset + sum(trips[loop] * step for loop, step in place.steps)
        assert low >= 0
        assert low + size <= memory.nbytes
        raw = memory.reshape(-1).view(np.uint8)[low : low + size]
        return raw.view(param.dtype.numpy).reshape(param.shape)


class Interpreted(Machine):
    """The same for real kernels, interpreted; tasks in a random order."""

    def __init__(self, plan_: Plan, seed: int = 0) -> None:
        super().__init__(plan_, {}, seed)

    def _call(self, kernel: Kernel, arrays: Sequence[np.ndarray]) -> None:
        tasks = list(range(kernel.tasks))
        self.pick.shuffle(tasks)
        self.status = self.status or interpret.run(kernel, arrays, tuple(tasks))
