"""Loops that update tensors in place, without an optimizer: the same programs in each round."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.evaluation.canonical import canonical
from graphc.frontend.modes import MODE

ROUNDS = 40


def reference(x: np.ndarray, y: np.ndarray, w: np.ndarray, v: np.ndarray, rate: float) -> list[float]:
    """The losses of a two-layer network, by hand."""
    losses = []
    for _ in range(ROUNDS):
        h = np.tanh(x @ w)
        apart = h @ v - y
        losses.append(float((apart**2).mean()))
        g = 2 * apart / apart.size
        gw = x.T @ ((g @ v.T) * (1 - h**2))
        w, v = w - rate * gw, v - rate * (h.T @ g)
    return losses


@pytest.fixture
def data() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(s) for s in ((20, 3), (20, 2), (3, 6), (6, 2))]


@pytest.mark.parametrize("through_data", [False, True])
@pytest.mark.parametrize("every", [1, 10, ROUNDS])
def test_updates_by_hand_are_two_programs_a_round(
    data: list[np.ndarray], every: int, through_data: bool
) -> None:
    x, y = gc.tensor(data[0]), gc.tensor(data[1])
    w, v = (gc.tensor(a, requires_grad=True) for a in data[2:])
    losses, programs, calls = [], [], []
    for t in range(ROUNDS):
        loss = (gc.tanh(x @ w) @ v - y).pow(2).mean()
        loss.backward()
        for p in (w, v):
            assert p.grad is not None
            if through_data:
                p.data.add_(p.grad, alpha=-0.1)
            else:
                with gc.no_grad():
                    p -= 0.1 * p.grad
            p.grad = None
        if t % every == every - 1:
            losses.append(loss.item())
        programs.append(gc.compilations())
        calls.append(gc.native_calls())
    assert programs[-1] == programs[8 if every == 1 else min(2 * every, ROUNDS - 1)]
    assert (calls[-1] - calls[5]) <= 2 * (ROUNDS - 6) + ROUNDS // every  # a pass, and all updates
    assert losses == pytest.approx(reference(*data, rate=0.1)[every - 1 :: every], rel=1e-9)


def test_states_carried_from_round_to_round_are_not_computed_again() -> None:
    """A language model whose state is detached and handed on, trained without an optimizer."""
    gc.manual_seed(0)
    rnn, head = nn.LSTM(4, 5), nn.Linear(5, 3)
    leaves = [*rnn.parameters(), *head.parameters()]
    state = (gc.zeros(1, 2, 5), gc.zeros(1, 2, 5))
    rng = np.random.default_rng(1)
    compiled = []
    for _ in range(8):
        x, y = gc.tensor(rng.standard_normal((3, 2, 4), dtype=np.float32)), gc.tensor(rng.integers(0, 3, 6))
        out, state = rnn(x, tuple(s.detach() for s in state))
        loss = nn.functional.cross_entropy(head(out).reshape(6, 3), y)
        for p in leaves:
            p.grad = None
        loss.backward()
        for p in leaves:
            p.data.add_(p.grad, alpha=-0.5)
        loss.item()
        compiled.append(gc.compilations())
    assert compiled[-1] == compiled[4]


def test_updates_in_several_parts_stay_in_one_program() -> None:
    weights = [gc.randn(3) for _ in range(10)]
    averages = [w.clone() for w in weights]
    gc.sync()
    before = gc.native_calls()
    for a, w in zip(averages, weights, strict=True):
        a.mul_(0.9).add_(w, alpha=0.1).clamp_(-1, 1)
    assert gc.native_calls() == before
    averages[0].sum().item()
    assert gc.native_calls() == before + 1


def test_counting_batches_ends_no_program() -> None:
    """A network with batch norm may run several times in a step, as in a GAN."""
    net = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())])
    for m in net.modules():
        m.register_forward_hook(lambda *_: None)  # (calls of plain modules are noted, not recorded)
    x = gc.randn(8, 4)
    gc.sync()
    before = gc.native_calls()
    kept = [net(x * (i + 1)) + 1 for i in range(3)]
    assert gc.native_calls() == before
    assert [m.num_batches_tracked.item() for m in net if isinstance(m, nn.BatchNorm1d)] == [3] * 6
    del kept


def test_nothing_ends_inside_a_trace() -> None:
    @gc.compile
    def f(w: gc.Tensor) -> gc.Tensor:
        w = w.clone()
        for _ in range(5):
            for _ in range(12):
                g = (w * w).sin().sum()
            w.add_(g / w.shape[0])
        return w

    w = gc.tensor(np.linspace(0.1, 0.5, 4))
    expected = w.numpy().copy()
    for _ in range(5):
        expected = expected + np.sin(expected * expected).sum() / 4
    np.testing.assert_allclose(f(w).numpy(), expected, rtol=1e-12)
    assert MODE.trace is None


@pytest.mark.parametrize("kept", [False, True])
def test_loops_that_make_new_tensors_are_programs_of_bounded_length(kept: bool) -> None:
    """Each round makes a tensor and reads nothing; where all are `kept`, they are outputs of the programs."""
    longest = compilations = 0
    x = gc.linspace(0, 1, 7, dtype=gc.float64)
    expected = x.numpy().copy()
    path = []
    for t in range(1500):
        x = x * 0.99 + 0.01 * x.cos()
        path.append(x if kept else None)
        expected = expected * 0.99 + 0.01 * np.cos(expected)
        longest = max(longest, len(canonical([x._cell.node]).order))
        if t == 500:
            compilations = gc.compilations()
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-12)
    assert longest < 1000
    assert gc.compilations() - compilations <= 1  # that of the last rounds
    if kept:
        np.testing.assert_allclose(path[-1].numpy(), expected, rtol=1e-12)
        assert path[10]._cell.node.bound is not None


def test_a_pass_that_is_still_to_be_differentiated_is_not_cut() -> None:
    """A recurrent cell written out is one program with its gradients, however many steps it has."""
    w = gc.ones(3, 3, requires_grad=True)
    hidden = gc.zeros(2, 3)
    calls = gc.native_calls()
    for _ in range(300):
        hidden = gc.tanh(hidden @ w + 0.1)
    assert gc.native_calls() == calls
    hidden.sum().backward()
    assert w.grad is not None


def test_many_small_tensors_are_not_computed_together() -> None:
    """A list of tensors is no loop that carries something."""
    calls = gc.native_calls()
    found = [gc.ones(3) * float(i) for i in range(1500)]
    assert gc.native_calls() == calls
    assert found[1000][0].item() == 1000


def test_the_first_operations_of_a_thread_are_no_loop() -> None:
    def work() -> None:
        before = gc.native_calls()
        y = (x * x).exp().sum()
        calls.append(gc.native_calls() - before)
        assert y.item() == pytest.approx(3 * np.e)

    calls: list[int] = []
    x = gc.tensor([1.0, 1.0, 1.0])
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert calls == [0]
