"""Every way to compute a product or a convolution, not only the one that costs least: random problems on
machines with caches of random sizes, each by a way that is drawn."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc import ops, pipeline, threads
from graphc.backends.llvm import Backend
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float64
from graphc.lookup import Request
from graphc.loop import lower
from graphc.loop.lower import ways
from tests.random_contractions import random_contraction

TOLERANCE = {4: 2e-4, 8: 1e-12}  # by item size, of the largest result: Winograd's algorithm included

# Once refused by the emitter: vector loops over one column, which no index depends on.
FOUND = (58, 113, 156, 176, 180, 204)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """From now on, lowering draws among the ways that there are, whatever they cost."""
    pick = random.Random()

    def draw(self: Any, *options: Any) -> Any:
        return pick.choice([option for option in options if option is not None])

    monkeypatch.setattr(ways._Lowering, "_cheapest", draw)
    monkeypatch.setattr(ways, "LITTLE", 0.0)
    monkeypatch.setattr(lower, "_known", {})
    return pick


def small_machine(pick: random.Random) -> Backend:
    """A backend for caches in which little fits, so that small problems are cut as large ones are."""
    backend = Backend()
    backend.name = "drawn"  # in keys of caches
    backend.machine = replace(
        backend.machine,
        l1_bytes=pick.choice((32 << 10, 8 << 10, 4 << 10)),
        l2_bytes=pick.choice((1 << 20, 64 << 10, 32 << 10)),
        l3_bytes=pick.choice((16 << 20, 256 << 10)),
        layout=False,
    )
    return backend


@pytest.mark.parametrize("seed", [*range(40), *FOUND])
def test_ways(seed: int, drawn: random.Random) -> None:
    """Against NumPy, and the same bits on one thread and on three."""
    drawn.seed(seed)
    lower._known.clear()
    graph, arrays = random_contraction(seed)
    fixed = frozenset(i for i in range(len(arrays)) if drawn.random() < 0.25)
    program = pipeline.build(Request(graph, {}, small_machine(drawn), fixed))
    (expected,) = pipeline.compile(graph, backend="reference")(arrays)
    before, found = threads.get_num_threads(), []
    try:
        for count in (1, 3):
            threads.set_num_threads(count)
            found.append(np.array(program(arrays)[0]))
    finally:
        threads.set_num_threads(before)
    assert found[0].tobytes() == found[1].tobytes()
    tolerance = TOLERANCE[expected.itemsize] * max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=tolerance)


def test_phases_without_taps() -> None:
    """A gradient of stride 2 and one tap has phases that nothing adds to."""
    dy, w = (
        ops.input_(name, TensorType(shape, float64))
        for name, shape in (("dy", (2, 5, 1, 4, 4)), ("w", (4, 16, 3, 1, 1)))
    )
    pad = (1, 0, 0)
    node = ops.conv_input_grad(dy, w, (9, 2, 7), (2, 2, 2), pad, pad, groups=4, last=True)
    graph = Graph((dy, w), (node,))
    arrays = [np.random.default_rng(0).standard_normal(x.shape) for x in (dy, w)]
    (expected,) = pipeline.compile(graph, backend="reference")(arrays)
    (found,) = pipeline.compile(graph)(arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
