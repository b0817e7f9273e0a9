"""A piece of graph that is made again and again, on other inputs, without asking who built it first."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.node import Attrs, Node, Op, make_typed
from graphc.ir.types import TensorType


class Recipe:
    """How `outputs` follow from `inputs`, as a list of steps.

    Calling it with nodes of the inputs' types makes the same piece on them: the nodes that the builder
    would have made, at a fraction of the cost, as types are known and nothing is looked at. `inputs` are
    distinct; what `outputs` need besides them (constants) is kept.
    """

    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
        at = {node: i for i, node in enumerate(inputs)}
        self._kept: list[Node] = []
        self._steps: list[tuple[Op, Attrs, TensorType, tuple[int, ...]]] = []
        order, varying = _order(inputs, outputs)
        for node in order:
            if node not in varying:
                at[node] = len(at)
                self._kept.append(node)
        for node in order:
            if node in varying:
                at[node] = len(at)
                self._steps.append((node.op, node.attrs, node.type, tuple([at[n] for n in node.inputs])))
        self._outputs = [at[node] for node in outputs]

    def __call__(self, inputs: Sequence[Node]) -> list[Node]:
        """The outputs on other inputs."""
        made = [*inputs, *self._kept]
        for op, attrs, type_, places in self._steps:
            made.append(make_typed(op, tuple([made[i] for i in places]), attrs, type_))
        return [made[i] for i in self._outputs]


def _order(inputs: Sequence[Node], outputs: Sequence[Node]) -> tuple[list[Node], set[Node]]:
    """What lies between, operands first; and those of them that depend on `inputs`."""
    done, varying = set(inputs), set(inputs)
    order: list[Node] = []
    stack = list(outputs)[::-1]
    while stack:
        node = stack.pop()
        if node in done:
            continue
        waiting = [n for n in node.inputs if n not in done]
        if waiting:
            stack += (node, *waiting[::-1])
            continue
        done.add(node)
        order.append(node)
        if not varying.isdisjoint(node.inputs):
            varying.add(node)
    return order, varying


def frontier(inputs: Sequence[Node], outputs: Sequence[Node]) -> list[Node]:
    """What `outputs` read that does not depend on `inputs`: given these, the rest follows from `inputs`."""
    order, varying = _order(inputs, outputs)
    read = [n for node in order if node in varying for n in node.inputs]
    return list(dict.fromkeys(n for n in (*read, *outputs) if n not in varying))
