"""Random loops by compiled code: values, gradients and gradients of gradients of the unrolled form."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.analysis.evaluate import evaluate_graph
from graphc.pipeline import compile
from tests.random_loops import random_loop


@pytest.mark.parametrize("seed", range(300, 314))
def test_native_loops_equal_their_steps(seed: int) -> None:
    pair = random_loop(seed)
    for order in range(3):
        arrays = pair.arrays(seed)
        expected = evaluate_graph(pair.graph(pair.unrolled), arrays)
        got = compile(pair.graph(pair.scanned))(arrays)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)
        if order < 2:
            pair = pair.gradients()
