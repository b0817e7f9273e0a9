"""Random network-like programs: native code, and the passes, against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import pipeline
from graphc.ir.types import DType, float32, float64

from .native.samples import disagreement
from .random_programs import random_program

TOLERANCE_ULPS = {float32: 3e3, float64: 1e4}  # of the largest element: sums, differences, gradients

# Programs that were once lowered wrongly: sums split into tasks that turned out to be one, run over as
# often as there are rows; outputs of other axis order than the reductions they are fused with.
FOUND = (1046, 1128, 1212, 1235, 1317, 1331, 1397, 1401, 1508)


def copies(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [a.copy() for a in arrays]


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
@pytest.mark.parametrize("seed", [*range(24), *FOUND])
def test_native(seed: int, dtype: DType) -> None:
    """Twice, since the second call finds the state that the first one left."""
    assert_native(seed, dtype)


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
@pytest.mark.parametrize("seed", range(2000, 2012))
def test_native_with_loops(seed: int, dtype: DType) -> None:
    """Scans among everything else, and their gradients."""
    assert_native(seed, dtype, loops=True)


def assert_native(seed: int, dtype: DType, loops: bool = False) -> None:
    graph, donate, arrays = random_program(seed, dtype, steps=18, loops=loops)
    native, reference = (pipeline.compile(graph, donate, name) for name in ("llvm", "reference"))
    given, expected_given = copies(arrays), copies(arrays)
    for step in range(2):
        actual, expected = native(given), reference(expected_given)
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            wrong = disagreement(a, e, TOLERANCE_ULPS[dtype], floor=0.1)
            assert not wrong, f"step {step}, output {i} ({graph.outputs[i].op.name}): {wrong}"
        for o, i in donate.items():
            assert actual[o] is given[i]
        for i in set(range(len(arrays))) - set(donate.values()):
            np.testing.assert_array_equal(given[i], arrays[i])


@pytest.mark.parametrize("block", range(4))
def test_passes(block: int) -> None:
    """The graph after all passes evaluates like the graph before."""
    for seed in range(100 + 25 * block, 125 + 25 * block):
        graph, _, arrays = random_program(seed, float64, steps=20)
        after = pipeline.optimise(graph)
        expected, actual = (pipeline.compile(g, backend="reference")(copies(arrays)) for g in (graph, after))
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            wrong = disagreement(a, e, 64.0, floor=0.1)
            assert not wrong, f"seed {seed}, output {i} ({graph.outputs[i].op.name}): {wrong}"
