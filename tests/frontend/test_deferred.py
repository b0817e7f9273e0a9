"""Steps of compiled calls, backward and update put off and run as one: same values as where nothing is."""

from __future__ import annotations

import gc as garbage
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.cell import Deferred
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE
from graphc.frontend.steps import known_step
from graphc.frontend.tracing import deferred, events
from graphc.nn import recorded

from .training_loops import LOOPS, World, X, Y, plain


@pytest.fixture(autouse=True)
def fresh() -> None:
    """What earlier tests have left pending is not this one's."""
    MODE.pending.clear()
    MODE.events = None


def train(name: str, wrap: Callable[[Any], Any], optimizer: str) -> tuple[list[Any], list[np.ndarray]]:
    world = World(wrap, optimizer)
    gc.manual_seed(11)
    for i in range(5):
        LOOPS[name](world, gc.from_numpy(X[i]), gc.from_numpy(Y[i]), i)
    return world.seen, world.state()


@contextmanager
def nothing_put_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(deferred, "LONGEST", 0)
        patch.setattr(known_step, "step", lambda optimizer: False)
        patch.setattr(recorded.Recording, "is_worthwhile", lambda self: False)
        yield


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, np.ndarray):
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def as_it_is(function: Any) -> Any:
    return function


@pytest.mark.parametrize("name", LOOPS)
def test_loops_give_the_bits_of_lazy_nodes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With compiled functions and without; and one agrees with the other."""
    optimizer = ("SGD", "Adam")[list(LOOPS).index(name) % 2]
    outcomes = []
    for wrap in (gc.compile, as_it_is):
        outcomes.append(train(name, wrap, optimizer))
        with nothing_put_off(monkeypatch):
            expected = train(name, wrap, optimizer)
        for found, other in zip(outcomes[-1], expected, strict=True):
            assert_same(found, other)
    (compiled, state), (plain_, other) = outcomes
    for a, b in zip([*compiled, *state], [*plain_, *other], strict=True):
        if isinstance(b, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        else:
            assert a == b


# ------------------------------------------------------------- what is put off, and what it costs


@pytest.mark.parametrize("name", ["plain", "zero_after_forward", "model_then_loss", "several_results"])
def test_a_step_is_one_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(gc.compile, "Adam")
    for i in (0, 2, 2):
        LOOPS[name](w, gc.from_numpy(X[i]), gc.from_numpy(Y[i]), i)

    def refuse(*_: Any) -> None:
        raise AssertionError("events were built")

    monkeypatch.setattr(events.Events, "redo", refuse)
    calls, programs = lazy.STATS.native_calls, lazy.STATS.compilations
    for i in (3, 4):
        LOOPS[name](w, gc.from_numpy(X[i]), gc.from_numpy(Y[i]), i)
    assert lazy.STATS.native_calls == calls + 2
    assert lazy.STATS.compilations == programs


def test_results_are_deferred_until_looked_at() -> None:
    w = World(gc.compile, "SGD")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    loss = w.loss_of(x, y)
    mean = w.net.body[1].running_mean
    assert type(loss._cell) is Deferred
    assert type(mean._cell) is Deferred
    assert loss.shape == ()
    assert loss.requires_grad
    assert MODE.events is not None
    assert mean.shape == (8,)  # state has its new value built
    assert type(loss._cell) is type(mean._cell) is not Deferred
    assert MODE.events is None
    assert loss.grad_fn is not None


def test_gradient_arrays_are_used_again_unless_somebody_has_them() -> None:
    w = World(gc.compile, "SGD")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    p = w.net.body[4].weight
    plain(w, x, y, 0)
    plain(w, x, y, 1)
    kept = p.grad
    assert kept is p.grad
    before = kept.numpy()
    plain(w, x, y, 2)
    np.testing.assert_array_equal(kept.numpy(), before)
    assert (p.grad.numpy() != before).any()


@pytest.mark.parametrize("put_off", [True, False])
def test_a_bad_label_raises_at_the_step_and_changes_nothing(
    put_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = World(gc.compile, "Adam")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    for i in range(2):
        plain(w, x, y, i)
    if not put_off:
        monkeypatch.setattr(deferred, "LONGEST", 0)
    learned = [*w.net.parameters(), *[t for s in w.opt.state.values() for t in s.values()]]
    before = [t.detach().numpy() for t in learned]
    w.opt.zero_grad()
    loss = w.loss_of(x, gc.full((12,), 3, dtype=gc.int64))
    loss.backward()
    with pytest.raises(IndexError, match="out of bounds"):
        w.opt.step()
    assert_same([t.detach().numpy() for t in learned], before)
    with pytest.raises(IndexError, match="out of bounds"):
        loss.item()
    plain(w, x, y, 3)
    assert any((t.detach().numpy() != b).any() for t, b in zip(learned, before, strict=True))


def test_errors_are_raised_where_they_are_made() -> None:
    w = World(gc.compile, "SGD")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        w.model(x).backward()
    loss = w.loss_of(x, y)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    w.opt.step()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        w.with_logits(x, y)["right"].backward()


def test_history_over_replaced_state_is_refused() -> None:
    w = World(gc.compile, "SGD")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    plain(w, x, y, 0)
    penalty = w.net.body[4].weight.square().sum()
    penalty.item()
    plain(w, x, y, 1)
    penalty.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        w.net.body[4].weight.grad.tolist()


def test_an_exception_between_leaves_a_usable_state() -> None:
    w = World(gc.compile, "Adam")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])

    def broken() -> None:
        w.opt.zero_grad()
        w.loss_of(x, y).backward()
        raise KeyError("user")

    plain(w, x, y, 0)
    for _ in range(3):
        with pytest.raises(KeyError):
            broken()
    plain(w, x, y, 1)
    assert np.isfinite(w.seen[-1])


def test_results_of_an_interrupted_step_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(gc.compile, "SGD")
    x, y = gc.from_numpy(X[0]), gc.from_numpy(Y[0])
    plain(w, x, y, 0)
    loss = w.loss_of(x, y)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(events.Call, "build", interrupt)
        with pytest.raises(KeyboardInterrupt):
            loss.item()
    with pytest.raises(RuntimeError, match="an error interrupted the step"):
        loss.item()
    plain(w, x, y, 1)
    assert np.isfinite(w.seen[-1])


@pytest.mark.native
@pytest.mark.parametrize("name", ["plain", "several_results", "two_losses", "gradients_read_after_the_step"])
def test_native_loops_equal_lazy_ones(name: str) -> None:
    found, state = train(name, gc.compile, "Adam")
    expected, other = train(name, as_it_is, "Adam")
    for a, b in zip([*found, *state], [*expected, *other], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_what_is_built_lets_go_of_its_arguments() -> None:
    """Without a reference cycle: else it would depend on the garbage collector what a program returns."""
    conv, norm = gc.nn.Linear(3, 4), gc.nn.BatchNorm1d(4)
    collecting = garbage.isenabled()
    garbage.disable()
    try:
        inner = conv(gc.ones(2, 3))
        held = weakref.ref(inner)
        loss = norm(inner).relu().sum()
        del inner
        assert held() is None
        loss.backward()
    finally:
        if collecting:
            garbage.enable()


@pytest.mark.parametrize("wrap", [as_it_is, gc.compile])
def test_parameters_and_statistics_keep_their_arrays_from_step_to_step(wrap: Callable[[Any], Any]) -> None:
    net = gc.nn.Sequential(gc.nn.Linear(6, 8), gc.nn.BatchNorm1d(8), gc.nn.ReLU(), gc.nn.Linear(8, 3))
    optimizer = gc.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    loss_of = wrap(lambda x, y: gc.nn.functional.cross_entropy(net(x), y))
    places = []
    for i in range(5):
        optimizer.zero_grad()
        loss_of(gc.from_numpy(X[i]), gc.from_numpy(Y[i])).backward()
        optimizer.step()
        places.append([id(t._cell.node.bound) for t in net.state_dict(keep_vars=True).values()])
    assert places[2:] == places[1:2] * 3  # (plain code is lazy at first)
