"""Few rows times a matrix that comes from memory while tiles multiply."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir.types import float64
from graphc.loop.ir import Fetch, Tile
from graphc.loop.lower import ways
from graphc.loop.lower.contraction.sizes import Blocking, Sizes
from graphc.loop.lower.contraction.streamed import choose_streamed
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel
from graphc.program import Machine
from tests.loop.test_ways import WIDE, check, leaf, matmul, tiles

SMALL = replace(WIDE, l1_bytes=1 << 11, l2_bytes=1 << 14, l3_bytes=1 << 14)
SLIM = Machine("slim", 16, ((8, 3), (6, 4), (12, 2)), False, l2_bytes=1 << 14, l3_bytes=1 << 14)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make streaming free of charge, so that it is always chosen where it can be."""

    def cheap(sizes: Sizes, machine: Machine) -> tuple[Blocking, float] | None:
        found = choose_streamed(sizes, machine)
        return found and (found[0], 0.0)

    monkeypatch.setattr(ways, "choose_streamed", cheap)


def streams(found: list[Tile]) -> bool:
    """Whether all tiles ask, at each step, for a row of a matrix that they read where it is."""
    each = [isinstance(t.fetch, Fetch) and t.fetch.each and t.b.buffer.space == "param" for t in found]
    return bool(each) and all(each)


@pytest.mark.parametrize("machine", [SMALL, SLIM], ids=lambda m: m.name)
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("m,n,k", [(8, 256, 20), (13, 320, 11), (24, 272, 15), (7, 264, 17)])
def test_few_rows_times_a_large_matrix(free, machine: Machine, left: int, m: int, n: int, k: int) -> None:
    """Against NumPy: blocks of K that do not divide it, a narrower last panel, A stored either way."""
    x, y = leaf("x", *((k, m) if left else (m, k))), leaf("y", k, n)
    calls = check(ops.dot_general(x, y, ((1 - left,), (0,))), machine=machine)
    assert streams(tiles(calls))
    for call in calls:
        verify_kernel(call.kernel)
        text = print_kernel(call.kernel)
        assert " each" in text
        assert print_kernel(parse_kernel(text)) == text


def test_the_columns_may_be_the_rows_of_the_result(free) -> None:
    """y = W^T x with W stored [in, out] and x [in, batch]: W is the matrix that streams."""
    x, w = leaf("x", 20, 8), leaf("w", 20, 256)
    assert streams(tiles(check(ops.dot_general(w, x, ((0,), (0,))), machine=SMALL)))


def test_what_does_not_stream(free) -> None:
    """Too few rows, too many, a matrix that stays in the caches, one whose rows end within a tile, one that
    is stored the other way, doubles."""
    for m, n, k in ((3, 256, 20), (80, 256, 20), (8, 256, 4), (8, 250, 20)):
        assert not streams(tiles(check(matmul(leaf("x", m, k), leaf("y", k, n)), machine=SMALL)))
    across = ops.dot_general(leaf("x", 8, 20), leaf("y", 256, 20), ((1,), (1,)))
    doubles = matmul(leaf("x", 8, 20, dtype=float64), leaf("y", 20, 256, dtype=float64))
    for node in (across, doubles):
        assert not streams(tiles(check(node, machine=SMALL)))


def test_blocks_fit_beside_their_successors() -> None:
    """A block of K and the next one take half of the second-level cache, and runs are not short."""
    sizes = Sizes(1, 8, 4096, (4096,), 4, 0.2, 0.2, 4 * 4096, 0, False, 0.35, 0.1, b_pitch=4 * 4096)
    found = choose_streamed(sizes, WIDE)
    assert found is not None
    blocking, cost = found
    run = blocking.col_panels * blocking.lanes * 4
    assert run >= 1024
    assert 2 * blocking.depth * run <= WIDE.l2_bytes // 2
    assert blocking.depth * blocking.blocks >= 4096
    assert cost >= 8 * 4096 * 4096 / 16
    assert choose_streamed(replace(sizes, rows=5), WIDE) is None
    assert choose_streamed(replace(sizes, b_pitch=None), WIDE) is None


def test_the_same_bits_with_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x, y = (graphc.from_numpy(rng.standard_normal(s, dtype=np.float32)) for s in ((8, 1500), (1500, 2048)))
    before, results = graphc.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            graphc.set_num_threads(threads)
            results.append((x @ y).numpy().copy())
    finally:
        graphc.set_num_threads(before)
    np.testing.assert_allclose(results[0], x.numpy() @ y.numpy(), rtol=0, atol=2e-3)
    assert all(np.array_equal(results[0], r) for r in results[1:])
