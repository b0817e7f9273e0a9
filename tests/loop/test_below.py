"""Tiles that ask for the rows of A that the next tile reads."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import DType, float32, float64
from graphc.loop.inplace import statements
from graphc.loop.ir import For, Note, Prefetch, Store, Tile
from graphc.loop.lower.ways import lower_contraction
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel
from graphc.program import Machine

from .test_ways import CRAMPED, WIDE, check, group_of, leaf, matmul, tiles

SMALL = Machine("small", 16, ((4, 2),), False, l1_bytes=2048, l2_bytes=16384)


@pytest.mark.parametrize("dtype", [float32, float64])
def test_rows_that_every_panel_fetches_anew_are_asked_for(dtype: DType) -> None:
    """Where they are, if they do not stay in the second-level cache; the result is NumPy's, and the text
    parses back."""
    check_asking(matmul(leaf("x", 96, 24, dtype=dtype), leaf("y", 24, 16, dtype=dtype)), "rows", CRAMPED)


@pytest.mark.parametrize("dtype,m,k,n", [(float32, 96, 40, 8), (float64, 96, 64, 32)])
def test_so_are_rows_that_are_neighbours(dtype: DType, m: int, k: int, n: int) -> None:
    """A is stored the other way round: one line has rows of several tiles."""
    x, y = leaf("x", k, m, dtype=dtype), leaf("y", k, n, dtype=dtype)
    check_asking(ops.dot_general(x, y, ((0,), (0,))), "line", SMALL)


def check_asking(node: Node, below: str, machine: Machine) -> None:
    calls = check(node, machine=machine)
    asking = [tile for tile in tiles(calls) if tile.a.buffer.space == "param"]
    assert asking
    assert {tile.below for tile in asking} == {below}
    for call in calls:
        verify_kernel(call.kernel)
        text = print_kernel(call.kernel)
        assert f" below {below}, " in text
        assert print_kernel(parse_kernel(text)) == text


def test_rows_that_stay_in_cache_are_not() -> None:
    for rows in (12, 16):
        calls = check(matmul(leaf("x", rows, 40), leaf("y", 40, 16)), machine=SMALL)
        assert tiles(calls)
        assert not any(tile.below for tile in tiles(calls))


def test_the_word_after_below_is_checked() -> None:
    (call,) = check(matmul(leaf("x", 96, 24), leaf("y", 24, 16)), machine=CRAMPED)
    text = print_kernel(call.kernel)
    with pytest.raises(ValueError, match="rows or line"):
        parse_kernel(text.replace("below rows", "below all"))


def blocks_of_k(m: int, n: int, k: int, across: bool) -> set[int]:
    x = leaf("x", *((k, m) if across else (m, k)))
    node = ops.dot_general(x, leaf("y", k, n), ((0 if across else 1,), (0,)))
    return {int(tile.depth.value) for tile in tiles(lower_contraction(group_of(node), WIDE))}


def test_blocks_of_k_are_as_long_as_their_lines_stay() -> None:
    """Lines of A 4096 bytes apart fall into 32 of the second-level cache's 2048 sets, which hold eight each;
    lines that are not a power of two apart fall into all of them."""
    assert blocks_of_k(1024, 256, 2048, across=True) == {256}
    assert blocks_of_k(1040, 256, 2048, across=True) == {2048}
    assert blocks_of_k(1024, 256, 2048, across=False) == {2048}


def test_the_epilogue_follows_the_last_block_of_k() -> None:
    """Tile by tile, and what it reads is asked for."""
    x, y, z = leaf("x", 2048, 1024), leaf("y", 2048, 256), leaf("z", 1024, 256)
    node = ops.add(ops.dot_general(x, y, ((0,), (0,))), z)
    (call,) = lower_contraction(group_of(node), WIDE)
    assert all(tile.accumulate for tile in tiles([call]))
    last = call.kernel.body[-1]
    assert isinstance(last, For)
    inside = [stmt for stmt, _ in statements(last.body)]
    assert any(isinstance(stmt, Tile) for stmt in inside)
    assert any(isinstance(stmt, Store) and stmt.buffer.space == "param" for stmt in inside)
    assert any(isinstance(stmt, Note | Prefetch) for stmt in inside)


@pytest.mark.parametrize("m,n,k", [(12, 16, 70), (9, 21, 130)])
def test_the_epilogue_of_blocks_of_k(m: int, n: int, k: int) -> None:
    x, y, z = leaf("x", k, m), leaf("y", k, n), leaf("z", m, n)
    calls = check(ops.tanh(ops.add(ops.dot_general(x, y, ((0,), (0,))), z)), machine=CRAMPED)
    assert any(tile.accumulate for tile in tiles(calls))
