"""Panels of B that tiles read where B is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops, pipeline
from graphc.ir.graph import Graph
from graphc.loop.lower import ways
from graphc.loop.lower.contraction import blocking
from graphc.loop.lower.contraction.blocking import choose_blocks
from graphc.loop.lower.contraction.sizes import Sizes, Source
from tests.loop.test_ways import CRAMPED, WIDE, check, leaf, matmul, tiles


def reads_in_place(calls) -> bool:
    """Whether all tiles read B from a param, without a kernel that copies before."""
    return len(calls) == 1 and all(tile.b.buffer.space == "param" for tile in tiles(calls))


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize(
    "m,n,k", [(37, 128, 20), (29, 80, 33), (64, 48, 24), (30, 130, 21), (29, 129, 20), (16, 33, 20)]
)
def test_whole_tiles_of_columns(left: int, m: int, n: int, k: int) -> None:
    x, y = leaf("x", *((k, m) if left else (m, k))), leaf("y", k, n)
    assert reads_in_place(check(ops.dot_general(x, y, ((1 - left,), (0,)))))


def test_batches_and_parts_of_arrays() -> None:
    x, y = leaf("x", 3, 20, 16), leaf("y", 3, 16, 64)
    assert reads_in_place(check(ops.dot_general(x, y, ((2,), (1,)), ((0,), (0,)))))
    part = ops.slice_(leaf("z", 40, 96), (5, 16), (37, 80), (1, 1))
    assert reads_in_place(check(matmul(leaf("x", 24, 32), part)))


def test_k_in_blocks() -> None:
    """Each block of K starts at its own row of B."""
    calls = check(matmul(leaf("x", 24, 300), leaf("y", 300, 8)), machine=CRAMPED)
    assert all(tile.accumulate for tile in tiles(calls))
    assert reads_in_place(calls)


def test_what_is_copied() -> None:
    """Columns of which three are left for the last tile, columns that are not neighbours, other types."""
    for y, axis in ((leaf("y", 20, 131), 0), (leaf("y", 128, 20), 1)):
        assert not reads_in_place(check(ops.dot_general(leaf("x", 37, 20), y, ((1,), (axis,)))))


def sizes(pitch: int, k: int) -> Sizes:
    return Sizes(1, 512, 512, (k,), 4, 1.0, 1.0, 4 * k, 0, 4, 0.35, 0.1, b_pitch=pitch, b_far=0.25)


def cost(pitch: int, k: int) -> float:
    return choose_blocks(replace(sizes(pitch, k), b_place=True), WIDE)[1]


def test_rows_that_compete_for_cache_sets_cost_more() -> None:
    """A page apart, rows compete in the first-level cache; many of them in the second-level cache as well."""
    assert cost(2112, 128) == cost(2048, 128) < cost(4096, 128)
    assert cost(2112, 512) < cost(2048, 512)
    for pitch in (4096, 2112):
        copied = choose_blocks(sizes(pitch, 1024), WIDE)[1]
        assert (cost(pitch, 1024) < copied) == (pitch == 2112)


def test_a_state_that_is_multiplied_and_updated() -> None:
    """w - x @ w overwrites w: no tile may see an element of the new one."""
    x, w = leaf("x", 64, 64), leaf("w", 64, 64)
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    program = pipeline.compile(Graph((x, w), (ops.sub(w, matmul(x, w)),)), {0: 1})
    (result,) = program([a, b.copy()])
    np.testing.assert_allclose(result, b - a @ b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("images,space", [(3, (4, 12)), (3, (10, 10)), (2, (15, 14))])
@pytest.mark.parametrize("gradient", [False, True])
def test_images_of_a_convolution(images: int, space: tuple[int, int], gradient: bool) -> None:
    """Pixels of an image are neighbours, those of two images are not: tiles go image by image."""
    w = leaf("w", *((40, 12) if gradient else (12, 40)), 1, 1)
    x = leaf("x", images, 40, *space)
    axes = ((1, 1), (0, 0), (0, 0), (1, 1), 1)
    node = ops.conv_input_grad(x, w, space, *axes) if gradient else ops.conv(x, w, *axes)
    calls = check(node)
    assert reads_in_place(calls)
    assert all(tile.c.buffer.space == "param" for tile in tiles(calls))


def test_images_with_an_epilogue() -> None:
    x, w, b = leaf("x", 3, 40, 10, 10), leaf("w", 12, 40, 1, 1), leaf("b", 3, 12, 10, 10)
    y = ops.conv(x, w, (1, 1), (0, 0), (0, 0), (1, 1), 1)
    assert reads_in_place(check(ops.tanh(ops.add(y, b))))


@pytest.mark.parametrize("gradient", [False, True])
def test_weights_are_brought_in_order_once_for_all_images(
    gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, x = leaf("w", *((40, 12) if gradient else (12, 40)), 1, 1), leaf("x", 3, 40, 10, 10)
    axes = ((1, 1), (0, 0), (0, 0), (1, 1), 1)
    choose_blocks.cache_clear()
    monkeypatch.setattr(blocking, "_sources", lambda sizes, axis: (Source.KERNEL,))
    monkeypatch.setattr(blocking, "KERNEL", 300.0)
    monkeypatch.setattr(ways, "WORTH", 0.0)
    node = ops.conv_input_grad(x, w, (10, 10), *axes) if gradient else ops.conv(x, w, *axes)
    calls = check(node)
    choose_blocks.cache_clear()
    (staged,) = (call for call in calls if call.kernel.name.endswith("_rows"))
    assert staged.args[-1].type.shape[0] == 1
    assert reads_in_place(calls[1:])


def test_lines_of_a_that_collide() -> None:
    """Steps of K a page apart: A is brought in order, if many images share it."""
    many = replace(sizes(784, 256), batch=8, cols=196, a_pitch=4, b_place=True, alike=8)
    assert choose_blocks(replace(many, a_step=4096), WIDE)[0].source is Source.KERNEL
    assert choose_blocks(replace(many, a_step=4), WIDE)[0].source is Source.PLACE
