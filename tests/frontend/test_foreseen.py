"""Losses that are read before their backward pass: the gradients are computed with them, and nobody can tell.

(`training_loops` has such loops too, and `test_deferred_fuzz` random ones.)
"""

from __future__ import annotations

import gc as garbage
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE
from graphc.frontend.steps import foreseen, known_step
from graphc.frontend.steps.adopted import Foresight
from graphc.frontend.tracing import deferred

RNG = np.random.default_rng(5)
X = RNG.standard_normal((8, 12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, (8, 12))

Step = Callable[["Model", gc.Tensor, gc.Tensor, int], Any]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    garbage.collect()
    MODE.pending.clear()
    MODE.events = None
    monkeypatch.setattr(Foresight, "used", False)


class Model(nn.Module):
    """With statistics, random numbers, and code between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.optimizer = gc.optim.Adam(self.parameters(), lr=0.01)

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        h = gc.tanh(self.norm(self.first(x)) * 2)
        return self.last(nn.functional.dropout(h, 0.2, self.training) + h)

    def loss(self, x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
        return nn.functional.cross_entropy(self(x), y)


def train(step: Step) -> tuple[list[Any], list[bool]]:
    """What eight steps give and leave, and which backward passes were foreseen."""
    gc.manual_seed(1)
    model = Model()
    found: list[bool] = []
    backward = foreseen.backward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreseen, "backward", lambda loss: found.append(backward(loss)) or found[-1])
        seen = [step(model, gc.from_numpy(x), gc.from_numpy(y), i) for i, (x, y) in enumerate(zip(X, Y))]  # noqa: B905
    states = [t.detach().numpy() for t in model.state_dict().values()]
    gradients = [None if p.grad is None else p.grad.numpy() for p in model.parameters()]
    return [*seen, *states, *gradients], found


def assert_unnoticed(step: Step) -> list[bool]:
    found, taken = train(step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deferred, "LONGEST", 0)
        patch.setattr(known_step, "step", lambda optimizer: False)
        expected, never = train(step)
    assert not any(never)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    return taken


def plain(model: Model, x: gc.Tensor, y: gc.Tensor, i: int) -> float:
    model.optimizer.zero_grad()
    loss = model.loss(x, y)
    found = loss.item()
    loss.backward()
    model.optimizer.step()
    return found


def test_steps_are_foreseen_after_the_first() -> None:
    assert assert_unnoticed(plain)[3:] == [True] * 5


def test_a_foreseen_step_runs_two_programs_and_compiles_nothing() -> None:
    model, x, y = Model(), gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    for i in range(5):
        plain(model, x, y, i)
    before = lazy.native_calls(), lazy.compilations()
    plain(model, x, y, 5)
    assert (lazy.native_calls() - before[0], lazy.compilations() - before[1]) == (2, 0)


@pytest.mark.parametrize("read", ["detach", "isnan", "accuracy", "twice"])
def test_other_reads_are_foreseen_too(read: str) -> None:
    def step(model: Model, x: gc.Tensor, y: gc.Tensor, i: int) -> list[float]:
        model.optimizer.zero_grad()
        scores = model(x)
        loss = nn.functional.cross_entropy(scores, y)
        found: list[float] = []
        if read == "detach":
            found.append(loss.detach().numpy().item())
        elif read == "isnan":
            found.append(float(gc.isnan(loss).item()))
        elif read == "accuracy":
            found.append((scores.argmax(1) == y).float().mean().item())
        else:
            found += [loss.item(), scores.sum().item(), loss.item()]
        loss.backward()
        model.optimizer.step()
        return [*found, loss.item()]

    assert assert_unnoticed(step)[4:] == [True] * 4


def test_gradients_accumulate() -> None:
    def step(model: Model, x: gc.Tensor, y: gc.Tensor, i: int) -> float:
        if i % 2 == 0:
            model.optimizer.zero_grad()
        loss = model.loss(x, y)
        found = loss.item()
        loss.backward()
        if i % 2:
            model.optimizer.step()
        return found

    assert any(assert_unnoticed(step)[3:])


def test_a_pass_that_is_only_read_is_a_miss_and_then_none_is_foreseen() -> None:
    def step(model: Model, x: gc.Tensor, y: gc.Tensor, i: int) -> float:
        return model.loss(x, y).item() if 3 <= i < 6 else plain(model, x, y, i)

    taken = assert_unnoticed(step)
    assert len(taken) == 5
    calls = []
    compute = deferred.compute_apart
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deferred, "compute_apart", lambda *args: calls.append(None) or compute(*args))
        train(step)
    assert 2 <= len(calls) <= 5, "read passes go on being foreseen"


@pytest.mark.parametrize("change", ["hook", "leaf hook", "function", "retain", "parameter", "freeze", "grad"])
def test_what_changes_between_read_and_backward_counts(change: str) -> None:
    def step(model: Model, x: gc.Tensor, y: gc.Tensor, i: int) -> float:
        model.optimizer.zero_grad()
        loss = model.loss(x, y)
        found = loss.item()
        bias = model.last.bias
        if i == 5 and change == "hook":
            loss.register_hook(lambda g: g * 2)
        elif i == 5 and change == "leaf hook":
            handle = bias.register_hook(lambda g: g * 2)
            loss.backward()
            handle.remove()
            model.optimizer.step()
            return found
        elif i == 5 and change == "function":
            loss = loss * loss
        elif i == 5 and change == "retain":
            loss.backward(retain_graph=True)
        elif i == 5 and change == "parameter":
            with gc.no_grad():
                bias.add_(1)  # only the gradient of the last product's input reads a weight
        elif i == 5 and change == "freeze":
            bias.requires_grad_(False)
            bias.requires_grad_(True)
        elif i == 5 and change == "grad":
            bias.grad = gc.ones(3)
        loss.backward()
        model.optimizer.step()
        return found

    taken = assert_unnoticed(step)
    assert taken[4]


def test_a_second_backward_pass_is_refused() -> None:
    model, x, y = Model(), gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    for i in range(4):
        plain(model, x, y, i)
    loss = model.loss(x, y)
    loss.item()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("read", [True, False])
def test_a_loss_that_was_differentiated_keeps_no_graph(read: bool) -> None:
    w = gc.ones(3, requires_grad=True)
    losses = []
    held = []
    for _ in range(5):
        x = gc.from_numpy(RNG.standard_normal(3).astype(np.float32))
        held.append(weakref.ref(x._cell.node))
        loss = (w * x).sum()
        if read:
            loss.item()
        loss.backward()
        w.grad.numpy()
        losses.append(loss)
        del x
    assert [ref() for ref in held] == [None] * 5
    assert np.isfinite([loss.item() for loss in losses]).all()
