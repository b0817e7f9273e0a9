"""Convolutions on bands of rows, against NumPy's evaluation; when they are chosen; what tiles read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.types import float64, int64
from graphc.loop.inplace import statements
from graphc.loop.ir import Walk
from graphc.loop.lower import ways
from graphc.loop.lower.convolution import bands
from graphc.loop.lower.convolution.bands import axes_of, plan_bands
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel
from tests.loop.test_conv import CASES, Case
from tests.loop.test_ways import NARROW, WIDE, check, group_of, leaf, tiles

KINDS = ("forward", "input_grad")
CASES = {
    **CASES,
    "strided": Case((2, 3, 9, 10), (18, 3, 3, 3), stride=2, low=1),
    "stride-over-window": Case((1, 3, 7, 8), (17, 3, 2, 2), stride=3),
    "two-heights": Case((1, 2, 5, 31), (35, 2, 3, 3), low=1),
    "grouped-channels": Case((1, 36, 6, 6), (40, 18, 3, 3), low=1, groups=2),
    "volume": Case((1, 3, 4, 5, 6), (17, 3, 3, 3, 3), low=1),
    "strided-volume": Case((1, 2, 5, 4, 6), (16, 2, 3, 2, 3), stride=2, low=1),
    "sequence": Case((2, 3, 40), (20, 3, 5), low=4, dilation=2),
    "padding-over-window": Case((1, 2, 4, 4), (16, 2, 3, 3), low=4),
}


@pytest.fixture
def always(monkeypatch):
    """Bands are free, and any number of channels is enough."""

    def free(node, machine):
        found = plan_bands(node, machine)
        return found and (found[0], 0.0)

    monkeypatch.setattr(bands, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(ways, "plan_bands", free)


def walking(calls) -> bool:
    return any(t.walk is not None for t in tiles(calls))


@pytest.mark.parametrize("machine", [WIDE, NARROW], ids=lambda m: m.name)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_values(name, kind, machine, always):
    node = getattr(CASES[name], kind)()
    calls = check(node, machine=machine)
    if not plan_bands(node, machine):
        return
    for call in calls:
        text = print_kernel(call.kernel)
        again = parse_kernel(text)
        verify_kernel(again)
        assert print_kernel(again) == text


@pytest.mark.parametrize("kind", KINDS)
def test_channels_of_half_a_vector(kind, monkeypatch):
    """Tiles are as narrow as the channels of a group; phases of a gradient meet in rows."""
    monkeypatch.setattr(ways, "plan_bands", lambda *a: (found := plan_bands(*a)) and (found[0], 0.0))
    outs = 8
    node = getattr(Case((2, 2 * outs, 9, 8), (2 * outs, outs, 3, 3), stride=2, low=1, groups=2), kind)()
    calls = check(node, machine=WIDE)
    assert walking(calls)
    assert {t.lanes for t in tiles(calls)} == {outs}
    assert plan_bands(Case((1, 4, 8, 8), (outs - 1, 4, 3, 3), low=1).forward(), WIDE) is None


def test_most_cases_are_computed_in_bands(always):
    found = [walking(ways.lower_contraction(group_of(c.forward()), WIDE)) for c in CASES.values()]
    assert sum(found) > len(found) // 2


def test_double_and_epilogue(always):
    y = CASES["strided"].input_grad(float64)
    bias = leaf("bias", *y.shape, dtype=float64)
    out = ops.maximum(ops.add(y, bias), ops.neg(bias))
    assert walking(check(out, y, tolerance=1e-12))


def test_operands_through_views(always):
    x = ops.transpose(leaf("x", 4, 9, 9, 2), (3, 0, 1, 2))
    w = ops.transpose(leaf("w", 4, 3, 3, 20), (3, 0, 1, 2))
    y = ops.conv(x, w, stride=(2, 2), low=(1, 1), high=(1, 1), dilation=(1, 1), groups=1)
    assert walking(check(y))


def test_small_bands_and_the_rest_of_one(always):
    """A task has few rows if the second-level cache is small, and the last one fewer."""
    node = Case((1, 8, 13, 20), (16, 8, 3, 3), low=1).forward()
    small = replace(WIDE, l2_bytes=12 << 10)
    found = plan_bands(node, small)
    assert found is not None
    assert 13 % found[0].band[0]
    assert walking(check(node, machine=small))


def test_taps_in_the_padding_are_left_out(always):
    """The rows of the window that lie above the first row of the image are not multiplied."""
    node = Case((1, 4, 1, 40), (32, 4, 5, 3), low=2).forward()
    (call,) = [c for c in ways.lower_contraction(group_of(node), WIDE) if tiles([c])]
    depths = [getattr(t.depth, "value", None) for t in tiles([call])]
    assert depths
    assert all(d is None or d < 60 for d in depths)
    check(node)


def test_chosen_for_strided_convolutions_and_volumes():
    strided = Case((8, 64, 28, 28), (128, 64, 3, 3), stride=2, low=1)
    volume = Case((2, 32, 8, 16, 16), (64, 32, 3, 3, 3), low=1)
    points = Case((8, 64, 28, 28), (128, 64, 1, 1))
    direct = replace(WIDE, winograd=False)
    for case, expected in ((strided, True), (volume, True), (points, False)):
        for kind in KINDS:
            node = getattr(case, kind)()
            assert walking(ways.lower_contraction(group_of(node), direct)) == expected


def test_phases_share_tables_and_one_kernel():
    node = Case((8, 64, 28, 28), (128, 64, 3, 3), stride=2, low=1).input_grad()
    calls = ways.lower_contraction(group_of(node), WIDE)
    (call,) = [c for c in calls if tiles([c])]
    assert len(calls) == 5  # the weights of four phases, and all results
    tables = {s.walk.at.buffer for s, _ in statements(call.kernel.body) if getattr(s, "walk", None)}
    assert len(tables) == 4
    assert all(isinstance(t.walk, Walk) and t.walk.operand == "a" for t in tiles([call]))


@pytest.mark.parametrize("name", ["strided", "stride-over-window", "volume", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
def test_axes_say_which_coordinates_are_read(name, kind):
    """Every result of every axis belongs to one part, and its taps are those of the definition."""
    node = getattr(CASES[name], kind)()
    at = node.attrs
    for d, axis in enumerate(axes_of(node)):
        seen = {}
        for part in axis.parts:
            for j in range(part.count):
                place = part.first + j * part.step
                assert place not in seen
                seen[place] = {t: j * part.move + shift for t, shift in part.taps}
        assert sorted(seen) == list(range(node.shape[2 + d]))
        for place, taps in seen.items():
            for t in range(at.kernel[d]):
                if kind == "forward":
                    assert taps[t] == place * at.stride[d] + t * at.dilation[d] - at.low[d]
                else:
                    exact, rest = divmod(place + at.low[d] - t * at.dilation[d], at.stride[d])
                    assert taps.get(t) == (exact if rest == 0 else None)


@pytest.mark.parametrize(
    "node",
    [
        Case((2, 3, 8, 8), (4, 3, 3, 3)).forward(),
        Case((2, 3, 8, 8), (32, 3, 3, 3)).weight_grad(),
        Case((2, 3, 8, 8), (32, 3, 3, 3)).forward(int64),
        Case((1, 512, 4, 3000), (32, 512, 3, 3)).forward(),
    ],
    ids=["few-channels", "weight-grad", "integers", "too-large"],
)
def test_not_for(node):
    assert plan_bands(node, WIDE) is None


def test_cost_counts_multiply_adds():
    node = Case((8, 64, 28, 28), (128, 64, 3, 3), stride=2, low=1).forward()
    found = plan_bands(node, WIDE)
    assert found is not None
    least = math.prod(node.shape) * 64 * 9 / 16
    assert least < found[1] < 1.2 * least
