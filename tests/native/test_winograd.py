"""Compiled convolutions by Winograd's algorithm against NumPy: every schedule, ragged shapes, epilogues; the
same bits on one thread and on three."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphc import ops, threads
from graphc.backends.llvm import Backend
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import float32, float64
from graphc.loop.lower import lower_group
from graphc.loop.lowered import KernelCall
from graphc.plan import make
from tests.loop.test_ways import draw, evaluate, group_of, leaf, tiles
from tests.loop.winograd_plans import CASES, Case, forced, schedules
from tests.native.test_contractions import TARGETS, compare

ULPS = {float32: 2e-5, float64: 4e-14}  # of the largest result


def run_forced(node: Node, backend: Backend, plans: Sequence[dict]) -> None:
    """Every plan's results, on one thread and on three, against NumPy's."""
    group = group_of(node)
    values = {n: draw(n, np.random.default_rng(1)) for n in group.inputs}
    (want,) = evaluate([node], values)
    tolerance = ULPS[node.dtype] * np.abs(want).max()
    for plan in plans:
        calls = forced(group, backend.machine, **plan)
        one, three = on_threads(node, backend, calls, values)
        assert one.tobytes() == three.tobytes()
        np.testing.assert_allclose(one, want, rtol=0, atol=tolerance, err_msg=str(plan))


def on_threads(node: Node, backend: Backend, calls: Sequence[KernelCall], values: dict) -> list[np.ndarray]:
    group = group_of(node)
    run = backend.compile(None, make(Graph(group.inputs, (node,)), [group], {group: calls}).plan)
    before, results = threads.get_num_threads(), []
    try:
        for count in (1, 3):
            threads.set_num_threads(count)
            results.append(np.full(node.shape, 7, node.dtype.numpy))
            assert run([values[n] for n in group.inputs], results[-1:]) == 0
    finally:
        threads.set_num_threads(before)
    return results


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_schedules(target: str, name: str, gradient: bool) -> None:
    case, backend = CASES[name], Backend(target)
    plans = list(schedules(case, backend.machine))
    run_forced(case.gradient() if gradient else case.forward(), backend, plans[gradient::2])


@pytest.mark.parametrize("target", TARGETS)
def test_large_weights_are_fetched_ahead(target: str) -> None:
    case, backend = Case(1, 100, 96, (13, 14)), Backend(target)
    plan = {"size": 6, "height": 8, "several": 1, "lanes": backend.machine.lanes(4), "panels": 2}
    plan |= {"data_ahead": True, "weights_ahead": True}
    calls = forced(group_of(case.forward()), backend.machine, **plan)
    assert any(tile.fetch is not None for tile in tiles(calls))
    run_forced(case.forward(), backend, [plan])


@pytest.mark.parametrize("target", TARGETS)
def test_double_precision(target: str) -> None:
    case, backend = CASES["ragged"], Backend(target)
    plans = list(schedules(case, backend.machine, 8))
    run_forced(case.forward(float64), backend, plans[:3])


def with_epilogue(y: Node) -> list[Node]:
    """A normalised channel, a residual, ReLU, and where that is positive."""
    scale, shift = leaf("scale", y.shape[1]), leaf("shift", y.shape[1])
    along = [ops.broadcast(v, y.shape, (1,)) for v in (scale, shift)]
    total = ops.add(ops.add(ops.mul(y, along[0]), along[1]), leaf("residual", *y.shape))
    zero = ops.zeros(y.type)
    return [ops.maximum(total, zero), total]


@pytest.mark.parametrize(
    "case", [Case(4, 64, 48, (14, 14)), Case(8, 48, 80, (7, 9)), Case(3, 128, 128, (6, 6))]
)
@pytest.mark.parametrize("target", TARGETS)
def test_chosen_with_epilogue(target: str, case: Case) -> None:
    for node in (case.forward(), case.gradient()):
        outputs = with_epilogue(node)
        calls = lower_group(group_of(*outputs), Backend(target).machine)
        assert any(call.kernel.name.endswith("_winograd") for call in calls)
        compare(outputs, target)


def reach(x: np.ndarray, w: np.ndarray, size: int) -> np.ndarray:
    """What the error bound is relative to: for each result the sum over channels of the largest |x| in any
    tile of the source that has the result's window, times the sum of |w|."""
    r = size - 1  # a tile with the window reaches so far from the result
    padded = np.pad(np.abs(x), ((0, 0), (0, 0), (r, r), (r, r)))
    largest = np.lib.stride_tricks.sliding_window_view(padded, (2 * r + 1, 2 * r + 1), (2, 3)).max((-1, -2))
    return np.einsum("nchw,kc->nkhw", largest, np.abs(w).sum((2, 3)))


TILES = ((4, 16, 2), (6, 64, 2), (6, 64, 4), (6, 64, 5))
BOUNDS = [
    (size, units, 3, spread, channels)
    for size, units in ((4, 16), (6, 64))
    for spread in (0, 1, 3, 8)
    for channels in (1, 16, 64)
]
BOUNDS += [(*tile, spread, 16) for tile in TILES for spread in (1, 8)]


@pytest.mark.parametrize("size,units,taps,spread,channels", BOUNDS)
def test_error_bound(size: int, units: int, taps: int, spread: float, channels: int) -> None:
    """The bound in the package's documentation, on data of magnitudes e to a normal power of this spread."""
    low = (taps - 1) // 2
    case, backend = (
        Case(2, channels, 32, (24, 24), (low,) * 2, (taps - 1 - low,) * 2, 1, (taps,) * 2),
        Backend(),
    )
    node, double = case.forward(float32), case.forward(float64)
    rng = np.random.default_rng(5)
    values = {}
    for leaf_ in node.inputs:
        scale = np.exp(spread * rng.standard_normal(leaf_.shape))
        values[leaf_] = (draw(leaf_, rng) * scale).astype(np.float32)
    exact = [values[n].astype(np.float64) for n in node.inputs]
    (want,) = evaluate([double], dict(zip(double.inputs, exact, strict=True)))
    plan = next(p for p in schedules(case, backend.machine) if p["size"] == size)
    got, _ = on_threads(node, backend, forced(group_of(node), backend.machine, **plan), values)
    bound = units * np.finfo(np.float32).eps * reach(exact[0], exact[1], size)
    assert (np.abs(got - want) <= bound).all()
