"""Lazy values: one program a step, found again by structure; buffers taken over; numbers lifted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import ops
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE
from graphc.frontend.tracing import deferred
from graphc.ir.graph import Graph
from graphc.ir.hashing import structural_hash

RNG = np.random.default_rng(2)


@pytest.fixture(autouse=True)
def fresh() -> None:
    lazy.clear_programs()
    MODE.pending.clear()
    lazy.STATS.compilations = lazy.STATS.native_calls = 0


def test_nothing_runs_until_read() -> None:
    x = gc.from_numpy(np.ones((3, 3), np.float32))
    y = (x @ x).sum()
    assert lazy.STATS.native_calls == 0
    assert y.item() == 27
    assert y.item() == 27
    assert lazy.STATS.native_calls == 1


def _train(steps: int, momentum: bool = True) -> tuple[list[float], list[int]]:
    w = gc.from_numpy(RNG.standard_normal((4, 2)).astype(np.float32)).requires_grad_()
    m = gc.zeros(4, 2)
    losses, programs = [], []
    for step in range(steps):
        x = gc.from_numpy(RNG.standard_normal((8, 4)).astype(np.float32))
        w.grad = None
        loss = ((x @ w).relu() ** 2).mean()
        loss.backward()
        with gc.no_grad():
            m.mul_(0.9).add_(w.grad)
            w -= (0.1 / (step + 1)) * m
        gc.sync()
        losses.append(loss.item())
        programs.append(lazy.STATS.compilations)
    return losses, programs


def test_a_step_is_one_program_and_a_changing_number_becomes_an_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deferred, "LONGEST", 0)  # else the gradient, when it is looked at, is a program's
    losses, programs = _train(6)
    assert lazy.STATS.native_calls == 6
    assert programs[1:] == [programs[1]] * 5  # the second step lifts the learning rate; no more after that
    assert losses[-1] < losses[0]


def test_numbering_does_not_depend_on_what_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants that something else keeps alive, or has read, are the nodes that a program is made of."""
    asked: list[tuple[Any, ...]] = []
    compiled = lazy.compile_graph

    def noting(graph: Graph, donate: Any, backend: str) -> Any:
        asked.append((structural_hash(graph), dict(donate)))
        return compiled(graph, donate, backend)

    def steps() -> list[tuple[Any, ...]]:
        """What a few steps ask for; moments begin as equal constants, and have been read."""
        lazy.clear_programs()
        asked.clear()
        w, b = gc.ones(4, 2).requires_grad_(), gc.ones(4, 2)
        moments = [gc.empty(4, 2).zero_(), gc.empty(4, 2).zero_()]
        for moment in moments:
            moment.numpy()
        for _ in range(3):
            loss = ((w + gc.full((4, 2), 0.5) * b) ** 2).sum()
            loss.backward()
            with gc.no_grad():
                for moment in moments:
                    moment.mul_(0.9).add_(w.grad)
                w -= 0.1 * moments[0]
                w.grad = None
            gc.sync()
            b = b + gc.ones(4, 2)
            assert b[0, 0].item() > 1
        return list(asked)

    monkeypatch.setattr(lazy, "compile_graph", noting)
    alone = steps()
    kinds = [(shape, value) for shape in ((4, 2), ()) for value in (0.0, 1.0, 0.5, 0.9, 0.1)]
    held = [ops.full(shape, value, gc.float32) for shape, value in kinds]
    read = [gc.empty(shape).fill_(value) for shape, value in kinds]
    for constant in read:
        constant.numpy()
    assert steps() == alone
    assert len(alone) > 1
    assert all(node.bound is None for node in held)


def test_updates_happen_in_the_same_buffer() -> None:
    w = gc.from_numpy(np.ones(1000, np.float32))
    for _ in range(3):
        before = lazy.value(w)
        w.mul_(2)
        gc.sync()
        assert lazy.value(w) is before
    shared = w.clone()
    before = lazy.value(w)
    w.mul_(2)
    gc.sync()
    assert lazy.value(w) is not before
    assert shared[0].item() == 8
    assert w[0].item() == 16


def test_reading_between_forward_and_backward() -> None:
    w = gc.ones(3, requires_grad=True)
    loss = (w * 3).exp().sum()
    value = loss.item()
    loss.backward()
    np.testing.assert_allclose(w.grad.sum().item(), 3 * value, rtol=1e-6)


def test_history_over_a_replaced_buffer_is_refused() -> None:
    w = gc.from_numpy(np.full(4, 2.0, np.float32)).requires_grad_()
    loss = (w * w).sum()
    loss.item()
    with gc.no_grad():
        w.add_(1)
    gc.sync()
    loss.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        w.grad.tolist()


def test_values_survive_changes_of_their_sources() -> None:
    x = gc.from_numpy(np.ones(3, np.float32))
    y = x * 2  # pending while x changes
    view = x[:2]
    x.add_(5)
    assert y.tolist() == [2, 2, 2]
    assert view.tolist() == [6, 6]
    assert x.tolist() == [6, 6, 6]


def test_equal_nodes_share_their_value_but_not_their_storage() -> None:
    x = gc.from_numpy(np.ones(3, np.float32))
    a, b = x + 1, x + 1
    gc.sync()
    assert lazy.STATS.native_calls == 1
    a.mul_(10)
    gc.sync()
    assert a.tolist() == [20, 20, 20]
    assert b.tolist() == [2, 2, 2]


def test_constants_need_no_program() -> None:
    assert gc.full((2,), 3.0).tolist() == [3, 3]
    assert gc.arange(3).float().numpy().tolist() == [0, 1, 2]
    assert lazy.STATS.native_calls <= 1


def test_dead_tensors_are_not_computed() -> None:
    x = gc.from_numpy(np.ones(3, np.float32))
    kept = x * 2
    for _ in range(10):
        _unused = x * 3
    del _unused
    gc.sync()
    assert lazy.STATS.native_calls == 1
    assert type(kept._cell.node.bound) is np.ndarray


@pytest.mark.native
def test_native_equals_reference() -> None:
    def run(backend: str) -> list[Any]:
        global RNG
        RNG = np.random.default_rng(4)
        gc.set_backend(backend)
        return _train(4)[0]

    np.testing.assert_allclose(run("llvm"), run("reference"), rtol=1e-5)


def test_evaluation_loops_compute_batch_by_batch() -> None:
    net = gc.nn.Linear(4, 3)
    right: Any = 0
    with gc.no_grad():
        for _ in range(7):
            x = gc.from_numpy(RNG.standard_normal((8, 4)).astype(np.float32))
            right = right + (net(x).argmax(1) == 0).sum()
    assert lazy.STATS.native_calls >= 5
    assert lazy.STATS.compilations <= 3
    assert 0 <= right.item() <= 56


def test_programs_unused_for_longest_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(lazy, "CAPACITY", 3)

    def run(size: int) -> int:
        before = lazy.STATS.compilations
        assert (gc.ones(size) * 2 + 1).sum().item() == 3 * size
        return lazy.STATS.compilations - before

    assert [run(size) for size in (3, 4, 5)] == [1, 1, 1]
    assert [run(size) for size in (3, 6, 3)] == [0, 1, 0]  # 4 went
    assert [run(size) for size in (5, 4)] == [0, 1]
    assert len(lazy._programs) == 3


def test_gradients_of_one_pass_are_computed_together() -> None:
    """Whoever reads one gradient will read the others: they share their sums."""
    x, w, b, up = [gc.randn(*s) for s in ((6, 5), (5,), (5,), (6, 5))]
    leaves = [t.requires_grad_() for t in (x, w, b)]

    def gradients() -> list[gc.Tensor]:
        for t in leaves:
            t.grad = None
        gc.nn.functional.layer_norm(x, (5,), w, b).backward(up)
        return [t.grad for t in leaves]

    alone = [gradients()[i].numpy() for i in range(3)]
    before = gc.native_calls()
    together = [t.detach().numpy() for t in gradients()]
    assert gc.native_calls() == before + 1
    for a, t in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, t)
    y = gc.nn.functional.layer_norm(x, (5,), w, b)
    before = gc.native_calls()
    returned = [t.numpy() for t in gc.autograd.grad(y, leaves, up)]
    assert gc.native_calls() == before + 1
    for a, t in zip(alone, returned, strict=True):
        np.testing.assert_array_equal(a, t)


def test_gradients_that_are_gone_or_changed_are_not_computed_with_others() -> None:
    x, w = gc.randn(3, requires_grad=True), gc.randn(3, requires_grad=True)
    (x * w).sum().backward()
    x.grad = None
    w.grad.mul_(2.0)
    np.testing.assert_allclose(w.grad.numpy(), 2 * x.detach().numpy(), rtol=1e-6)
    (x * w).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), w.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(w.grad.numpy(), 3 * x.detach().numpy(), rtol=1e-6)


def test_what_cannot_be_computed_any_more_does_not_stop_others() -> None:
    """Gradients through a parameter that a step has changed: the error is for who reads them."""
    net, other = gc.nn.Linear(3, 2), gc.nn.Linear(3, 2)
    x = gc.ones(4, 3)
    opt = gc.optim.SGD(net.parameters(), lr=0.1)
    kept = (net(x) ** 3).mean()
    (net(x) ** 2).mean().backward()
    net.weight.grad.numpy()
    opt.step()
    kept.backward()
    lost = net.weight.grad
    second = gc.optim.SGD(other.parameters(), lr=0.1)
    before = other.weight.detach().numpy().copy()
    for _ in range(2):
        second.zero_grad()
        other(x).sum().backward()
        second.step()
    assert (other.weight.detach().numpy() != before).all()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        lost.numpy()


def test_a_failed_check_names_the_line_of_this_graph() -> None:
    """Not that of an equal one which was compiled before."""

    def first(labels: list[int]) -> gc.Tensor:
        return gc.nn.functional.cross_entropy(gc.ones(4, 3) * 3.5, gc.tensor(labels))

    def second(labels: list[int]) -> gc.Tensor:
        return gc.nn.functional.cross_entropy(gc.ones(4, 3) * 3.5, gc.tensor(labels))

    first([0, 1, 2, 0]).item()
    for function in (first, second):
        line = function.__code__.co_firstlineno + 1
        with pytest.raises(IndexError, match=rf"out of bounds.*test_lazy\.py:{line}\)"):
            function([0, 1, 3, 0]).item()
