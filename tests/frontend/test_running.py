"""Running products, extrema and log-sums, modes: values and gradients against PyTorch, on odd lines too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

INF, NAN = np.inf, np.nan
LINES = {
    "plain": np.random.default_rng(0).standard_normal((3, 37, 5)),
    "zeros": np.random.default_rng(1).integers(-1, 2, (4, 9)).astype(float),
    "ties": np.random.default_rng(2).integers(0, 4, (6, 50)).astype(float),
    "one": np.array([[2.0], [-0.0]]),
    "odd": np.array(
        [
            [-INF, -INF, 1.0, 2.0, INF, 3.0, -INF],
            [1.0, NAN, 2.0, NAN, INF, 0.0, -1.0],
            [INF, -INF, INF, 0.0, -0.0, 1e300, 1.0],
        ]
    ),
}
FUNCTIONS: dict[str, Callable[[Any, int], Any]] = {
    "cumprod": lambda x, dim: x.cumprod(dim),
    "cummax": lambda x, dim: x.cummax(dim),
    "cummin": lambda x, dim: x.cummin(dim),
    "logcumsumexp": lambda x, dim: x.logcumsumexp(dim),
    "mode": lambda x, dim: x.mode(dim),
    "sort": lambda x, dim: x.sort(stable=True, dim=dim),
    "descending": lambda x, dim: x.sort(stable=True, dim=dim, descending=True),
    "median": lambda x, dim: x.median(dim),
    "quantile": lambda x, dim: x.quantile(0.3, dim),
    "prod": lambda x, dim: x.prod(dim),
}


def parts(found: Any) -> list[Any]:
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("line", LINES)
def test_values_and_gradients(name: str, line: str, dim: int) -> None:
    function, array = FUNCTIONS[name], LINES[line]
    if (name, line) == ("mode", "odd"):
        pytest.skip("PyTorch's mode of NaN depends on how it sorts")

    ours, theirs = graphc.from_numpy(array), torch.from_numpy(array)
    results = []
    for x in (ours.requires_grad_(), theirs.requires_grad_()):
        found = parts(function(x, dim))
        shape = tuple(found[0].shape)
        weights = np.cos(np.arange(int(np.prod(shape)))).reshape(shape)
        library = graphc if x is ours else torch
        (grad,) = library.autograd.grad((found[0] * library.from_numpy(weights)).sum(), [x])
        results.append([*[f.detach().numpy() for f in found], grad.numpy()])
    if line == "odd" or (name, line) == ("quantile", "ties"):  # PyTorch: infinities times 0; unstable orders
        results = [found[:-1] for found in results]
    elif (name, line) == ("mode", "ties"):
        results = [found[:1] for found in results]
    for mine, expected in zip(*results, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 700), (1, 300), (3, 81, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
def test_extremes_of_long_lines(dtype: str, shape: tuple[int, ...]) -> None:
    """Many equal ones, in some stretches of a line and in others none; and NaN far into it."""
    array = np.random.default_rng(3).integers(-9, 9, shape).astype(dtype)
    array[:, 30:60] -= 20
    array[-1, 200:] += 5
    if array.dtype.kind == "f":
        array[0, 67::9] = np.nan
    for name in ("cummax", "cummin"):
        found = graphc.compile(lambda x, name=name: FUNCTIONS[name](x, 1))(graphc.from_numpy(array))
        expected = FUNCTIONS[name](torch.from_numpy(array), 1)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
