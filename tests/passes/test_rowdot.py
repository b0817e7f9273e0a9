"""Sums over rows of scores become sums over features, where that is the same."""

from __future__ import annotations

import numpy as np

import graphc as T
from graphc.ir.graph import Graph
from graphc.nn import functional as F
from graphc.passes import rowdot, simplify
from tests.ops.numeric import evaluate

SHAPES = ((2, 3, 6, 4), (2, 3, 7, 4), (2, 3, 7, 5))


def traced(function) -> tuple[Graph, Graph]:
    """The graph of the gradients of a function of three operands, before and after."""
    args = [T.zeros(*shape, dtype=T.float64) for shape in SHAPES]
    graph = simplify.run(T.trace(T.grad(lambda *xs: function(*xs).sin().sum(), (0, 1, 2)), *args))
    return graph, simplify.run(rowdot.run(graph))


def rows_summed(graph: Graph) -> int:
    return sum(n.op.name == "reduce_sum" and n.inputs[0].shape[-2:] == (6, 7) for n in graph.nodes)


def same(before: Graph, after: Graph) -> None:
    rng = np.random.default_rng(0)
    values = [
        rng.standard_normal(n.shape) if n.dtype.is_float else np.arange(n.type.size).reshape(n.shape)
        for n in before.inputs
    ]
    for a, b in zip(evaluate(before, values), evaluate(after, values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_gradient_of_attention() -> None:
    before, after = traced(lambda q, k, v: F.softmax(q @ k.transpose(-2, -1), -1) @ v)
    assert (rows_summed(before), rows_summed(after)) == (2, 1)  # the softmax's own sum stays
    same(before, after)


def test_the_known_output_is_used() -> None:
    _, after = traced(lambda q, k, v: F.softmax(q @ k.transpose(-2, -1), -1) @ v)
    assert sum(n.op.name == "dot_general" for n in after.nodes) == 6


def test_dropout_and_heads_as_one_batch() -> None:
    def run(q, k, v):
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        scores = T.bmm(q, k.transpose(1, 2)).view(2, 3, 6, 7) * 0.4
        weights = F.dropout(F.softmax(scores, -1), 0.3).view(6, 6, 7)
        return T.bmm(weights, v)

    before, after = traced(run)
    assert rows_summed(after) == 1
    same(before, after)


def test_an_output_that_is_not_in_the_graph_is_made() -> None:
    """A linear loss needs no output of attention, but its gradient does."""
    args = [T.zeros(*shape, dtype=T.float64) for shape in SHAPES]

    def loss(q, k, v):
        return (F.softmax(q @ k.transpose(-2, -1), -1) @ v).sum()

    before = simplify.run(T.trace(T.grad(loss, (0, 1, 2)), *args))
    after = simplify.run(rowdot.run(before))
    assert rows_summed(after) == 1
    same(before, after)


def test_other_sums_stay() -> None:
    def run(q, k, v):
        return (q @ k.transpose(-2, -1)).exp() @ v

    before, after = traced(run)
    assert after is before
