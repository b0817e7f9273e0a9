"""Winograd's algorithm for dilated convolutions, against NumPy's evaluation; when it is chosen."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.loop.lower import ways
from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.winograd.dilated import is_dilated, undilated
from tests.loop.test_conv import Case
from tests.loop.test_ways import NARROW, WIDE, check, group_of, leaf

CASES = {
    "same": Case((2, 5, 8, 6), (6, 5, 3, 3), low=2, dilation=2),
    "no-padding": Case((1, 4, 12, 9), (5, 4, 3, 3), dilation=3),
    "far-padding": Case((1, 3, 4, 4), (4, 3, 3, 3), low=4, dilation=2),
    "groups": Case((1, 8, 6, 6), (6, 4, 3, 3), low=2, dilation=2, groups=2),
}
LAYER = Case((4, 64, 28, 28), (64, 64, 3, 3), low=4, dilation=4)
KINDS = ("forward", "input_grad")


def names(calls) -> list[str]:
    return [call.kernel.name for call in calls]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_values(name, kind, monkeypatch):
    monkeypatch.setattr(ways, "LITTLE", 0.0)
    monkeypatch.setattr(ways, "CLEARLY", 1e12)
    node = getattr(CASES[name], kind)()
    bias = leaf("bias", *node.shape)
    calls = check(ops.maximum(ops.add(node, bias), bias), node, machine=NARROW, tolerance=1e-4)
    assert f"{node.op.name}_winograd" in names(calls)


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_for_many_channels(kind):
    node = getattr(LAYER, kind)()
    assert f"{node.op.name}_winograd" in names(ways.lower_contraction(group_of(node), WIDE))


def test_smaller_images():
    (problem,) = conv_problems(LAYER.forward())
    smaller = undilated(problem)
    assert smaller.cols == (64, 7, 7)
    assert smaller.window is not None
    assert smaller.window.extents == (7, 7)
    assert smaller.window.base == (-1, -1)
    assert smaller.window.step == (1, 1)
    assert smaller.flops == problem.flops
    assert not is_dilated(smaller)


@pytest.mark.parametrize(
    "case",
    [
        Case((1, 4, 9, 8), (4, 4, 3, 3), low=2, dilation=2),
        Case((1, 4, 8, 8), (4, 4, 3, 3), low=1, dilation=2),
        Case((1, 4, 8, 8), (4, 4, 3, 3), low=1),
        Case((1, 4, 16), (4, 4, 3), low=2, dilation=2),
        Case((1, 4, 8, 8), (4, 4, 3, 3), stride=2, low=2, dilation=2),
    ],
    ids=["rows", "padding", "not dilated", "line", "stride"],
)
def test_dilation_must_divide_images_and_padding(case):
    (problem,) = conv_problems(case.forward())
    assert not is_dilated(problem)
