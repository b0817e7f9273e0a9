"""Plain training loops: forward passes are noted when their backward pass begins, and nobody can tell."""

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
from graphc.frontend.steps import adopted
from graphc.frontend.tracing import deferred

RNG = np.random.default_rng(5)
X = RNG.standard_normal((8, 12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, (8, 12))


@pytest.fixture(autouse=True)
def fresh() -> None:
    """What earlier tests have left pending, or in reference cycles, is not this one's."""
    garbage.collect()
    MODE.pending.clear()
    MODE.events = None


class Net(nn.Module):
    """Code of the user's own between the layers, statistics and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        h = gc.tanh(self.norm(self.first(x)) * 2)
        return self.last(nn.functional.dropout(h, 0.2, self.training) + h)


Loss = Callable[[Net, gc.Tensor, gc.Tensor], gc.Tensor]


def plain(net: Net, x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
    return nn.functional.cross_entropy(net(x), y)


def train(loss_of: Loss, between: Callable[[Net, gc.Tensor], Any] | None = None) -> list[Any]:
    """Losses of eight steps, and what they leave behind."""
    gc.manual_seed(1)
    net = Net()
    optimizer = gc.optim.Adam(net.parameters(), lr=0.01)
    seen: list[Any] = []
    for x, y in zip(X, Y, strict=True):
        optimizer.zero_grad()
        loss = loss_of(net, gc.from_numpy(x), gc.from_numpy(y))
        loss.backward()
        if between is not None:
            between(net, loss)
        optimizer.step()
        seen.append(loss.item())
    return [*seen, *[t.detach().numpy() for t in net.state_dict().values()]]


def assert_unnoticed(monkeypatch: pytest.MonkeyPatch, *args: Any) -> None:
    found = train(*args)
    with monkeypatch.context() as patch:
        patch.setattr(deferred, "LONGEST", 0)
        expected = train(*args)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_are_noted_and_equal_lazy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[bool] = []
    note = adopted.note
    with monkeypatch.context() as patch:
        patch.setattr(adopted, "note", lambda loss: noted.append(note(loss)) or noted[-1])
        before = lazy.compilations()
        train(plain)
        assert noted[-6:] == [True] * 6
        assert lazy.compilations() - before <= 4  # the first step, a step, and what reads values
    assert_unnoticed(monkeypatch, plain)


def test_constants_that_others_have_read_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal constants are one node in all of a process; its value has no history."""
    noted: list[bool] = []
    note = adopted.note
    held = [gc.zeros(8), gc.ones(8), gc.zeros(12, 8), gc.full((8,), 0.9), gc.full((12, 8), 2.0)]
    monkeypatch.setattr(adopted, "note", lambda loss: noted.append(note(loss)) or noted[-1])
    expected = train(plain)
    for constant in held:
        constant.numpy()
    found = train(plain)
    assert noted[-6:] == [True] * 6
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_detached_parameter_is_read_before_it_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient flows on through a product with the old value, after the parameter has been updated."""

    def loss_of(net: Net, x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
        h = net.norm(net.first(x)) @ net.last.weight.detach().t()
        return nn.functional.cross_entropy(net.last(h @ net.last.weight.detach()), y)

    assert_unnoticed(monkeypatch, loss_of)


@pytest.mark.native
def test_a_detached_argument_is_read_before_it_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(wrap: Callable[[Any], Any]) -> np.ndarray:
        gc.manual_seed(0)
        before, after, last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        layers = nn.ModuleList([before, after, last])
        optimizer = gc.optim.SGD(layers.parameters(), lr=0.5)
        loss_of = wrap(lambda x, w: (last((after(before(x) @ w) * 2).tanh()) ** 2).mean())
        rng = np.random.default_rng(0)
        for _ in range(4):
            optimizer.zero_grad()
            x = gc.from_numpy(rng.standard_normal((32, 64)).astype(np.float32))
            loss_of(x, after.weight.detach()).backward()
            optimizer.step()
        return before.weight.detach().numpy()

    with monkeypatch.context() as patch:
        patch.setattr(deferred, "LONGEST", 0)
        expected = run(lambda f: f)
    np.testing.assert_array_equal(run(gc.compile), expected)
    np.testing.assert_array_equal(run(lambda f: f), expected)


@pytest.mark.parametrize(
    "between",
    [
        lambda net, loss: loss.item(),
        lambda net, loss: net.last.bias.grad.sum().item(),
        lambda net, loss: nn.utils.clip_grad_norm_(net.parameters(), 0.1),
        lambda net, loss: net.norm.running_mean.tolist(),
        lambda net, loss: setattr(net.first.weight, "grad", None),
        lambda net, loss: net.norm.running_var.mul_(1.5),
    ],
)
def test_what_happens_before_the_step(between: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_unnoticed(monkeypatch, plain, between)


def test_numbers_that_change_at_every_step_compile_nothing() -> None:
    scale = iter(np.linspace(0.5, 1.5, 16))

    def loss_of(net: Net, x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
        return plain(net, x, y) * float(next(scale))

    before = lazy.compilations()
    train(loss_of)
    assert lazy.compilations() - before <= 6


def test_a_second_backward_pass_and_other_losses_are_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss_of(net: Net, x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
        other = (net.last.weight**2).sum()
        first = plain(net, x, y)
        other.backward()
        return first

    assert_unnoticed(monkeypatch, loss_of)
    net = Net()
    for x, y in zip(X, Y, strict=True):
        loss = plain(net, gc.from_numpy(x), gc.from_numpy(y))
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


@pytest.mark.parametrize("read", [lambda h, other, x: h.sum().item(), lambda h, other, x: other(x).sum()])
def test_gradients_flow_through_what_is_computed_before(
    read: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read, or another model's evaluation, computes what is pending in the midst of a forward pass."""

    def loss_of(net: Net, x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
        h = gc.tanh(net.first(x))
        with gc.no_grad():
            known = read(h, net.first, x)
        return nn.functional.cross_entropy(net.last(h * 2) + known, y)

    assert_unnoticed(monkeypatch, loss_of)
    losses = train(loss_of)[:8]
    assert len(set(losses)) == 8


def test_models_are_not_kept_alive() -> None:
    gc.manual_seed(1)
    net = Net()
    optimizer = gc.optim.SGD(net.parameters(), lr=0.1)
    for x, y in zip(X, Y, strict=True):
        optimizer.zero_grad()
        plain(net, gc.from_numpy(x), gc.from_numpy(y)).backward()
        optimizer.step()
    held = weakref.ref(net.first.weight)
    del net, optimizer
    garbage.collect()
    assert held() is None
