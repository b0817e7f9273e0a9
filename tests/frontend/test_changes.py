"""Steps that clip gradients, and that hold views and temporaries, are one program, and nobody can tell."""

from __future__ import annotations

import gc as garbage
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE
from graphc.frontend.steps import adopted, joint
from graphc.nn.utils import clip_grad, clip_grad_norm_, clip_grad_value_

RNG = np.random.default_rng(3)
X = RNG.standard_normal((8, 12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, (8, 12))
Between = Callable[[nn.Module, gc.Tensor], Any]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """What earlier tests have left pending, or in reference cycles, is not this one's."""
    garbage.collect()
    MODE.pending.clear()
    MODE.events = None


def _net() -> nn.Module:
    gc.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def _train(between: Between) -> list[np.ndarray]:
    net = _net()
    optimizer = gc.optim.Adam(net.parameters(), lr=0.01)
    seen: list[Any] = []
    for x, y in zip(X, Y, strict=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(gc.from_numpy(x)) * 1.5, gc.from_numpy(y))
        loss.backward()
        seen.append(between(net, loss))
        optimizer.step()
        seen.append(loss.detach())
        seen.append(net[0].weight.grad if net[0].weight.grad is not None else gc.zeros(1))
    seen += list(net.parameters())
    return [np.array(gc.as_tensor(t).detach()) for t in seen]


def _drop_one(net: nn.Module, loss: gc.Tensor) -> Any:
    total = clip_grad_norm_(net.parameters(), 0.05)
    net[0].weight.grad = None  # so that the events are built
    return total


def _norm_of_gradients(net: nn.Module, loss: gc.Tensor) -> Any:
    clip_grad_norm_(net.parameters(), 0.05)
    return sum(p.grad.abs().sum() for p in net.parameters())


def _both(net: nn.Module, loss: gc.Tensor) -> Any:
    total = clip_grad_norm_(list(net.parameters())[1:], 0.05)
    clip_grad_value_(net.parameters(), 0.001)
    return total


CLIPPED: list[Between] = [
    lambda net, loss: clip_grad_norm_(net.parameters(), 0.05),
    lambda net, loss: clip_grad_norm_(net.parameters(), 0.05, norm_type=float("inf")),
    lambda net, loss: clip_grad_norm_(net.parameters(), 0.05).item(),
    lambda net, loss: (clip_grad_norm_(net.parameters(), 0.05), loss.item())[0],
    lambda net, loss: clip_grad_value_(net.parameters(), 0.001) or 0.0,
    _drop_one,
    _norm_of_gradients,
    _both,
]


@pytest.mark.parametrize("between", CLIPPED)
def test_clipping_is_as_if_it_were_done_at_once(between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _train(between)
    monkeypatch.setattr(clip_grad, "change", lambda *args: None)
    monkeypatch.setattr(adopted, "note", lambda loss: False)
    monkeypatch.setattr(joint, "step", lambda optimizer: MODE.events and MODE.events.build() and False)
    for a, b in zip(found, _train(between), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)


def test_a_step_that_clips_is_one_program() -> None:
    calls = [lazy.native_calls()]

    def between(net: nn.Module, loss: gc.Tensor) -> Any:
        calls.append(lazy.native_calls())
        return clip_grad_norm_(net.parameters(), 0.05)

    _train(between)
    assert [b - a for a, b in itertools.pairwise(calls[3:])] == [1] * (len(calls) - 4)


def test_a_norm_that_must_be_finite_is_looked_at_now() -> None:
    net = _net()
    net(gc.full((2, 6), float("nan"))).sum().backward()
    with pytest.raises(RuntimeError, match="non-finite"):
        clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)


def test_gradients_of_the_loss_do_not_flow_through_the_norm() -> None:
    net = _net()
    net(gc.from_numpy(X[0])).sum().backward()
    total = clip_grad_norm_(net.parameters(), 1.0)
    assert total.dtype is gc.float32
    assert total.shape == ()
    assert not total.requires_grad


# ------------------------------------------------------------- views and temporaries


def _noted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    noted: list[bool] = []
    note = adopted.note
    monkeypatch.setattr(adopted, "note", lambda loss: noted.append(note(loss)) or noted[-1])
    return noted


def _steps(loss_of: Callable[[gc.Tensor, gc.Tensor], tuple[gc.Tensor, Any]]) -> list[np.ndarray]:
    net = _net()
    optimizer = gc.optim.SGD(net.parameters(), lr=0.1)
    seen = []
    for x in X:
        data = gc.from_numpy(x)
        loss, held = loss_of(net[0](data) + 0.0, data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += [loss.detach().numpy(), *[np.array(t.detach()) for t in held]]
    return [*seen, *[p.detach().numpy() for p in net.parameters()]]


def _views(h: gc.Tensor, data: gc.Tensor) -> tuple[gc.Tensor, Any]:
    parts = [h[:, i].square().unsqueeze(1) for i in range(3)]  # views of what nobody else holds
    return gc.cat(parts, 1).mean(), parts


def _followed(h: gc.Tensor, data: gc.Tensor) -> tuple[gc.Tensor, Any]:
    scaled = data * 2 - data.mean()
    first = scaled[0]  # which goes on following
    loss = (h.mean(1) * scaled.sum(1)).mean()
    return loss, [first, scaled]


def _changed(h: gc.Tensor, data: gc.Tensor) -> tuple[gc.Tensor, Any]:
    target = gc.zeros(12)
    target[data[:, 0] > 0] = 1.0
    return nn.functional.mse_loss(h[:, 0], target), [target]


@pytest.mark.parametrize("loss_of", [_views, _followed, _changed])
def test_passes_with_views_and_temporaries_are_noted(loss_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = _noted(monkeypatch)
    found = _steps(loss_of)
    assert noted[-3:] == [True] * 3
    monkeypatch.setattr(adopted, "note", lambda loss: False)
    for a, b in zip(found, _steps(loss_of), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_view_of_a_result_shares_its_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = _noted(monkeypatch)
    net = _net()
    optimizer = gc.optim.SGD(net.parameters(), lr=0.1)
    for x in X[:4]:
        scaled = gc.from_numpy(x) * 2
        first = scaled[0]
        optimizer.zero_grad()
        (net(gc.from_numpy(x) + 0).sum(1) * scaled.sum(1)).mean().backward()
        optimizer.step()
        np.testing.assert_allclose(first, x[0] * 2)
        scaled[0, 1] = 7.0
        assert first[1].item() == 7.0
        first[2] = 9.0
        assert scaled[0, 2].item() == 9.0
    assert noted[-1]


def test_targets_made_without_gradients_leave_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = _noted(monkeypatch)
    net, teacher = _net(), _net()
    optimizer = gc.optim.SGD(net.parameters(), lr=0.1)
    for x in X:
        scores = gc.exp(net[0](gc.from_numpy(x) * 1.0))
        with gc.no_grad():
            target = teacher[0](gc.from_numpy(x))
        optimizer.zero_grad()
        (scores - target).square().mean().backward()
        optimizer.step()
    assert noted[-3:] == [True] * 3


def test_an_evaluation_is_computed_batch_by_batch() -> None:
    net = _net()
    with gc.no_grad():
        results = [net(gc.from_numpy(x)).sum() for x in X]
        assert len(MODE.pending) <= 2
    assert all(np.isfinite(r.item()) for r in results)
