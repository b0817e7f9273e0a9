"""Convolutions of one small image with weights that stay: pixels are the rows of the tile, channels its
lanes, and results leave it transposed."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops, pipeline, threads
from graphc.ir.graph import Graph
from graphc.ir.types import DType, float32, float64
from graphc.loop.inplace import statements
from graphc.loop.ir import Tile
from graphc.loop.lower import lower_repeated
from graphc.program import Machine
from tests.loop.running import WIDE
from tests.loop.test_ways import draw, evaluate, group_of, leaf

SHAPES = {  # channels in, out, image, kernel, stride
    "point": (64, 128, 7, 1, 1),
    "many pixels": (32, 64, 14, 1, 1),
    "odd channels": (24, 75, 7, 1, 1),
    "strided point": (48, 96, 14, 1, 2),
    "strided": (32, 64, 14, 3, 2),
}


def block(name: str, dtype: DType = float32):
    """(inputs, output): a convolution, a bias, what is added to it, and a rectifier."""
    ins, outs, size, kernel, stride = SHAPES[name]
    x, w = leaf("x", 1, ins, size, size, dtype=dtype), leaf("w", outs, ins, kernel, kernel, dtype=dtype)
    low = (kernel // 2,) * 2
    y = ops.conv(x, w, stride=(stride, stride), low=low, high=low)
    bias, rest = leaf("b", outs, dtype=dtype), leaf("r", *y.shape, dtype=dtype)
    total = ops.add(ops.add(y, ops.broadcast(bias, y.shape, (1,))), rest)
    return (x, w, bias, rest), ops.maximum(total, ops.like(total, 0.0))


@pytest.mark.parametrize("dtype", [float32, float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_against_numpy_on_any_number_of_threads(name: str, dtype: DType) -> None:
    inputs, y = block(name, dtype)
    program = pipeline.compile(Graph(inputs, (y,)), fixed=frozenset((1, 2)))
    rng = np.random.default_rng(3)
    values = {n: draw(n, rng) for n in inputs}
    (want,) = evaluate((y,), values)
    before, results = threads.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            results.append(program([values[n] for n in inputs])[0])
    finally:
        threads.set_num_threads(before)
    for got in results:
        assert got.tobytes() == results[0].tobytes()
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_panels_that_do_not_fit_in_a_cache_are_fetched_ahead() -> None:
    x, w = leaf("x", 1, 512, 7, 7), leaf("w", 1024, 512, 1, 1)
    group = group_of(ops.conv(x, w))
    roomy = Machine("roomy", WIDE.vector_bytes, WIDE.tiles, True, l2_bytes=1 << 30)
    for machine, fetched in ((WIDE, True), (roomy, False)):
        calls = lower_repeated(group, machine, frozenset((w,))).each
        tiles = [s for c in calls for s, _ in statements(c.kernel.body) if isinstance(s, Tile)]
        assert tiles
        assert all((tile.fetch is not None) == fetched for tile in tiles)
        assert all(tile.b.buffer.shape[1:] == (512, tile.lanes) for tile in tiles)  # packed before
