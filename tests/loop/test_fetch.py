"""Tiles that ask for the panels that are packed next."""

from __future__ import annotations

from graphc import ops
from graphc.ir.types import float64
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel

from .test_ways import CRAMPED, check, leaf, matmul, tiles

POINT = {"stride": (1, 1), "low": (0, 0), "high": (0, 0), "dilation": (1, 1), "groups": 1}


def test_a_large_operand_is_fetched_ahead() -> None:
    """In one block of K, and over several; the result is that of NumPy, and the text parses back."""
    for k in (24, 80):
        calls = check(ops.conv(leaf("x", 2, k, 12, 12), leaf("w", 10, k, 1, 1), **POINT), machine=CRAMPED)
        assert all(tile.fetch is not None for tile in tiles(calls))
        for call in calls:
            verify_kernel(call.kernel)
            text = print_kernel(call.kernel)
            assert "fetch" in text
            assert print_kernel(parse_kernel(text)) == text


def test_what_is_small_or_scattered_is_not() -> None:
    small = matmul(leaf("x", 16, 20), leaf("y", 20, 16))
    doubles = matmul(leaf("x", 20, 40, dtype=float64), leaf("y", 40, 90, dtype=float64))
    across = ops.dot_general(leaf("x", 20, 40), leaf("y", 90, 40), ((1,), (1,)))
    for node in (small, doubles, across):
        calls = check(node, machine=CRAMPED)
        assert tiles(calls)
        assert all(tile.fetch is None for tile in tiles(calls))
