"""LBFGS against PyTorch, on the Rosenbrock function, and its line search on its own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import graphc
from graphc.optim.line_search import Point, minimum_of_cubic, strong_wolfe

CASES = [
    {"lr": 0.05},
    {"lr": 0.1, "history_size": 3, "max_iter": 7},
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "max_iter": 4, "lr": 0.5, "history_size": 2},
    {"line_search_fn": "strong_wolfe", "max_eval": 6},
    {"tolerance_grad": 3.0, "lr": 0.02},
]


def problem(T):
    """A small nonlinear least-squares problem with two parameters of different shapes."""
    rng = np.random.default_rng(0)
    a, b = T.from_numpy(rng.standard_normal((20, 6))), T.from_numpy(rng.standard_normal(20))
    w = T.from_numpy(rng.standard_normal(6)).requires_grad_(True)
    c = T.from_numpy(rng.standard_normal((2, 1))).requires_grad_(True)

    def loss():
        fit = ((T.tanh(a @ w) * 3 - b) ** 2).sum()
        return fit + (c**4).sum() + (c * c * 2).sum() + (c * w[:2].reshape(2, 1)).sum()

    return [w, c], loss


def steps(T, options, count=3, state=None):
    params, loss = problem(T)
    optimizer = T.optim.LBFGS(params, **options)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    losses = [optimizer.step(closure).item() for _ in range(count)]
    return losses, params, optimizer, closure


@pytest.mark.parametrize("options", CASES, ids=str)
def test_same_steps_as_torch(options):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = steps(torch, options)
    ours = steps(graphc, options)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-7)
    mine, other = (run[2].state_dict()["state"][0] for run in (ours, theirs))
    for name in ("func_evals", "n_iter"):
        assert mine[name] == other[name]
    for name in ("d", "prev_flat_grad"):
        np.testing.assert_allclose(mine[name].numpy(), other[name].numpy(), rtol=1e-4, atol=1e-5)
    assert len(mine["old_dirs"]) == len(other["old_dirs"])


def test_rosenbrock():
    x = graphc.tensor([-1.5, 2.0], dtype=graphc.float64, requires_grad=True)
    optimizer = graphc.optim.LBFGS([x], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(x.detach().numpy(), [1, 1], atol=1e-5)


def test_saved_state_continues_alike():
    options = {"line_search_fn": "strong_wolfe", "max_iter": 3}
    _, params, optimizer, closure = steps(graphc, options, 2)
    fresh, loss = problem(graphc)
    again = graphc.optim.LBFGS(fresh, **options)
    again.load_state_dict(optimizer.state_dict())
    with graphc.no_grad():
        for mine, other in zip(fresh, params, strict=True):
            mine.copy_(other)

    def other_closure():
        again.zero_grad()
        value = loss()
        value.backward()
        return value

    assert again.step(other_closure).item() == optimizer.step(closure).item()
    for mine, other in zip(fresh, params, strict=True):
        np.testing.assert_array_equal(mine.detach().numpy(), other.detach().numpy())


def test_mistakes():
    w = graphc.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match="parameter groups"):
        graphc.optim.LBFGS([{"params": [w]}, {"params": [graphc.zeros(1, requires_grad=True)]}])
    with pytest.raises(ValueError, match="learning rate"):
        graphc.optim.LBFGS([w], lr=-1)
    with pytest.raises(TypeError, match="closure"):
        graphc.optim.LBFGS([w]).step()
    optimizer = graphc.optim.LBFGS([w], line_search_fn="armijo")

    def closure():
        optimizer.zero_grad()
        loss = ((w - 1) ** 2).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="strong_wolfe"):
        optimizer.step(closure)
    with pytest.raises(RuntimeError, match="compile the closure"):
        graphc.compile(lambda: graphc.optim.LBFGS([w]).step(closure))()


def test_line_search_of_a_quartic():
    """The strong Wolfe conditions hold where it stops, whatever the first step."""

    def objective(t):
        return (t - 2) ** 4 + t, np.array([4 * (t - 2) ** 3 + 1])

    direction = np.array([1.0])
    value, gradient = objective(0.0)
    start = Point(0.0, value, gradient, float(gradient @ direction))
    for first in (1e-3, 0.5, 3.0, 40.0):
        point, evaluations = strong_wolfe(objective, direction, start, first)
        assert point.value <= value + 1e-4 * point.t * start.slope
        assert abs(point.slope) <= 0.9 * abs(start.slope)
        assert evaluations < 25


def test_minimum_of_cubic():
    """The cubic t^3 - 3 t has its minimum at 1; without a minimum, the middle of the bounds."""
    a = Point(-0.5, 1.375, np.zeros(1), -2.25)
    b = Point(2.0, 2.0, np.zeros(1), 9.0)
    assert minimum_of_cubic(a, b, -0.5, 2.0) == pytest.approx(1.0)
    assert minimum_of_cubic(b, a, -0.5, 0.25) == 0.25
    rising = (Point(0.0, 0.0, np.zeros(1), 1.0), Point(1.0, 0.9, np.zeros(1), 1.0))
    assert minimum_of_cubic(*rising, 0.0, 4.0) == 2.0
