"""`out=`: the same values as torch's, stored in the tensor given; what it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402
from graphc.frontend.functions import out  # noqa: E402

X = np.array([[0.5, -1.0, 2.0], [3.0, 0.25, -0.5]], np.float32)

CASES: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "add": (lambda T, x, o: T.add(x, 1, out=o), (2, 3)),
    "sub with alpha": (lambda T, x, o: T.sub(x, x, alpha=2, out=o), (2, 3)),
    "matmul": (lambda T, x, o: T.matmul(x, x.t(), out=o), (2, 2)),
    "sum": (lambda T, x, o: T.sum(x, dim=1, out=o), (2,)),
    "cat": (lambda T, x, o: T.cat([x, x], out=o), (4, 3)),
    "stack": (lambda T, x, o: T.stack([x, x], 1, out=o), (2, 2, 3)),
    "where": (lambda T, x, o: T.where(x > 0, x, -x, out=o), (2, 3)),
    "clamp": (lambda T, x, o: T.clamp(x, 0, 1, out=o), (2, 3)),
    "cumsum": (lambda T, x, o: T.cumsum(x, 1, out=o), (2, 3)),
    "gather": (lambda T, x, o: T.gather(x, 1, T.tensor([[0], [2]]), out=o), (2, 1)),
    "zeros": (lambda T, x, o: T.zeros(2, 3, out=o), (2, 3)),
    "arange": (lambda T, x, o: T.arange(4, out=o), (4,)),
    "linspace": (lambda T, x, o: T.linspace(0, 1, 5, out=o), (5,)),
    "lgamma": (lambda T, x, o: T.lgamma(x, out=o), (2, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name: str) -> None:
    function, shape = CASES[name]
    results = []
    for T in (torch, gc):
        given = T.ones(shape)
        found = function(T, T.from_numpy(X), given)
        assert found is given
        results.append(given.numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_into_itself_and_into_views() -> None:
    x = gc.from_numpy(X.copy())
    assert gc.exp(x, out=x) is x
    np.testing.assert_allclose(x.numpy(), np.exp(X), rtol=1e-6)
    whole = gc.zeros(2, 2, 3)
    gc.mul(x, 2, out=whole[1])
    np.testing.assert_allclose(whole[1].numpy(), 2 * np.exp(X), rtol=1e-6)
    assert whole[0].abs().sum().item() == 0


def test_several_results() -> None:
    values, places = gc.empty(2), gc.empty(2, dtype=gc.int64)
    found = gc.max(gc.from_numpy(X), 1, out=(values, places))
    assert found.values is values
    assert type(found) is gc.return_types.max
    assert (values.tolist(), places.tolist()) == ([2.0, 3.0], [2, 0])


def test_other_dtypes_and_sizes() -> None:
    wide = gc.empty(2, 3, dtype=gc.float64)
    gc.add(gc.from_numpy(X), 1, out=wide)
    assert wide.dtype is gc.float64
    np.testing.assert_allclose(wide.numpy(), X + 1)
    empty = gc.empty(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gc.add(gc.from_numpy(X), 1, out=empty).shape == (2, 3)
    with pytest.warns(UserWarning, match="was resized"):
        gc.add(gc.from_numpy(X), 1, out=gc.empty(5))


@pytest.mark.native
def test_compiled() -> None:
    state = gc.zeros(2, 3)

    @gc.compile
    def step(x: Any) -> None:
        gc.add(state, x, out=state)

    for _ in range(3):
        step(gc.ones(2, 3))
    assert state.tolist() == [[3.0] * 3] * 2


def test_mistakes() -> None:
    x = gc.from_numpy(X)
    for T in (torch, gc):
        with pytest.raises(RuntimeError, match="automatic differentiation"):
            T.add(T.ones(2, requires_grad=True), 1, out=T.empty(2))
        with pytest.raises(RuntimeError, match="can't be cast"):
            T.add(T.ones(2), 1.5, out=T.empty(2, dtype=T.int64))
        with pytest.raises(TypeError, match="out"):
            T.add(T.ones(2), 1, out="x")
    with pytest.raises(TypeError, match="tuple of 2 Tensors"):
        gc.max(x, 1, out=gc.empty(2))
    with gc.no_grad():
        assert gc.add(gc.ones(2, requires_grad=True), 1, out=gc.empty(2)).tolist() == [2.0, 2.0]


def test_every_name_is_a_function_of_both() -> None:
    for T in (torch, gc):
        assert not [n for n in out.NAMES if not callable(getattr(T, n, None))]
