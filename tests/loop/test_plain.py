"""Results that register tiles store where they belong."""

from __future__ import annotations

import pytest

from graphc import ops
from tests.loop.test_ways import CRAMPED, WIDE, check, leaf, matmul, tiles

PARAM, SCRATCH = "param", "scratch"


def spaces(calls) -> set[str]:
    return {tile.c.buffer.space for tile in tiles(calls)}


@pytest.mark.parametrize("m,n,k", [(37, 128, 20), (64, 48, 33), (40, 80, 24)])
@pytest.mark.parametrize("left,right", [(0, 0), (0, 1), (1, 0)])
def test_whole_panels_are_stored_by_their_tiles(m: int, n: int, k: int, left: int, right: int) -> None:
    x, y = leaf("x", *((m, k), (k, m))[left]), leaf("y", *((k, n), (n, k))[right])
    assert spaces(check(ops.dot_general(x, y, ((1 - left,), (right,))))) == {PARAM}


def test_batches() -> None:
    x, y = leaf("x", 3, 20, 16), leaf("y", 3, 16, 64)
    assert spaces(check(ops.dot_general(x, y, ((2,), (1,)), ((0,), (0,))))) == {PARAM}


def test_what_is_not_plain() -> None:
    """Columns that are no tile in the end, an epilogue, K in blocks, several results."""
    assert spaces(check(matmul(leaf("x", 37, 20), leaf("y", 20, 131)))) == {SCRATCH}
    product = matmul(leaf("x", 37, 20), leaf("y", 20, 128))
    assert spaces(check(ops.tanh(product))) == {SCRATCH}
    assert spaces(check(product, ops.tanh(product))) == {SCRATCH}
    deep = check(matmul(leaf("x", 24, 300), leaf("y", 300, 64)), machine=CRAMPED)
    assert spaces(deep) == {SCRATCH}


def test_a_result_over_an_operand() -> None:
    """x @ x.T reads everything until the end: the result must not take over the operand's memory."""
    x = leaf("x", 64, 64)
    calls = check(ops.dot_general(x, x, ((1,), (1,))), machine=WIDE)
    assert spaces(calls) == {PARAM}
