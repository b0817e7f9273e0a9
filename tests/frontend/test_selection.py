"""The first few elements in an order inside a trace: the same positions as outside, and PyTorch's values."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.frontend.functions.selection import FEW

torch = pytest.importorskip("torch")


def mixed(dtype: str, *shape: int) -> np.ndarray:
    """Few values, so that many are equal; of floats also NaN and infinities, some lines of them alone."""
    a = np.random.default_rng(0).integers(0, 6, shape).astype(dtype)
    if a.dtype.kind == "f":
        a.flat[::5], a.flat[3::11], a.flat[1::7] = np.nan, np.inf, -np.inf
        a[0, :, 0], a[1, :, 0], a[2, :, 0] = np.nan, np.inf, -np.inf
    return a


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_topk_in_a_trace(k: int, dtype: str, largest: bool) -> None:
    a = mixed(dtype, 4, 9, 3)
    x = graphc.from_numpy(a)
    outside = x.topk(k, 1, largest)
    inside = graphc.compile(lambda x: x.topk(k, 1, largest))(x)
    assert inside.indices.dtype is graphc.int64
    np.testing.assert_array_equal(inside.indices.numpy(), outside.indices.numpy())
    np.testing.assert_array_equal(inside.values.numpy(), outside.values.numpy())
    if dtype != "bool":  # PyTorch has none
        expected = torch.from_numpy(a).topk(k, 1, largest).values
        np.testing.assert_array_equal(inside.values.numpy(), expected.numpy())


def test_gradient_goes_to_the_places_found() -> None:
    a = np.random.default_rng(1).standard_normal((5, 40), dtype=np.float32)

    def step(T, x):
        y = (x.topk(4)[0] * T.arange(1.0, 5.0)).sum()
        return T.autograd.grad(y, [x])[0]

    mine = graphc.compile(lambda x: step(graphc, x))(graphc.from_numpy(a).requires_grad_())
    np.testing.assert_array_equal(mine.numpy(), step(torch, torch.from_numpy(a).requires_grad_()).numpy())


def test_long_lines() -> None:
    a = np.random.default_rng(2).permutation(np.arange(2 * 5000, dtype=np.float32)).reshape(2, 5000)
    for k in (1, FEW, FEW + 1, 5000):
        found = graphc.compile(lambda x, k=k: x.topk(k)[1])(graphc.from_numpy(a)).numpy()
        np.testing.assert_array_equal(found, np.argsort(-a, 1)[:, :k])


@pytest.mark.parametrize("k", [0, FEW, FEW + 1])
def test_none_few_and_many(k: int) -> None:
    a = np.random.default_rng(3).standard_normal((3, 20), dtype=np.float32)
    x = graphc.from_numpy(a)
    found = graphc.compile(lambda x: x.topk(k))(x)
    np.testing.assert_array_equal(found.indices.numpy(), np.argsort(-a, 1)[:, :k])


@pytest.mark.parametrize("index", [[0, 2], (graphc.tensor([0, 2]),), graphc.tensor([True, False, True])])
def test_what_index_tensors_write_has_the_dtype_of_the_destination(index) -> None:
    """PyTorch refuses to round silently; numbers and slices take any."""
    x = graphc.zeros(3, dtype=graphc.int64)
    with pytest.raises(RuntimeError, match=r"dtypes match, got Long .* Float .*graphc.int64"):
        x[index] = graphc.tensor([1.5, 2.5])
    x[index] = graphc.tensor([1.5, 2.5]).to(graphc.int64)
    assert x.tolist() == [1, 0, 2]
    x[index] = 3.7
    x[1:2] = graphc.tensor([4.2])
    assert x.tolist() == [3, 4, 3]
    with pytest.raises(RuntimeError, match="dtypes match"):
        x.index_put_((graphc.tensor([0]),), graphc.tensor([2.5]))
