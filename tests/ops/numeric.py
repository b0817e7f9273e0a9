"""Evaluating graphs and taking numeric derivatives, for the tests of ops and autodiff."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc import ops
from graphc.autodiff import gradients
from graphc.backends.reference import Backend
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ops import input_

STEP = 1e-5


def evaluate(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph by the reference backend."""
    outputs = [np.empty(y.shape, y.dtype.numpy) for y in graph.outputs]
    assert Backend().compile(graph)(arrays, outputs) == 0
    return outputs


def dot(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(xs, ys, strict=True)))


def along(
    function: Callable[[list[np.ndarray]], float], point: Sequence[np.ndarray], direction: Sequence
) -> float:
    """The numeric derivative of a scalar function along a direction: fourth-order central differences."""

    def at(t: float) -> float:
        return function([p if d is None else p + t * d for p, d in zip(point, direction, strict=True)])

    return (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP)


def directions(rng: np.random.Generator, nodes: Sequence[Node]) -> list[np.ndarray | None]:
    """A random direction for each float input, None for the others."""
    return [rng.standard_normal(n.shape) if n.dtype.is_float else None for n in nodes]


def gradient_graph(graph: Graph) -> Graph:
    """The gradients of <output, ct> with respect to the float inputs, as a graph of inputs and ct."""
    floats = [x for x in graph.inputs if x.dtype.is_float]
    ct = input_(f"ct{len(graph.inputs)}", graph.outputs[0].type)  # unlike one that is already an input
    found = gradients(graph.outputs, [ct], floats)
    grads = [ops.zeros(x.type) if g is None else g for x, g in zip(floats, found, strict=True)]
    return Graph((*graph.inputs, ct), tuple(grads), (), (), "gradient")


def check_gradient(
    graph: Graph, arrays: Sequence[np.ndarray], rng: np.random.Generator, tolerance: float
) -> None:
    """The VJP of a one-output graph against numeric derivatives, along one random direction."""
    ct = rng.standard_normal(graph.outputs[0].shape)
    analytic = evaluate(gradient_graph(graph), [*arrays, ct])
    direction = directions(rng, graph.inputs)
    expected = along(lambda at: dot(evaluate(graph, at), [ct]), arrays, direction)
    got = dot(analytic, [d for d in direction if d is not None])
    scale = max(1.0, *[float(np.abs(a).max(initial=0.0)) for a in analytic])
    assert abs(got - expected) <= tolerance * scale, f"gradient {got}, numeric {expected}"


def weighted(graph: Graph, weights: Sequence[np.ndarray]) -> Graph:
    """The sum of weights * outputs, as a graph with one scalar output (weights are constants)."""
    total = None
    for y, w in zip(graph.outputs, weights, strict=True):
        term = ops.reduce_sum(ops.mul(y, ops.constant(w, y.dtype)), range(len(y.shape)))
        total = term if total is None else ops.add(total, term)
    assert total is not None
    return Graph(graph.inputs, (total,), (), (), "weighted")
