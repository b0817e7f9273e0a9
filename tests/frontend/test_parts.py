"""Batches cut from an array: one program for all of them, and the values that slicing gives."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.evaluation import lazy, parts
from graphc.nn import functional as F

RNG = np.random.default_rng(2)
X = RNG.standard_normal((48, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 48)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        return self.head(F.relu(self.body(x)))


def epochs(cut: bool, count: int = 3) -> tuple[list[float], list[int]]:
    gc.manual_seed(1)
    net = Net()
    opt = gc.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    losses, compiled = [], []
    for step in range(6 * count):
        at = 8 * (step % 6)
        if cut:
            batch, labels = x[at : at + 8], y[at : at + 8]
        else:
            batch, labels = gc.from_numpy(X[at : at + 8]), gc.from_numpy(Y[at : at + 8])
        loss = F.cross_entropy(net(batch), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
        compiled.append(lazy.compilations())
    return losses, compiled


def test_batches_cut_from_a_tensor_are_one_program() -> None:
    losses, compiled = epochs(cut=True)
    expected, _ = epochs(cut=False)
    assert losses == expected
    assert compiled[-1] == compiled[8], "the steps after the first epoch compile nothing"
    assert compiled[8] - compiled[0] <= 3


def test_single_rows_and_other_dims() -> None:
    x = gc.from_numpy(X)
    before = None
    for i in range(5):
        found = (x[i] * 2 + x[:, i].sum() + x[2 * i : 2 * i + 4, 1:3].sum()).numpy()
        expected = X[i] * 2 + X[:, i].sum() + X[2 * i : 2 * i + 4, 1:3].sum()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        before = before or lazy.compilations()
    assert lazy.compilations() == before


def test_many_parts_of_one_array_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[int] = []
    monkeypatch.setattr(
        "graphc.frontend.evaluation.canonical.part_of", lambda *a: cuts.append(1) or parts.part_of(*a)
    )
    x = gc.from_numpy(X)
    total = sum((x[i] * (i + 1) for i in range(parts.FEW + 4)), gc.zeros(6))
    np.testing.assert_allclose(
        total.numpy(), sum(X[i] * (i + 1) for i in range(parts.FEW + 4)), rtol=1e-5, atol=1e-5
    )
    assert len(cuts) == parts.FEW + 1


def test_a_part_shows_what_its_base_was() -> None:
    x = gc.from_numpy(X.copy())
    part = x[4:8] * 1.0
    view = x[4:8]
    x[4:8] = 0.0
    np.testing.assert_array_equal(part.numpy(), X[4:8])
    np.testing.assert_array_equal((view + 1).numpy(), np.ones((4, 6), np.float32))


def test_gradients_of_parts_of_leaves() -> None:
    for read_first in (False, True):
        w = gc.from_numpy(X[:4].copy()).requires_grad_()
        piece = w[1:3]
        if read_first:
            piece.detach().numpy()
        (piece * gc.from_numpy(X[8:10])).sum().backward()
        expected = np.zeros((4, 6), np.float32)
        expected[1:3] = X[8:10]
        np.testing.assert_array_equal(w.grad.numpy(), expected)


def test_parts_of_parameters_that_a_step_changes() -> None:
    w = nn.Parameter(gc.ones(4, 3))
    opt = gc.optim.SGD([w], lr=0.5)
    for i in range(3):
        scale = w.detach()[1:2] * 2
        loss = (w[:2] * scale).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
        now = 1 - sum(0.5 * 2 * v for v in _values(i))
        np.testing.assert_allclose(w.detach().numpy()[:2], now, rtol=1e-6)
        np.testing.assert_array_equal(w.detach().numpy()[2:], 1.0)


def _values(last: int) -> list[float]:
    """w[1] before each step: every step takes its own value from it, as lr * 2 is one."""
    values = [1.0]
    for _ in range(last):
        values.append(values[-1] - values[-1])
    return values
