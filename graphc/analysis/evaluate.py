"""Values of nodes by NumPy, straight from the ops' definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Node
from graphc.ops.scan import evaluate_order


def evaluate_nodes(nodes: Sequence[Node], inputs: Mapping[Node, np.ndarray]) -> list[np.ndarray]:
    """The values of `nodes`; `inputs` gives those of the INPUT nodes they depend on."""
    values = dict(inputs)
    evaluate_order(toposort(nodes), values)
    return [values[node] for node in nodes]


def evaluate_graph(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph for given inputs."""
    return evaluate_nodes(graph.outputs, dict(zip(graph.inputs, inputs, strict=True)))
