"""Which elements are taken is an input of a program: other places are no other structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.modes import MODE

ACTIONS = 3
BACKENDS = pytest.mark.parametrize("name", ["reference", pytest.param("llvm", marks=pytest.mark.native)])


def episode(net: nn.Module, rng: np.random.Generator) -> tuple[list[gc.Tensor], list[int], list[np.ndarray]]:
    """The logarithms of the chances of the actions taken, these, and the states."""
    logs, actions, states = [], [], []
    for _ in range(6):
        state, action = rng.standard_normal(4), int(rng.integers(ACTIONS))
        logs.append(gc.log_softmax(net(gc.tensor(state)), 0)[action])
        actions.append(action)
        states.append(state)
    return logs, actions, states


def policy(rng: np.random.Generator) -> nn.Module:
    net = nn.Linear(4, ACTIONS, bias=False, dtype=gc.float64)
    with gc.no_grad():
        net.weight.copy_(gc.tensor(rng.standard_normal((ACTIONS, 4))))
    return net


def gradient(weight: np.ndarray, actions: list[int], states: list[np.ndarray]) -> np.ndarray:
    """Of the sum of the logarithms, by hand."""
    total = np.zeros_like(weight)
    for action, state in zip(actions, states, strict=True):
        e = np.exp(weight @ state)
        total += np.outer(np.eye(ACTIONS)[action] - e / e.sum(), state)
    return total


@BACKENDS
@pytest.mark.parametrize("steps", [True, False])
def test_other_actions_are_no_other_program(name: str, backend: str, steps: bool) -> None:
    assert backend == name
    rng = np.random.default_rng(0)
    net = policy(rng)
    optimizer = gc.optim.SGD(net.parameters(), lr=0.1)
    weight = net.weight.detach().numpy().copy()
    programs = []
    for _ in range(12):
        logs, actions, states = episode(net, rng)
        optimizer.zero_grad()
        loss = -gc.stack(logs).sum()
        loss.backward()
        step = gradient(weight, actions, states)
        if steps:
            optimizer.step()
            weight = weight + 0.1 * step
            np.testing.assert_allclose(net.weight.detach().numpy(), weight, rtol=1e-12)
        else:
            assert net.weight.grad is not None
            np.testing.assert_allclose(net.weight.grad.numpy(), -step, rtol=1e-10)
        programs.append(gc.compilations())
    assert programs[-1] == programs[5]


def test_elements_read_one_by_one_are_few_programs() -> None:
    x = gc.tensor(np.linspace(0, 1, 60).reshape(3, 20))
    rng = np.random.default_rng(1)
    programs = []
    for _ in range(20):
        i, j = int(rng.integers(3)), int(rng.integers(-20, 20))
        assert gc.exp(x)[i, j].item() == pytest.approx(np.exp(x.numpy()[i, j]))
        programs.append(gc.compilations())
    assert programs[-1] == programs[4]


Pick = Callable[[Any, int, int, int], Any]
PICKS: dict[str, Pick] = {
    "one": lambda x, i, j, k: x[i, j, k],
    "row": lambda x, i, j, k: x[:, j],
    "kept": lambda x, i, j, k: x[i : i + 1, :, k : k + 1],
    "spaced": lambda x, i, j, k: x[::2, j, 1:4],
    "two": lambda x, i, j, k: x[i] * x[:, j].sum() + x[..., k].sum(),
    "twice": lambda x, i, j, k: x[i, j] + x[i, j],
    "of a part": lambda x, i, j, k: x[1:3][i % 2, j][k],
}


@BACKENDS
@pytest.mark.parametrize("which", PICKS)
def test_values_and_gradients_at_other_places(name: str, backend: str, which: str) -> None:
    assert backend == name
    pick = PICKS[which]
    rng = np.random.default_rng(3)
    a = rng.standard_normal((3, 4, 5))
    for _ in range(5):
        i, j, k = (int(rng.integers(n)) for n in a.shape)
        x = gc.tensor(a, requires_grad=True)
        y = pick(gc.tanh(x), i, j, k)
        np.testing.assert_allclose(y.detach().numpy(), pick(np.tanh(a), i, j, k), rtol=1e-12)
        (y * y).sum().backward()
        assert x.grad is not None
        found, h = x.grad.numpy(), 1e-6
        for at in [(i, j, k), (2, j, 3), (0, 0, 0)]:
            up, down = a.copy(), a.copy()
            up[at] += h
            down[at] -= h
            high, low = ((pick(np.tanh(z), i, j, k) ** 2).sum() for z in (up, down))
            assert found[at] == pytest.approx((high - low) / (2 * h), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", [gc.float32, gc.int64, gc.bool])
def test_any_dtype(dtype: gc.dtype) -> None:
    a = np.arange(12).reshape(3, 4) % 3
    for i, j in ((0, 1), (2, 3), (1, 0), (2, 2)):
        x = gc.tensor(a).to(dtype)
        expected = a.astype(bool)[i, j] if dtype is gc.bool else a[i, j]
        assert (x | x if dtype is not gc.float32 else x * 1)[i, j].item() == expected


def test_changes_of_elements_of_pending_values() -> None:
    rng = np.random.default_rng(4)
    for _ in range(6):
        i, j = int(rng.integers(3)), int(rng.integers(4))
        a = rng.standard_normal((3, 4))
        x = gc.tensor(a) * 2
        x[i, j] = 5
        x[i][0] += x[0, j]
        b = a * 2
        b[i, j] = 5
        b[i, 0] += b[0, j]
        np.testing.assert_allclose(x.numpy(), b)


@BACKENDS
def test_numbers_that_change_are_data_of_noted_passes(name: str, backend: str) -> None:
    assert backend == name
    rng = np.random.default_rng(5)
    start = rng.standard_normal((4, 3))
    w = gc.tensor(start, requires_grad=True)
    optimizer = gc.optim.SGD([w], lr=0.1)
    weight, programs, noted = start, [], 0
    for t in range(12):
        x, scale = rng.standard_normal((5, 4)), float(rng.random())
        loss = (gc.tensor(x) @ w).pow(2).sum() * scale + w.exp().sum() * (t / 10)
        optimizer.zero_grad()
        loss.backward()
        noted += MODE.events is not None
        optimizer.step()
        weight = weight - 0.1 * (2 * scale * x.T @ (x @ weight) + t / 10 * np.exp(weight))
        np.testing.assert_allclose(w.detach().numpy(), weight, rtol=1e-10)
        programs.append(gc.compilations())
    assert programs[-1] == programs[4]
    assert noted >= 10


def test_a_structure_is_recorded_again_a_few_times_only() -> None:
    """Each step changes another number: who follows them all would record for ever."""
    w = gc.ones(3, requires_grad=True)
    optimizer = gc.optim.SGD([w], lr=0.0)
    for t in range(12):
        factors = [float(2 + (k == t)) for k in range(12)]
        loss = gc.stack([(w * f).sum() for f in factors]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() == pytest.approx(3 * sum(factors))
        assert w.grad is not None
        assert w.grad.tolist() == [sum(factors)] * 3
