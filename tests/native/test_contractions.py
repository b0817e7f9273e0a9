"""Compiled contractions against NumPy: gates in the epilogue, dot products, scaled rows, packed tiles; the
same bits on one thread and on three."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphc import ops, threads
from graphc.backends.llvm import Backend
from graphc.backends.llvm.target import get_target, host_features
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.loop.lower import lower_group
from graphc.plan import make
from tests.loop.test_cells import MODELS
from tests.loop.test_ways import draw, evaluate, group_of, leaf

TARGETS = [n for n in ("x86-64-v4", "x86-64-v3", "aarch64") if get_target(n).arch == get_target().arch]
TARGETS = [n for n in TARGETS if get_target(n).required <= host_features()]


def compare(outputs: Sequence[Node], target: str) -> None:
    backend, group = Backend(target), group_of(*outputs)
    graph = Graph(group.inputs, tuple(outputs))
    calls = lower_group(group, backend.machine)
    run = backend.compile(graph, make(graph, [group], {group: calls}).plan)
    rng = np.random.default_rng(1)
    values = {n: draw(n, rng) for n in group.inputs}
    before = threads.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            threads.set_num_threads(count)
            results.append([np.full(o.shape, 7, o.dtype.numpy) for o in outputs])
            assert run([values[n] for n in group.inputs], results[-1]) == 0
    finally:
        threads.set_num_threads(before)
    for got, again, want in zip(*results, evaluate(outputs, values), strict=True):
        assert got.tobytes() == again.tobytes()
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-5 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch,hidden", [(1, 6), (2, 64), (13, 37), (33, 128)])
def test_cells(target: str, model: str, batch: int, hidden: int) -> None:
    compare(MODELS[model](batch, hidden)[0], target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("m,n,k", [(8, 200, 1500), (5, 500, 2049), (256, 128, 200)])
def test_long_rows_and_plain_results(target: str, left: int, right: int, m: int, n: int, k: int) -> None:
    """K in parts, B asked for ahead; a result that its tiles store."""
    x, w = leaf("x", *((k, m) if left else (m, k))), leaf("w", *((n, k) if right else (k, n)))
    compare((ops.dot_general(x, w, ((1 - left,), (right,))),), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("m,n,k", [(1, 300, 500), (2, 65, 999), (7, 130, 257), (16, 200, 300), (45, 90, 60)])
def test_shapes(target: str, right: int, m: int, n: int, k: int) -> None:
    x, bias = leaf("x", m, k), leaf("b", m, n)
    w = leaf("w", *((n, k) if right else (k, n)))
    y = ops.dot_general(x, w, ((1,), (right,)))
    compare((ops.maximum(ops.add(y, bias), ops.neg(bias)), y), target)
