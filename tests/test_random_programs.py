"""Random network-like programs: native code, and the passes, against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import pipeline
from graphc.ir.graph import Graph
from graphc.ir.types import DType, float32, float64

from .native.samples import disagreement
from .random_mixed import mixed_program
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


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
@pytest.mark.parametrize("seed", range(10))
def test_native_mixed(seed: int, dtype: DType) -> None:
    """What stands around networks, and values of odd shapes."""
    assert_agrees(*mixed_program(seed, dtype, steps=18), dtype)


def assert_native(seed: int, dtype: DType, loops: bool = False) -> None:
    assert_agrees(*random_program(seed, dtype, steps=18, loops=loops), dtype)


def tolerance(graph: Graph, dtype: DType) -> float:
    """In units of `dtype`: that of float32, if a part of the program is in float32."""
    if dtype is float64 and any(node.dtype is float32 for node in graph.nodes):
        return TOLERANCE_ULPS[float32] * float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)
    return TOLERANCE_ULPS[dtype]


def assert_agrees(graph: Graph, donate: dict[int, int], arrays: list[np.ndarray], dtype: DType) -> None:
    ulps = tolerance(graph, dtype)
    native, reference = (pipeline.compile(graph, donate, name) for name in ("llvm", "reference"))
    given, expected_given = copies(arrays), copies(arrays)
    for step in range(2):
        actual, expected = native(given), reference(expected_given)
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            wrong = disagreement(a, e, ulps, floor=0.1)
            assert not wrong, f"step {step}, output {i} ({graph.outputs[i].op.name}): {wrong}"
        for o, i in donate.items():
            assert actual[o] is given[i]
        for i in set(range(len(arrays))) - set(donate.values()):
            np.testing.assert_array_equal(given[i], arrays[i])


@pytest.mark.parametrize("make", [random_program, mixed_program])
@pytest.mark.parametrize("block", range(4))
def test_passes(block: int, make: Callable[..., Any]) -> None:
    """The graph after all passes evaluates like the graph before."""
    for seed in range(100 + 25 * block, 125 + 25 * block):
        graph, _, arrays = make(seed, float64, steps=20)
        after = pipeline.optimise(graph)
        expected, actual = (pipeline.compile(g, backend="reference")(copies(arrays)) for g in (graph, after))
        narrow = tolerance(graph, float64) / TOLERANCE_ULPS[float64]
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            wrong = disagreement(np.asarray(a), np.asarray(e), 64.0 * max(1.0, narrow), floor=0.1)
            assert not wrong, f"seed {seed}, output {i} ({graph.outputs[i].op.name}): {wrong}"
