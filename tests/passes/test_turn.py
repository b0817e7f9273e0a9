"""Loops turned by half a step: which are, what they compute, how many kernels a trip takes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops, pipeline
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float64
from graphc.ops.scan import Loop
from graphc.passes.turn import turned

from ..planned import Interpreted
from ..test_plan import check_buffers

BATCH, WIDTH = 3, 16
rng = np.random.default_rng(5)


def node(name: str, *shape: int) -> Node:
    return ops.input_(name, TensorType(shape, float64))


def recurrence(length: int, reverse: bool = False, **wanted: bool) -> Graph:
    """Two carries; the first is a contraction of what is computed from both and from two xs.

    late      the contraction of every step is wanted
    final     the second carry after the last step is wanted
    argument  a step emits the carry as it is before the step
    """
    d, c, x, y = (node(name, BATCH, WIDTH) for name in "dcxy")
    weight = node("weight", 2 * WIDTH, WIDTH)
    both = ops.add(ops.mul(d, x), c)
    gates = ops.concat([ops.mul(both, y), ops.sub(both, x)], 1)
    after = ops.mul(both, ops.tanh(y))
    product = ops.dot_general(gates, weight, ((1,), (0,)), ((), ()))
    emits = [gates, ops.add(both, y)]
    emits += [product] * wanted.get("late", False) + [d] * wanted.get("argument", False)
    xs, ys = node("xs", length, BATCH, WIDTH), node("ys", length, BATCH, WIDTH)
    first, second = node("first", BATCH, WIDTH), node("second", BATCH, WIDTH)
    made = ops.scan([d, c], [x, y], [product, after], emits, [first, second], [xs, ys], reverse=reverse)
    outputs = (*made.stacked, *[made.finals[1]] * wanted.get("final", False))
    return Graph((first, second, xs, ys, weight), outputs)


def arrays_for(graph: Graph) -> list[np.ndarray]:
    return [0.3 * rng.standard_normal(n.shape) for n in graph.inputs]


def is_turned(graph: Graph) -> bool:
    results = [n for n in graph.nodes if n.op.name == "scan"]
    loop: Loop = results[0].attrs.loop
    return turned(loop, results) is not None


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_values(length: int, reverse: bool) -> None:
    """One kernel a trip; memory and barriers are right in any order of calls that the barriers allow."""
    graph = recurrence(length, reverse)
    assert is_turned(graph)
    arrays = arrays_for(graph)
    expected = pipeline.compile(graph, backend="reference")([a.copy() for a in arrays])
    planned = pipeline.inspect(graph).planned
    assert planned is not None
    check_buffers(planned)
    (loop,) = planned.plan.loops
    assert (loop.stop - loop.start, loop.trips) == (1, length - 1)
    outputs = [np.full(n.shape, 99.0) for n in graph.outputs]
    assert Interpreted(planned.plan, seed=length)([a.copy() for a in arrays], outputs) == 0
    for made in (outputs, pipeline.compile(graph)([a.copy() for a in arrays])):
        for a, e in zip(made, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", ["late", "final", "argument"])
def test_what_the_last_step_makes_is_not_lost(wanted: str) -> None:
    """Loops that are not turned, since something is wanted that only comes after the early part."""
    graph = recurrence(4, **{wanted: True})
    assert not is_turned(graph)
    arrays = arrays_for(graph)
    expected = pipeline.compile(graph, backend="reference")([a.copy() for a in arrays])
    made = pipeline.compile(graph)([a.copy() for a in arrays])
    for a, e in zip(made, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)
