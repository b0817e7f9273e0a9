"""Sums of one-hot values: their one term, for labels inside and outside the range; losses read rows once."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import lookup, ops, pipeline
from graphc.analysis.evaluate import evaluate_graph
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.types import TensorType, float32, int64
from graphc.ir.verify import verify
from graphc.passes import sums

SHAPE = (4, 6, 3)
LABELS = np.array([[0, 5, 2], [-1, 6, 3], [5, 5, -100], [1, 0, 700]])
X = ops.input_("x", TensorType(SHAPE, float32))
Y = ops.input_("y", TensorType(SHAPE, float32))
R = ops.input_("r", TensorType((4, 3), float32))
L = ops.input_("l", TensorType((4, 3), int64))


def one_hot(value: Node, labels: Node = L, axis: int = 1) -> Node:
    """`value` where the index along the axis is the label, elsewhere zero."""
    hit = ops.eq(ops.iota(SHAPE, axis, int64), ops.broadcast(labels, SHAPE, (0, 2)))
    return ops.select(hit, value, ops.like(value, 0))


def rewritten(node: Node, labels: np.ndarray) -> Graph:
    """The graph after the pass, which changes no bit of the value."""
    graph = Graph((X, Y, R, L), (node,))
    new = sums.run(graph)
    verify(new, ops.REGISTRY)
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(n.shape).astype(np.float32) for n in (X, Y, R)]
    values[1][...] = np.where(rng.random(SHAPE) < 0.2, np.nan, values[1])
    for before, after in zip(
        evaluate_graph(graph, [*values, labels]), evaluate_graph(new, [*values, labels]), strict=True
    ):
        np.testing.assert_array_equal(after, before)
    return new


def sums_of(graph: Graph) -> int:
    """Sums over more than one element."""
    return sum(n.kind is Kind.REDUCE for n in graph.nodes)


WIDE_R = ops.broadcast(R, SHAPE, (0, 2))
CASES = {
    "the value at the label": (one_hot(X), 0),
    "the negative": (ops.neg(one_hot(X)), 0),
    "equal for all classes": (one_hot(WIDE_R), 0),
    "a number": (one_hot(ops.like(X, 2.5)), 0),
    "with a common factor": (ops.mul(one_hot(X), WIDE_R), 0),
    "times what varies stays": (ops.mul(one_hot(X), Y), 1),
    "no zero elsewhere": (ops.select(one_hot(X).inputs[0], X, ops.like(X, 1)), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_sums(name: str) -> None:
    value, left = CASES[name]
    graph = rewritten(ops.reduce_sum(value, (1,)), LABELS)
    assert sums_of(graph) == left


def test_checked_labels_are_not_checked_again() -> None:
    checked = ops.check_index(L, 0, SHAPE[1], "far")
    graph = rewritten(ops.reduce_sum(one_hot(X, checked), (1,)), LABELS.clip(0, 5))
    assert sums_of(graph) == 0
    assert not {n.op.name for n in graph.nodes} & {"minimum", "maximum", "le", "lt", "select"}
    loose = ops.check_index(L, -1, SHAPE[1] + 1, "far")
    graph = rewritten(ops.reduce_sum(one_hot(X, loose), (1,)), LABELS.clip(-1, 6))
    assert "minimum" in {n.op.name for n in graph.nodes}


def test_only_along_the_axis_of_the_labels() -> None:
    graph = rewritten(ops.reduce_sum(one_hot(X), (2,)), LABELS)
    assert sums_of(graph) == 1
    graph = rewritten(ops.reduce_sum(one_hot(X), (0, 1)), LABELS)
    assert sums_of(graph) == 1


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 3}])
def test_a_loss_and_its_gradient_read_the_scores_once(options: dict) -> None:
    """One kernel reads the scores and writes their gradient: 300 rows of 700 classes are in memory once."""
    programs = []

    def loss(x, y):
        x = x.detach().requires_grad_()
        value = gc.nn.functional.cross_entropy(x, y, **options)
        return value.detach(), gc.autograd.grad(value, x)[0]

    rng = np.random.default_rng(0)
    x = gc.from_numpy(rng.standard_normal((300, 700), dtype=np.float32))
    y = gc.from_numpy(rng.integers(0, 700, 300))
    request = lookup.request
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "request", lambda g, *a, **k: programs.append(g) or request(g, *a, **k))
        value, grad = gc.compile(loss)(x, y)
    (graph,) = (g for g in programs if any(n.shape == (300, 700) for n in g.inputs))
    planned = pipeline.inspect(graph).planned
    assert planned is not None
    large = [p for c in planned.plan.kernels for p in c.params if p.shape == (300 * 700,)]
    assert len(large) == 2
    scores = x.numpy().astype(np.float64)
    scores -= np.log(np.exp(scores).sum(1, keepdims=True))
    counted = y.numpy() != options.get("ignore_index", -100)
    smooth = options.get("label_smoothing", 0.0)
    target = (1 - smooth) * np.eye(700)[y.numpy()] + smooth / 700
    rows = counted[:, None] / counted.sum()
    np.testing.assert_allclose(value.numpy(), -(target * scores * rows).sum(), rtol=1e-5)
    np.testing.assert_allclose(grad.numpy(), rows * (np.exp(scores) - target), rtol=1e-4, atol=1e-8)
