"""Tiles that ask for the rows of A that the next tile reads."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import DType, float32, float64
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel
from graphc.program import Machine

from .test_contract import CRAMPED, check, leaf, matmul, tiles

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
