"""Calls of library modules in training loops: one program a step, and nothing else different."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.cell import Deferred
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE
from graphc.frontend.tracing import events
from graphc.ir.node import site_of
from graphc.nn import recorded

RNG = np.random.default_rng(9)
X = RNG.standard_normal((6, 4, 5)).astype(np.float32)
Y = RNG.integers(0, 3, (6, 4))


@pytest.fixture(autouse=True)
def fresh() -> None:
    """What earlier tests have left pending is not this one's."""
    MODE.pending.clear()
    MODE.events = None
    gc.manual_seed(3)


class Net(nn.Module):
    """A user's module: its forward is called, its layers' calls are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.25))
        self.head = nn.Linear(8, 3)

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        return self.head(self.body(x))


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))


def train(make: Callable[[], nn.Module], steps: int = 5, between: Any = None) -> list[Any]:
    gc.manual_seed(1)
    net, criterion = make(), nn.CrossEntropyLoss()
    opt = gc.optim.Adam(net.parameters(), lr=0.05)
    seen: list[Any] = []
    for i in range(steps):
        x, y = gc.from_numpy(X[i]), gc.from_numpy(Y[i])
        opt.zero_grad()
        out = net(x)
        loss = criterion(out, y)
        loss.backward()
        if between is not None:
            between(net, out, loss, i, seen)
        opt.step()
        seen += [loss.item(), out.detach().numpy(), repr(loss), repr(out.grad_fn).split()[0]]
    return seen + [v.detach().numpy() for v in net.state_dict().values()]


def ordinary(monkeypatch: pytest.MonkeyPatch, *args: Any) -> list[Any]:
    with monkeypatch.context() as patch:
        patch.setattr(recorded.Recording, "is_worthwhile", lambda self: False)
        return train(*args)


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, np.ndarray):
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


@pytest.mark.parametrize("make", [Net, sequential])
def test_training_gives_the_same_bits_and_texts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(train(make), ordinary(monkeypatch, make))


@pytest.mark.parametrize("make", [Net, sequential])
def test_a_step_is_one_program_and_builds_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def count(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
        counts.append((lazy.STATS.native_calls, lazy.STATS.compilations))
        assert type(loss._cell) is Deferred
        assert out.shape == (4, 3)
        assert loss.dtype is gc.float32

    monkeypatch.setattr(events.Events, "redo", lambda self: pytest.fail("events were built"))
    lazy.realise([])
    train(make, 5, count)
    assert [b[0] - a[0] for a, b in itertools.pairwise(counts[1:])] == [1, 1, 1]
    assert counts[-1][1] == counts[1][1]


def change_settings(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
    if i == 1:
        net.body[3].p = 0.6
    if i == 2:
        net.body[1].momentum = 0.5
    if i == 3:
        net.eval()


def read_inside(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
    seen += [(out.argmax(1) == 0).sum().item(), net.body[1].running_mean.numpy()]


def hook_inside(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
    if i == 1:
        net.head.register_forward_hook(lambda module, args, result: result * 2)


def replace_inside(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
    if i == 2:
        net.body[2] = nn.Sigmoid()


def copy_inside(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
    twin = copy.deepcopy(net)
    twin.eval()
    shallow = copy.copy(net.head)
    shallow.bias = nn.Parameter(gc.zeros(3))
    x = gc.from_numpy(X[i])
    seen += [twin(x).detach().numpy(), shallow(gc.ones(2, 8)).detach().numpy()]


def views(net: Any, out: gc.Tensor, loss: gc.Tensor, i: int, seen: list[Any]) -> None:
    base = net.head(gc.ones(2, 8))
    flat = nn.Flatten(0)(base)
    flat.zero_()
    seen += [base.detach().numpy(), flat.detach().numpy()]


BETWEEN = (change_settings, read_inside, hook_inside, replace_inside, copy_inside, views)


@pytest.mark.parametrize("between", BETWEEN, ids=lambda f: f.__name__)
def test_what_happens_in_a_step_is_seen(between: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(train(Net, 5, between), ordinary(monkeypatch, Net, 5, between))


def test_a_result_that_shares_storage_follows_it() -> None:
    layer, flatten = nn.Linear(5, 4), nn.Flatten(0)
    opt = gc.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        opt.zero_grad()
        out = layer(gc.from_numpy(X[0]))
        flat = flatten(out)
        nn.MSELoss()(flat, gc.zeros(16)).backward()
        opt.step()
        flat.zero_()
        assert not out.detach().numpy().any()


def test_errors_name_the_line_and_the_module() -> None:
    net = Net()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"test_recorded.py:\d+ in Net.body.0"):
            net(gc.ones(4, 7))
    nodes = net(gc.from_numpy(X[0]))  # built later, at another line
    text = str(site_of(nodes._cell.node))
    assert "in Net.head" in text


def test_modules_whose_results_are_worked_on_are_left_alone() -> None:
    layer = nn.Linear(5, 3)
    for _ in range(2 * recorded.PATIENCE):
        (layer(gc.from_numpy(X[0])) * 2).sum().backward()
    assert type(layer(gc.from_numpy(X[0]))._cell) is not Deferred


def test_arguments_that_require_grad_or_are_no_tensors() -> None:
    layer = nn.Linear(5, 3)
    x = gc.from_numpy(X[0]).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    with pytest.raises((TypeError, AttributeError, RuntimeError)):
        layer([1, 2])
    frozen = nn.Linear(5, 3).requires_grad_(False)
    assert not frozen(gc.from_numpy(X[0])).requires_grad


def test_a_bad_label_is_told_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    net, criterion = sequential(), nn.CrossEntropyLoss()
    opt = gc.optim.SGD(net.parameters(), lr=0.1)
    for labels in ([0, 1, 2, 0], [0, 1, 3, 0]):
        opt.zero_grad()
        loss = criterion(net(gc.from_numpy(X[0])), gc.tensor(labels))
        loss.backward()
        before = [p.detach().numpy() for p in net.parameters()]
        if max(labels) < 3:
            opt.step()
    with pytest.raises(IndexError, match=r"out of bounds.*test_recorded.py"):
        opt.step()
    assert_same([p.detach().numpy() for p in net.parameters()], before)


def test_losses_made_anew_are_recorded_once_for_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = []
    record = recorded._record
    monkeypatch.setattr(recorded, "_record", lambda *a: recordings.append(type(a[0])) or record(*a))

    def losses(make: Callable[[int], nn.Module]) -> list[float]:
        gc.manual_seed(1)
        net = sequential()
        opt = gc.optim.SGD(net.parameters(), lr=0.05)
        seen = []
        for i in range(6):
            loss = make(i)(net(gc.from_numpy(X[i])), gc.from_numpy(Y[i]))
            opt.zero_grad()
            loss.backward()
            opt.step()
            seen.append(loss.item())
        return seen

    kept = [nn.CrossEntropyLoss(label_smoothing=s) for s in (0.0, 0.25)]
    expected = losses(lambda i: kept[i % 2])
    recordings.clear()
    found = losses(lambda i: nn.CrossEntropyLoss(label_smoothing=(0.0, 0.25)[i % 2]))
    assert found == expected
    assert recordings.count(nn.CrossEntropyLoss) <= 2


def test_a_loss_whose_setting_changes_is_not_taken_for_what_it_was() -> None:
    criterion, other = nn.MSELoss(), nn.MSELoss()
    w = nn.Parameter(gc.ones(3))
    opt = gc.optim.SGD([w], lr=0.0)
    seen = []
    for reduction in ("mean", "sum", "mean", "sum"):
        criterion.reduction = reduction
        loss = criterion(w * 2, gc.zeros(3))
        opt.zero_grad()
        loss.backward()
        opt.step()
        seen.append(loss.item())
        assert other(w * 2, gc.zeros(3)).item() == 4.0
    assert seen == [4.0, 12.0, 4.0, 12.0]


def test_a_hook_on_one_loss_is_not_one_on_those_like_it() -> None:
    calls = []
    first, second = nn.MSELoss(), nn.MSELoss()
    x = gc.ones(3, requires_grad=True)
    first(x, gc.zeros(3)).backward()
    first.register_forward_hook(lambda *a: calls.append(1))
    first(x, gc.zeros(3)).backward()
    second(x, gc.zeros(3)).backward()
    assert calls == [1]
