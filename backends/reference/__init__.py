"""The reference backend: NumPy over the Graph, node by node. It is the oracle, not fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ops.evaluate import evaluate_node
from graphc.ops.scan import evaluate_siblings, key_of, siblings
from graphc.program import Executable, Plan


class Backend:
    """Runs graphs as they are; needs no plan."""

    name = "reference"
    wants_graph = True

    def compile(self, graph: Graph, plan: Plan | None = None) -> Executable:
        """An executable of `graph`. Failed checks give the status 1 + their number among its CHECK nodes."""
        return Interpreter(graph)


class Interpreter:
    """Evaluates a graph's nodes in order, and forgets each value after its last use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.checks: tuple[Node, ...] = tuple(n for n in graph.nodes if n.kind is Kind.CHECK)
        self._last = _last_uses(graph)
        self._loops = siblings(graph.nodes)

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> int:
        """Run; outputs are written only when every check held (they may be the memory of inputs)."""
        values = dict(zip(self.graph.inputs, inputs, strict=True))
        codes = {node: code for code, node in enumerate(self.checks, 1)}
        for position, node in enumerate(self.graph.nodes):
            if node in values:
                continue
            operands = [values[x] for x in node.inputs]
            if node in codes and not node.attrs.holds(operands[0]):
                return codes[node]
            if node.kind is Kind.SCAN:
                group = self._loops[key_of(node)]
                values.update(zip(group, evaluate_siblings(group, operands), strict=True))
            else:
                values[node] = evaluate_node(node, operands)
            for dead in self._last[position]:
                del values[dead]
        # An output may be an input's memory (donation): nothing is overwritten before it was read.
        results = [np.array(values[node]) for node in self.graph.outputs]
        for target, result in zip(outputs, results, strict=True):
            np.copyto(target, result, casting="no")
        return 0


def _last_uses(graph: Graph) -> list[list[Node]]:
    """For each position, the operands that nothing later reads."""
    seen = set(graph.outputs) | set(graph.inputs)
    dead: list[list[Node]] = [[] for _ in graph.nodes]
    for position in range(len(graph.nodes) - 1, -1, -1):
        for operand in graph.nodes[position].inputs:
            if operand not in seen:
                seen.add(operand)
                dead[position].append(operand)
    return dead
