"""Weight gradients of groups of few channels, as dot products along pixels, against NumPy's evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.types import float64, int64
from graphc.loop.inplace import inplace_pairs
from graphc.loop.lower.convolution.grouped import _sides, grouped_weight_calls
from graphc.loop.lower.ways import lower_contraction
from tests.loop.test_conv import Case
from tests.loop.test_ways import NARROW, WIDE, check, group_of, leaf, tiles

CASES = {
    "four": Case((2, 8, 5, 6), (8, 4, 3, 3), low=1, groups=2),
    "eight": Case((1, 16, 4, 4), (16, 8, 3, 3), low=1, groups=2),
    "uneven": Case((2, 6, 7, 7), (15, 2, 3, 3), low=1, groups=3),
    "one-to-many": Case((2, 4, 8, 9), (12, 1, 3, 3), low=1, groups=4),
    "strided": Case((2, 8, 9, 11), (8, 4, 3, 3), stride=2, low=1, groups=2),
    "strided-and-dilated": Case((1, 8, 13, 9), (4, 4, 3, 2), stride=2, low=2, dilation=3, groups=2),
    "long-rows": Case((1, 4, 2, 40), (4, 2, 3, 5), low=2, groups=2),
    "sequence": Case((2, 6, 33), (6, 3, 4), low=2, groups=2),
    "volume": Case((1, 4, 3, 4, 5), (4, 2, 2, 3, 3), low=1, groups=2),
    "one-pixel": Case((2, 8, 1, 1), (8, 4, 3, 3), low=1, groups=2),
}


@pytest.mark.parametrize("machine", [WIDE, NARROW], ids=lambda m: m.name)
@pytest.mark.parametrize("name", CASES)
def test_values(name, machine):
    calls = check(CASES[name].weight_grad(), machine=machine)
    assert len(calls) == 1
    assert not tiles(calls)


def test_blocks_of_rows():
    """As many rows at a time as the first-level cache holds; the last block has fewer."""
    check(
        Case((1, 4, 7, 9), (4, 2, 3, 3), low=1, groups=2).weight_grad(),
        machine=replace(WIDE, l1_bytes=1 << 10),
    )


def test_double_and_operands_through_views():
    x = ops.transpose(leaf("x", 8, 9, 9, 2, dtype=float64), (3, 0, 1, 2))
    dy = ops.neg(leaf("dy", 2, 8, 5, 5, dtype=float64))
    at = {"stride": (2, 2), "low": (1, 1), "high": (1, 1), "groups": 2}
    check(ops.conv_weight_grad(x, dy, (3, 3), **at), tolerance=1e-12)


def test_update_in_place():
    """An optimizer's state may be overwritten: every element is stored once, after it is read."""
    dw = CASES["four"].weight_grad()
    weight, moment = leaf("weight", *dw.shape), leaf("moment", *dw.shape)
    new = ops.add(ops.mul(moment, ops.like(moment, 0.9)), dw)
    (call,) = check(new, ops.sub(weight, new))
    assert len({written for _, written in inplace_pairs(call.kernel)}) == 2


def test_sums_stay_in_registers():
    few = replace(WIDE, tiles=((6, 2), (4, 3), (12, 1)))
    for ins, outs in ((4, 4), (8, 8), (2, 5), (1, 3), (7, 11)):
        for machine, most in ((WIDE, 24), (few, 8)):
            a, b = _sides(ins, outs, machine)
            assert ins % a == 0
            assert outs % b == 0
            assert a * b <= most
    assert math.prod(_sides(4, 4, WIDE)) == 16
    assert math.prod(_sides(8, 8, few)) == 8


@pytest.mark.parametrize(
    "node",
    [
        CASES["four"].forward(),
        CASES["four"].weight_grad(int64),
        Case((2, 4, 8, 8), (4, 4, 3, 3), low=1).weight_grad(),
        Case((2, 32, 8, 8), (32, 16, 3, 3), low=1, groups=2).weight_grad(),
        Case((2, 4, 8, 8), (4, 1, 3, 3), low=1, groups=4).weight_grad(),
        Case((2, 4, 8, 8), (4, 2, 1, 1), groups=2).weight_grad(),
        Case((1, 4, 600, 600), (4, 2, 3, 3), groups=2).weight_grad(),
    ],
    ids=["forward", "integers", "one-group", "many-channels", "depthwise", "points", "too-large"],
)
def test_not_for(node):
    assert grouped_weight_calls(group_of(node), node, WIDE) is None
    lower_contraction(group_of(node), WIDE)
