"""isin by comparing all pairs and by sorting, against NumPy: ties, NaN, both zeros, mixed dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.frontend.functions import search


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("int64", "int32"), ("bool", "bool")], ids=str)
@pytest.mark.parametrize(("n", "m"), [((2, 1000), 900), ((3, 7), 5), ((), 4), ((5,), 0), ((0,), 3)])
@pytest.mark.parametrize("pairs", [0, search.PAIRS], ids=["sorted", "chosen"])
def test_isin(monkeypatch, pairs: int, n, m: int, dtypes, invert: bool) -> None:
    monkeypatch.setattr(search, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    a = np.asarray(rng.integers(-900, 900, n)).astype(dtypes[0])
    b = rng.integers(-900, 900, m).astype(dtypes[1])
    if dtypes[0] == "float32" and a.size and m:
        a.flat[::3], b[::4] = -0.0, 0.0
        a.flat[1::5], b[-1] = np.nan, np.nan
    mine = graphc.isin(graphc.from_numpy(a), graphc.from_numpy(b), invert=invert)
    np.testing.assert_array_equal(mine.numpy(), np.isin(a, b, invert=invert))
    traced = graphc.compile(lambda x, y: graphc.isin(x, y, invert=invert))
    found = traced(graphc.from_numpy(a), graphc.from_numpy(b))
    np.testing.assert_array_equal(found.numpy(), np.isin(a, b, invert=invert))
