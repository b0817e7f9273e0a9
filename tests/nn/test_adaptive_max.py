"""Adaptive maxima where windows overlap, elements are equal or no numbers, beside PyTorch."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphc as gc

CASES = {
    "overlapping": ((2, 3, 11, 13), (5, 9)),
    "side by side": ((2, 3, 12, 14), (4, 7)),
    "one axis of each kind": ((2, 3, 9, 9), (9, 2)),
    "no batch, every row": ((3, 7, 5), (7, 5)),
    "one window": ((2, 3, 5, 6), (1, 1)),
    "more windows than elements": ((2, 3, 4, 5), (7, 9)),
    "lines": ((2, 3, 11), (4,)),
    "volumes": ((2, 2, 5, 6, 7), (3, 3, 2)),
}


def results(T: ModuleType, x: np.ndarray, size: tuple[int, ...], upstream: np.random.Generator) -> Any:
    """Maxima, where they are, and the gradient for random upstream ones."""
    x = T.tensor(x, requires_grad=True)
    y, place = getattr(T.nn.functional, f"adaptive_max_pool{len(size)}d")(x, size, return_indices=True)
    y.backward(T.tensor(upstream.standard_normal(tuple(y.shape)).astype(np.float32)))
    return [t.detach().numpy() for t in (y, place, x.grad)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("nan", [False, True])
def test_equal_to_torch(name: str, nan: bool) -> None:
    torch = pytest.importorskip("torch")
    shape, size = CASES[name]
    x = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)  # many are equal: the first counts
    if nan:
        x[(0,) * x.ndim] = np.nan
    expected = results(torch, x, size, np.random.default_rng(1))
    for wanted, got in zip(expected, results(gc, x, size, np.random.default_rng(1)), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-6, equal_nan=True)


def test_second_derivatives() -> None:
    x = gc.tensor(np.random.default_rng(0).permutation(2 * 5 * 7).reshape(1, 2, 5, 7).astype(np.float64))

    def loss(x: gc.Tensor) -> gc.Tensor:
        return (gc.nn.functional.adaptive_max_pool2d(x, (2, 3)) ** 3).sum()

    hessian = gc.autograd.functional.hessian(loss, x).reshape(70, 70).numpy()
    y, place = gc.nn.functional.adaptive_max_pool2d(x, (2, 3), return_indices=True)
    expected = np.zeros((70, 70))
    flat = place.numpy().reshape(2, 6) + np.array([[0], [35]])
    np.add.at(expected, (flat, flat), 6 * y.numpy().reshape(2, 6))
    np.testing.assert_allclose(hessian, expected)
