"""The choice of what backward computes again: a minimum cut, checked against all subsets of small graphs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from graphc import ops
from graphc.analysis.nxview import INFINITE, graph_view, minimum_cut
from graphc.autodiff import gradients
from graphc.ir.graph import Graph, is_leaf, toposort
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32
from graphc.passes import remat, simplify


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remat, "WORTH", 0)


X = ops.input_("x", TensorType((64, 32), float32))
W = ops.input_("w", TensorType((32, 32), float32))
V = ops.input_("v", TensorType((32, 32), float32))


def dot(a: Node, b: Node) -> Node:
    return ops.dot_general(a, b, ((1,), (0,)))


def relu(x: Node) -> Node:
    return ops.select(ops.le(x, ops.like(x, 0.0)), ops.like(x, 0.0), x)


def training(loss: Node, wrt: Sequence[Node]) -> tuple[Graph, list[Node]]:
    grads = gradients([loss], [ops.constant(1.0, float32)], wrt)
    graph = simplify.run(Graph((X, W, V), (loss, *[g for g in grads if g is not None])))
    return graph, [graph.outputs[0]]


def total(node: Node) -> Node:
    return ops.reduce_sum(node, range(node.type.rank))


def test_pointwise_of_a_product_is_computed_again() -> None:
    """Backward of sin(xW): cos(xW) and its operand come from the kept product."""
    product = dot(X, W)
    graph, results = training(total(ops.mul(relu(product), ops.add(product, product))), [W])
    again = remat.decide(graph, results)
    assert product not in again
    assert {n.op.name for n in again} <= {"le", "select", "add"}
    assert again


def test_contractions_and_dear_functions_are_not_repeated() -> None:
    hidden = ops.tanh(dot(X, W))
    graph, results = training(total(ops.mul(dot(hidden, V), dot(hidden, V))), [W, V])
    for node in remat.decide(graph, results):
        assert remat.repeatable(node)
        assert node.op.name not in ("dot_general", "tanh")


def test_operands_of_backward_contractions_are_kept() -> None:
    hidden = relu(dot(X, W))
    graph, results = training(total(dot(hidden, V)), [W, V])
    assert hidden in graph.nodes
    assert hidden not in remat.decide(graph, results)


def test_nothing_to_do_without_a_backward_pass() -> None:
    graph = Graph((X, W), (relu(dot(X, W)),))
    assert remat.decide(graph, graph.outputs) == frozenset()


def test_small_graphs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remat, "WORTH", 16 << 20)
    graph, results = training(total(relu(dot(X, W))), [W])
    assert remat.decide(graph, results) == frozenset()


def kept_bytes(graph: Graph, results: Sequence[Node], again: frozenset[Node]) -> float:
    """Bytes kept for backward if `again` is computed again; infinite if it cannot be."""
    forward = set(toposort(results))
    backward = [n for n in graph.nodes if n not in forward]
    kept: set[Node] = set()
    stack = [x for n in backward for x in n.inputs if x in forward]
    while stack:
        node = stack.pop()
        if is_leaf(node) or node in kept:
            continue
        if node in again or node.kind.value == "view":
            stack += node.inputs
        else:
            kept.add(node)
    return sum(n.type.nbytes for n in kept)


def test_the_cut_is_minimal() -> None:
    """No set of repeatable values keeps fewer bytes."""
    product = dot(X, W)
    a = ops.sub(product, ops.like(product, 1.0))
    b = ops.mul(a, a)
    c = ops.abs_(ops.add(b, a))
    graph, results = training(total(ops.mul(c, ops.mul(b, a))), [W])
    forward = [n for n in toposort(results) if n.kind.value == "elementwise" and remat.repeatable(n)]
    chosen = kept_bytes(graph, results, remat.decide(graph, results))
    for count in range(min(len(forward), 5) + 1):
        for subset in itertools.combinations(forward, count):
            assert chosen <= kept_bytes(graph, results, frozenset(subset))


def test_decisions_are_repeatable() -> None:
    graph, results = training(total(relu(dot(relu(dot(X, W)), V))), [W, V])
    first = remat.decide(graph, results)
    assert all(remat.decide(Graph(graph.inputs, graph.outputs), results) == first for _ in range(3))


def test_minimum_cut_against_a_known_network() -> None:
    edges = [(0, 1, 3.0), (0, 2, 2.0), (1, 2, 1.0), (1, 3, 2.0), (2, 3, 4.0)]
    assert minimum_cut(edges, 0, 3) == (5.0, {0})
    assert minimum_cut([(0, 1, INFINITE), (1, 2, 1.0), (1, 2, 2.0)], 0, 2) == (3.0, {0, 1})
    with pytest.raises(ValueError, match="no finite cut"):
        minimum_cut([(0, 1, INFINITE)], 0, 1)


def test_order_and_reachability_agree_with_networkx() -> None:
    import networkx as nx

    graph, _ = training(total(relu(dot(relu(dot(X, W)), V))), [W, V])
    view = graph_view(graph)
    assert nx.is_directed_acyclic_graph(view)
    for i, bits in enumerate(graph.ancestors):
        assert {j for j in range(len(graph.nodes)) if bits >> j & 1} == nx.ancestors(view, i) | {i}


def test_all_results_of_a_forward_loop_belong_to_the_forward_pass() -> None:
    """What a loop saves for backward is no reason to compute again what the loop reads."""
    h, x = ops.input_("h", TensorType((4, 32), float32)), ops.input_("x_t", TensorType((4, 32), float32))
    xs = ops.input_("xs", TensorType((8, 4, 32), float32))
    after = ops.tanh(ops.add(dot(h, V), ops.add(dot(x, W), x)))
    (last,) = ops.scan([h], [x], [after], [], [ops.zeros(h.type)], [xs]).finals
    loss = total(last)
    grads = gradients([loss], [ops.constant(1.0, float32)], [W, V])
    graph = simplify.run(Graph((W, V, xs), (loss, *[g for g in grads if g is not None])))
    projected = next(n for n in graph.nodes if n.op.name == "add" and n.shape == (8, 4, 32))
    saved = [n for n in graph.nodes if n.op.name == "scan" and projected in n.inputs]
    assert len(saved) > 2
    assert remat.decide(graph, [graph.outputs[0]]) == frozenset()
