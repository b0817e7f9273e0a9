"""Weight gradients on bands of rows, against NumPy's evaluation; when they are chosen; updates in place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.types import float32, float64, int64
from graphc.loop.inplace import inplace_pairs
from graphc.loop.lower import ways
from graphc.loop.lower.convolution import weight_bands
from graphc.loop.lower.convolution.weight_bands import plan_weight_bands
from tests.loop.test_bands import CASES, walking
from tests.loop.test_conv import Case
from tests.loop.test_ways import NARROW, WIDE, check, group_of, leaf, tiles


@pytest.fixture
def always(monkeypatch):
    """Bands are free, and any number of channels is enough."""

    def free(node, machine):
        found = plan_weight_bands(node, machine)
        return found and (found[0], 0.0)

    monkeypatch.setattr(weight_bands, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(weight_bands, "FEWEST_ROWS", 1)
    monkeypatch.setattr(ways, "plan_weight_bands", free)


@pytest.mark.parametrize("machine", [WIDE, NARROW], ids=lambda m: m.name)
@pytest.mark.parametrize("name", CASES)
def test_values(name, machine, always):
    check(CASES[name].weight_grad(), machine=machine)


def test_most_cases_are_computed_in_bands(always):
    found = [walking(ways.lower_contraction(group_of(c.weight_grad()), WIDE)) for c in CASES.values()]
    assert sum(found) > len(found) // 2


@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("band", [1, 3, 5])
def test_every_cut(channels, split, band, monkeypatch, always):
    """Channels among tasks, images among partial sums, rows among bands, the last of which is shorter."""
    node = Case((2, 8, 7, 6), (40, 8, 3, 3), low=1).weight_grad()
    found = plan_weight_bands(node, WIDE)
    assert found is not None
    source = (band + 2, 8)
    plan = replace(found[0], channels=channels, split=split, band=band, source=source, rows=4)
    monkeypatch.setattr(ways, "plan_weight_bands", lambda node, machine: (plan, 0.0))
    assert walking(check(node))


def test_panels_among_tasks(monkeypatch, always):
    node = Case((1, 4, 6, 6), (72, 4, 3, 3), low=1).weight_grad()
    found = plan_weight_bands(node, WIDE)
    assert found is not None
    plan = replace(found[0], rows=4, lanes=32, panels=2)
    monkeypatch.setattr(ways, "plan_weight_bands", lambda node, machine: (plan, 0.0))
    assert walking(check(node))


def test_double_and_operands_through_views(always):
    x = ops.transpose(leaf("x", 4, 9, 9, 2, dtype=float64), (3, 0, 1, 2))
    dy = ops.neg(leaf("dy", 2, 20, 5, 5, dtype=float64))
    dw = ops.conv_weight_grad(x, dy, (3, 3), stride=(2, 2), low=(1, 1), high=(1, 1))
    check(dw, tolerance=1e-12)


def test_update_in_place(monkeypatch, always):
    """An optimizer's state may be overwritten: every element is stored once, after it is read."""
    dw = CASES["strided"].weight_grad()
    weight, moment = leaf("weight", *dw.shape), leaf("moment", *dw.shape)
    new = ops.add(ops.mul(moment, ops.like(moment, 0.9)), dw)
    step = ops.sub(weight, ops.mul(new, ops.like(new, 0.1)))
    calls = check(new, step)
    assert walking(calls)
    finishing = calls[-1].kernel
    assert len({written for _, written in inplace_pairs(finishing)}) >= 2


def test_chosen_for_strided_windows_and_volumes():
    strided = Case((8, 128, 56, 56), (128, 128, 3, 3), stride=2, low=1).weight_grad()
    volume = Case((2, 32, 8, 16, 16), (64, 32, 3, 2, 2), low=1).weight_grad()  # not for Winograd
    for node in (strided, volume):
        calls = ways.lower_contraction(group_of(node), WIDE)
        assert walking(calls)
        assert all(t.accumulate for t in tiles(calls))


@pytest.mark.parametrize(
    "node",
    [
        Case((2, 8, 8, 8), (4, 8, 3, 3)).weight_grad(),
        Case((2, 3, 8, 8), (32, 3, 3, 3)).weight_grad(),
        Case((2, 8, 8, 8), (32, 8, 1, 1)).weight_grad(),
        Case((2, 8, 8, 8), (32, 8, 3, 3)).forward(),
        Case((2, 8, 8, 8), (32, 8, 3, 3)).weight_grad(int64),
        Case((1, 4, 2, 400000), (16, 4, 1, 3)).weight_grad(float32),
    ],
    ids=["few-channels", "few-rows", "points", "forward", "integers", "too-large"],
)
def test_not_for(node):
    assert plan_weight_bands(node, WIDE) is None
