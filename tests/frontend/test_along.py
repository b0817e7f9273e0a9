"""Live tensors inside a graph that is read: what is costly is computed once."""

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.frontend.evaluation import along, canonical, lazy
from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Kind


@pytest.fixture
def graphs(monkeypatch) -> list[Graph]:
    """The graphs compiled by reading values."""
    lazy.clear_programs()
    found: list[Graph] = []
    compile_graph = lazy.compile_graph

    def spy(graph, *args):
        found.append(graph)
        return compile_graph(graph, *args)

    monkeypatch.setattr(lazy, "compile_graph", spy)
    return found


def kinds(graph: Graph) -> list[Kind]:
    return [node.kind for node in toposort(graph.outputs)]


def known(*shape: int) -> graphc.Tensor:
    x = graphc.randn(*shape)
    x.numpy()
    return x


def test_a_product_is_computed_once_however_often_what_is_made_of_it_is_read(graphs):
    a = known(4, 4)
    x = a @ a
    sums = [(x + i).sum().item() for i in range(3)]
    assert [k for g in graphs for k in kinds(g)].count(Kind.CONTRACT) == 1
    product = a.numpy() @ a.numpy()
    np.testing.assert_allclose(sums, [(product + i).sum() for i in range(3)], rtol=1e-5)
    np.testing.assert_allclose(x.numpy(), product, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_the_loss_is_read_before_the_accuracy(graphs, grad):
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x, y = known(6, 5), graphc.tensor([0, 1, 2, 0, 1, 2])
    with graphc.set_grad_enabled(grad):
        scores = model(x)
        loss = nn.functional.cross_entropy(scores, y).item()
        before = len(graphs)
        right = (scores.argmax(1) == y).sum().item()
    assert not any(Kind.CONTRACT in kinds(g) for g in graphs[before:])
    numbers = scores.detach().numpy()
    assert right == (numbers.argmax(1) == y.numpy()).sum()
    logs = numbers - np.log(np.exp(numbers).sum(1, keepdims=True))
    assert loss == pytest.approx(-logs[np.arange(6), y.numpy()].mean(), rel=1e-5)


def test_a_loop_that_reads_something_cheap_in_each_round_does_not_compute_the_rounds_before(graphs):
    """The state is joined and moved, as a Viterbi decoder's is, and something of it is read."""
    moves = known(3, 3)
    state, rounds = moves[0], moves.numpy()
    expected = rounds[0]
    for _ in range(30):
        ways = [state + moves[to] for to in range(3)]
        assert ways[0].argmax().item() == (expected + rounds[0]).argmax()
        state = graphc.cat([way[to].view(1) for to, way in enumerate(ways)])
        expected = expected + rounds.diagonal()
    np.testing.assert_allclose(state.numpy(), expected, rtol=1e-5)
    assert max(len(kinds(g)) for g in graphs) < 120
    assert len(graphs) < 15


def test_a_long_chain_of_cheap_operations_is_not_computed_again(graphs):
    x = known(5)
    y, cheap = x, []
    for i in range(3 * along.CHAIN):
        y = (y + i).sin()
        cheap.append(y)
    assert (y * 2).max().item() == pytest.approx(y.numpy().max() * 2)
    before = len(graphs)
    read = [t.mean().item() for t in cheap[:: along.CHAIN // 2]]
    assert len(graphs) > before
    assert max(len(kinds(g)) for g in graphs[before:]) < 2 * along.CHAIN
    expected = x.numpy().astype(np.float64)
    for i in range(3 * along.CHAIN):
        expected = np.sin(expected + i)
        if i % (along.CHAIN // 2) == 0:
            assert read[i // (along.CHAIN // 2)] == pytest.approx(expected.mean(), abs=1e-5)


def test_gradients_after_the_loss_was_read_equal_those_before():
    def gradients(read: bool) -> list[np.ndarray]:
        graphc.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        scores = model(graphc.ones(2, 5))
        loss = (scores**2).mean()
        if read:
            loss.item()
        loss.backward()
        return [p.grad.numpy() for p in model.parameters()]

    for mine, theirs in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_what_is_cheap_or_gone_is_not_stored(graphs):
    a = known(8)
    twice = a * 2
    (twice + 1).sum().item()
    assert len(graphs[-1].outputs) == 1
    assert twice._cell.node.bound is None
    ((a @ a) * 3).exp().item()
    assert len(graphs[-1].outputs) == 1


def test_of_values_that_follow_from_each_other_cheaply_one_is_stored(graphs):
    a = known(4, 4)
    x = a @ a
    y = x.relu()
    y.sum().item()
    assert len(graphs[-1].outputs) == 2
    assert x._cell.node.bound is not None
    assert y._cell.node.bound is None


def test_the_storage_of_views(graphs):
    a = known(4, 6)
    left, right = (a @ a.T).chunk(2, dim=1)
    left.sum().item()
    right.sum().item()
    assert Kind.CONTRACT not in kinds(graphs[-1])


def test_draws_are_not_made_twice(graphs):
    a, b = graphc.randn(3, 3), graphc.rand(3, 3)
    first = (a @ b).numpy()
    np.testing.assert_array_equal(first, (a @ b).numpy())
    np.testing.assert_allclose(first, a.numpy() @ b.numpy(), rtol=1e-5, atol=1e-6)


def test_one_of_very_many_results_is_read_without_a_look_at_all_others(monkeypatch):
    looks = []
    monkeypatch.setattr(along, "_pending_cells", lambda: looks.append(1) or [])
    a = known(3)
    results = [a.sum() + i for i in range(2 * canonical.FEW)]
    values = [r.item() for r in results]
    assert values[5] == pytest.approx(values[0] + 5, rel=1e-5)
    assert not looks or len(looks) <= canonical.FEW + 1
