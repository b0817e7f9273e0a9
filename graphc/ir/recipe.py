"""A piece of graph that is made again and again, on other inputs, without asking who built it first."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import depending, toposort
from graphc.ir.node import Kind, Node, Step, make_all, picked


class Recipe:
    """How `outputs` follow from `inputs`, as a list of steps.

    Calling it with nodes of the inputs' types makes the same piece on them: the nodes that the builder
    would have made, at a fraction of the cost, as types are known and nothing is looked at. `inputs` are
    distinct; what `outputs` need besides them must be constants (ValueError otherwise).
    """

    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
        at = {node: i for i, node in enumerate(inputs)}
        self.steps: list[Step] = []
        for node in toposort(outputs, inputs):
            if node.kind is Kind.INPUT:
                raise ValueError(f"{node} is none of the inputs")
            at[node] = len(at)
            self.steps.append((node.op, node.attrs, node.type, picked([at[n] for n in node.inputs])))
        self._outputs = [at[node] for node in outputs]

    def __call__(self, inputs: Sequence[Node]) -> list[Node]:
        """The outputs on other inputs."""
        made = list(inputs)
        make_all(self.steps, made)
        return [made[i] for i in self._outputs]


def frontier(inputs: Sequence[Node], outputs: Sequence[Node]) -> list[Node]:
    """What `outputs` read that does not depend on `inputs`: given these, the rest follows from `inputs`."""
    order = toposort(outputs, inputs)
    varying = depending(order, inputs)
    read = [n for node in order if node in varying for n in node.inputs]
    return list(dict.fromkeys(n for n in (*read, *outputs) if n not in varying))
