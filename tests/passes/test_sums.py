"""Sums without centred values and common factors: what is left, equal values, fewer sweeps."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import ops, pipeline
from graphc.analysis.evaluate import evaluate_graph
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, float32, float64
from graphc.ir.verify import verify
from graphc.passes import sums

ROWS, COLS = 5, 7


def leaf(name: str, *shape: int, dtype: DType = float64) -> Node:
    return ops.input_(name, TensorType(shape, dtype))


X, Y, R, W = leaf("x", ROWS, COLS), leaf("y", ROWS, COLS), leaf("r", ROWS), leaf("w", COLS)


def along(v: Node) -> Node:
    """A value per row, or per column, at every element."""
    return ops.broadcast(v, (ROWS, COLS), (0,) if v.shape == (ROWS,) else (1,))


def mean(x: Node, axes: tuple[int, ...] = (1,)) -> Node:
    total = ops.reduce_sum(x, axes)
    count = np.prod([x.shape[a] for a in axes])
    return ops.mul(total, ops.like(total, 1.0 / float(count)))


def centred(x: Node) -> Node:
    return ops.sub(x, along(mean(x)))


def rewritten(node: Node) -> Node:
    """The node after the pass, which changes no value."""
    inputs = tuple(n for n in Graph((), (node,)).nodes if n.kind.value == "input")
    graph = Graph(inputs, (node,))
    new = sums.run(graph)
    verify(new, ops.REGISTRY)
    rng = np.random.default_rng(0)
    values = [np.asarray(rng.standard_normal(n.shape), n.dtype.numpy) for n in inputs]
    for before, after in zip(evaluate_graph(graph, values), evaluate_graph(new, values), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-10)
    return new.outputs[0]


def total(x: Node) -> Node:
    return ops.reduce_sum(x, (1,))


NOTHING = ops.sub(mean(X), mean(X))  # what a centred sum is where X holds numbers
CASES = {
    "centred": (lambda: total(centred(X)), NOTHING),
    "centred, scaled": (lambda: total(ops.mul(along(R), centred(X))), ops.mul(NOTHING, R)),
    "another term": (
        lambda: total(ops.add(ops.mul(centred(X), along(R)), Y)),
        ops.add(total(Y), ops.mul(NOTHING, R)),
    ),
    "less": (lambda: total(ops.sub(Y, centred(X))), ops.sub(total(Y), NOTHING)),
    "from": (lambda: total(ops.sub(centred(X), Y)), ops.add(ops.neg(total(Y)), NOTHING)),
    "twice": (
        lambda: total(ops.add(ops.add(Y, centred(X)), centred(X))),
        ops.add(ops.add(total(Y), NOTHING), NOTHING),
    ),
    "factor": (lambda: total(ops.mul(Y, along(R))), ops.mul(total(Y), R)),
    "factors": (
        lambda: total(ops.mul(ops.mul(Y, along(W)), along(R))),
        ops.mul(total(ops.mul(Y, along(W))), R),
    ),
    "negative factor": (lambda: total(ops.mul(ops.neg(Y), along(R))), ops.neg(ops.mul(total(Y), R))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rewritten(name: str) -> None:
    make, expected = CASES[name]
    assert rewritten(make()) is expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sums_of_no_numbers(bad: float) -> None:
    """Where a sum is no number, it stays none."""
    graph = Graph((X, Y), (total(centred(X)), total(ops.add(Y, centred(X)))))
    x, y = np.ones((ROWS, COLS)), np.ones((ROWS, COLS))
    x[2, 3] = bad
    for after in (*evaluate_graph(sums.run(graph), [x, y]), *pipeline.compile(graph)([x, y])):
        np.testing.assert_array_equal(np.isnan(after), np.arange(ROWS) == 2)


KEPT = {
    "square": lambda: total(ops.mul(centred(X), centred(X))),
    "other axes": lambda: ops.reduce_sum(centred(X), (0,)),
    "both axes": lambda: ops.reduce_sum(ops.mul(centred(X), along(W)), (0, 1)),
    "weights": lambda: total(ops.mul(centred(X), along(W))),
    "no mean": lambda: total(ops.sub(X, along(total(X)))),
    "mean of another": lambda: total(ops.sub(X, along(mean(Y)))),
    "constant factor": lambda: total(ops.mul(Y, ops.like(Y, 3.0))),
    "terms without": lambda: total(ops.add(ops.mul(Y, along(R)), X)),
    "only uniform": lambda: total(along(R)),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    node = KEPT[name]()
    assert rewritten(node) is node


def test_long_sums_are_left_alone() -> None:
    x = centred(X)
    for i in range(sums.MOST):
        x = ops.add(x, leaf(f"x{i}", ROWS, COLS))
    assert rewritten(total(x)) is total(x)


def test_gradient_of_batch_norm_needs_two_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what comes from above, and of it times the centred values: the weight's gradient is one of them."""
    seen: list[Graph] = []

    def run(graph: Graph) -> Graph:
        seen.append(sums.run(graph))
        return seen[-1]

    passes = [pipeline.Pass(p.name, run) if p.name == "sums" else p for p in pipeline.PASSES]
    monkeypatch.setattr(pipeline, "PASSES", tuple(passes))

    @gc.compile
    def gradients(x: gc.Tensor, w: gc.Tensor, up: gc.Tensor) -> tuple[gc.Tensor, ...]:
        y = gc.nn.functional.batch_norm(x, None, None, w, None, training=True)
        return gc.autograd.grad(y, [x, w], up)

    x, up = gc.randn(6, 3, 5, 7), gc.randn(6, 3, 5, 7)
    gradients(x.requires_grad_(), gc.randn(3, requires_grad=True), up)
    count = [sum(n.op.name == "reduce_sum" for n in graph.nodes) for graph in seen]
    assert max(count) == 4  # with the mean and the variance


@pytest.mark.parametrize("dtype", [float32, float64])
def test_layer_norm_beside_torch(dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s).astype(dtype.numpy) for s in ((9, 33), (33,), (33,), (9, 33))]
    found = []
    for T in (gc, torch):
        x, w, b, up = [T.from_numpy(a.copy()) for a in arrays]
        leaves = [t.requires_grad_() for t in (x, w, b)]
        y = T.nn.functional.layer_norm(x, (33,), w, b)
        found.append([g.numpy() for g in T.autograd.grad(y, leaves, up)])
    for own, other in zip(*found, strict=True):
        scale = 1e-5 if dtype is float32 else 1e-12
        np.testing.assert_allclose(own, other, rtol=scale, atol=10 * scale)


def test_second_derivatives_beside_torch() -> None:
    """The rewriting happens after differentiation, any number of times."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal((4, 6)) for _ in range(3)]
    found = []
    for T in (gc, torch):
        x, up, side = [T.from_numpy(a.copy()) for a in arrays]
        x.requires_grad_()
        (first,) = T.autograd.grad(T.nn.functional.layer_norm(x, (6,)), [x], up, create_graph=True)
        found.append(T.autograd.grad(first, [x], side)[0].numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-10)
