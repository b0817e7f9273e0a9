"""Convolutions read in place from padded planes, against NumPy's evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.types import float64, int64
from graphc.loop.lower import ways
from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.windows import plan_windows
from tests.loop.test_conv import CASES, Case
from tests.loop.test_ways import NARROW, WIDE, check, group_of, leaf, tiles

KINDS = ("forward", "input_grad")
SOME = ("3x3", "uneven-padding", "dilated", "strided-and-dilated", "grouped", "1-d", "one-channel")
CASES = {
    **{name: CASES[name] for name in SOME},
    "lenet": Case((2, 3, 8, 8), (5, 3, 5, 5)),
    "eight-wide": Case((2, 5, 8, 8), (7, 5, 3, 3), low=1),
    "one-image-many-rows": Case((1, 2, 4, 4), (61, 2, 3, 3), low=1),
    "volume": Case((1, 2, 3, 3, 4), (4, 2, 2, 3, 3), low=1),
}
EACH = pytest.mark.parametrize(
    ("name", "machine"),
    [(n, WIDE) for n in CASES] + [(n, NARROW) for n in ("grouped", "eight-wide", "one-image-many-rows")],
    ids=lambda p: p if isinstance(p, str) else p.name,
)


@pytest.fixture
def always(monkeypatch):
    """Windows are free, so every convolution that can be read in place is."""

    def free(problem, machine):
        found = plan_windows(problem, machine)
        return found and (found[0], 0.0)

    monkeypatch.setattr(ways, "plan_windows", free)


@EACH
@pytest.mark.parametrize("kind", KINDS)
def test_values(name, kind, machine, always):
    check(getattr(CASES[name], kind)(), machine=machine)


def test_double_and_epilogue(always):
    y = CASES["lenet"].forward(float64)
    bias = leaf("bias", *y.shape, dtype=float64)
    out = ops.maximum(ops.add(y, bias), ops.neg(bias))
    calls = check(out, y, tolerance=1e-12)
    assert len(calls) == 1


def test_operands_through_views(always):
    x = ops.transpose(leaf("x", 4, 9, 9, 2), (3, 0, 1, 2))
    w = ops.transpose(leaf("w", 4, 3, 3, 5), (3, 0, 1, 2))
    y = ops.conv(x, w, stride=(1, 1), low=(1, 1), high=(1, 1), dilation=(1, 1), groups=1)
    check(y)


def test_chosen_for_few_output_channels():
    few = Case((64, 16, 14, 14), (6, 16, 5, 5), low=2).forward()
    many = Case((64, 64, 14, 14), (256, 64, 3, 3), low=1).forward()
    walks = []
    for node in (few, many):
        found = tiles(ways.lower_contraction(group_of(node), replace(WIDE, winograd=False)))
        walks.append({t.walk.operand if t.walk else None for t in found})
    assert walks == [{"b"}, {"a"}]  # vectors of pixels, all taps in one tile; vectors of channels


@pytest.mark.parametrize(
    "node",
    [
        Case((2, 3, 8, 8), (4, 3, 1, 1)).forward(),
        Case((2, 3, 8, 8), (4, 3, 3, 3), stride=2).forward(),
        Case((2, 3, 8, 8), (4, 3, 3, 3)).weight_grad(),
        Case((2, 3, 8, 8), (4, 3, 3, 3)).forward(int64),
        Case((1, 64, 300, 300), (4, 64, 3, 3)).forward(),
    ],
    ids=["1x1", "strided", "weight-grad", "integers", "too-large"],
)
def test_not_for(node):
    assert all(plan_windows(p, WIDE) is None for p in conv_problems(node))


def test_rows_are_shared_out_where_there_are_few_images():
    (problem,) = conv_problems(CASES["one-image-many-rows"].forward())
    found = plan_windows(problem, WIDE)
    assert found is not None
    plan = found[0]
    assert plan.row_blocks > 1
    assert plan.row_count * (plan.row_blocks - 1) < 61 <= plan.row_count * plan.row_blocks
    assert plan.plane == (6, 6)
    assert plan.wide == 3 * 6 + 4
