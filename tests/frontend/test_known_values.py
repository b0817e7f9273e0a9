"""Known values are joined at once: which tensors a batch is drawn from is no matter of any program."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.evaluation.known import COPIED
from graphc.frontend.modes import MODE


def test_batches_of_remembered_steps_are_one_program() -> None:
    """Steps follow one another, so a batch may have a tensor twice: as a state and as the next one."""
    rng, draw = np.random.default_rng(0), random.Random(0)
    w = gc.tensor(rng.standard_normal((3, 2)), requires_grad=True)
    states = [
        gc.zeros(1, 3, dtype=gc.float64),
        *[gc.tensor(rng.standard_normal(3)).unsqueeze(0) for _ in range(30)],
    ]
    steps = list(itertools.pairwise(states))
    programs = []
    for _ in range(8):
        batch = draw.sample(steps, 12)
        now, then = gc.cat([a for a, _ in batch]), gc.stack([b for _, b in batch]).squeeze(1)
        loss = (gc.tanh(now @ w) - gc.tanh(then @ w)).pow(2).sum()
        loss.backward()
        a, b = (np.concatenate([s[i].numpy() for s in batch]) for i in (0, 1))
        expected = ((np.tanh(a @ w.detach().numpy()) - np.tanh(b @ w.detach().numpy())) ** 2).sum()
        assert loss.item() == pytest.approx(expected)
        w.grad = None
        programs.append(gc.compilations())
    assert programs[-1] == programs[2]


@pytest.mark.parametrize(("join", "other"), [(gc.cat, np.concatenate), (gc.stack, np.stack)])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_joins_agree_with_numpy(join: Callable[..., Any], other: Any, dim: int, count: int) -> None:
    arrays = [np.random.default_rng(i).standard_normal((2, 3)) for i in range(count)]
    before = len(MODE.pending)
    found = join([gc.tensor(a) for a in arrays], dim=dim)
    assert len(MODE.pending) == before
    np.testing.assert_array_equal(found.numpy(), other(arrays, axis=dim))
    assert found.dtype is gc.float64


def test_parts_and_fills_are_known_and_computed_values_are_not() -> None:
    x = gc.arange(12).view(3, 4)
    assert gc.cat([x[1], x[0, 1:3], gc.zeros(2, dtype=gc.int64)]).tolist() == [4, 5, 6, 7, 1, 2, 0, 0]
    assert gc.stack([x[:, 0], (x * 2)[:, 1]]).tolist() == [[0, 4, 8], [2, 10, 18]]
    assert gc.cat([x, x.double()]).dtype is gc.float64


def test_gradients_flow_through_joins() -> None:
    w, x = gc.ones(2, requires_grad=True), gc.ones(2)
    (gc.cat([w, x, w]) * gc.arange(6.0)).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [4, 6]
    with gc.no_grad():
        joined = gc.cat([w, x])
    assert not joined.requires_grad
    assert gc.stack([w, x]).requires_grad


@pytest.mark.parametrize("size", [2, COPIED])
def test_a_join_is_a_copy(size: int) -> None:
    x, y = gc.zeros(size), gc.zeros(size)
    shown = y.numpy()
    joined = gc.stack([x, y])
    single = gc.cat([y])
    x.add_(1)
    shown[:] = 2
    assert joined.sum().item() == 0
    assert single.sum().item() == 0
    assert gc.stack([x, y])[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: gc.cat([gc.ones(2, 3), gc.ones(2, 4)]), RuntimeError, "Sizes of tensors must match"),
        (lambda: gc.cat([gc.ones(2), gc.ones(2)], dim=1), IndexError, "Dimension out of range"),
        (lambda: gc.cat([gc.tensor(1.0)]), RuntimeError, "zero-dimensional tensor"),
        (lambda: gc.stack([gc.ones(2), gc.ones(3)]), RuntimeError, "equal size"),
        (lambda: gc.cat([]), ValueError, "non-empty list"),
        (lambda: gc.cat([gc.ones(2), 3]), TypeError, "element 1"),
    ],
)
def test_what_does_not_fit_is_said(wrong: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        wrong()


def test_a_trace_records_joins_of_its_state() -> None:
    state = gc.zeros(2)
    f = gc.compile(lambda x: gc.cat([state, gc.zeros(1), x]))
    assert f(gc.ones(1)).tolist() == [0, 0, 0, 1]
    state.fill_(5)
    assert f(gc.ones(1)).tolist() == [5, 5, 0, 1]
