"""Weight gradients of volumes and of dilated images by minimal filtering, run by the loop-IR interpreter
against NumPy; which nodes have such images, and where they are chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc import ops
from graphc.loop.lower import ways
from graphc.loop.lower.convolution.winograd.weight_images import images_of
from graphc.loop.lower.convolution.winograd.weight_plan import plan_weight_grad
from tests.loop.test_conv import Case
from tests.loop.test_ways import NARROW, WIDE, check, leaf
from tests.loop.test_winograd_weight import ahead, names
from tests.loop.test_winograd_weight import check as check_plan

CASES = {
    "volume": Case((2, 3, 2, 5, 6), (5, 3, 3, 3, 3), low=1),
    "no-padding": Case((1, 3, 4, 4, 6), (4, 3, 2, 3, 3)),
    "far-padding": Case((1, 4, 2, 4, 4), (4, 4, 3, 3, 3), low=3),
    "one-slice-windows": Case((1, 4, 3, 4, 4), (4, 4, 1, 3, 3), low=1),
    "grouped-volume": Case((1, 8, 2, 4, 4), (8, 4, 3, 3, 3), low=1, groups=2),
    "dilated": Case((2, 5, 8, 6), (6, 5, 3, 3), low=2, dilation=2),
    "dilated-no-padding": Case((1, 4, 12, 9), (5, 4, 3, 3), dilation=3),
    "dilated-far-padding": Case((1, 3, 4, 4), (4, 3, 3, 3), low=4, dilation=2),
    "dilated-groups": Case((1, 8, 6, 6), (6, 4, 3, 3), low=2, dilation=2, groups=2),
    "dilated-volume": Case((1, 2, 4, 4, 6), (3, 2, 2, 3, 3), low=2, dilation=2),
    "windows-of-2x5": Case((1, 2, 6, 9), (3, 2, 2, 5), low=2),
    "windows-of-4x1": Case((1, 2, 8, 3), (3, 2, 4, 1), low=1),
    "line": Case((2, 3, 19), (4, 3, 3), low=1),
    "dilated-line": Case((1, 3, 18), (4, 3, 4), dilation=3),
    "two-axes-of-slices": Case((1, 2, 3, 2, 5, 6), (3, 2, 2, 2, 3, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name: str) -> None:
    node = CASES[name].weight_grad()
    found = plan_weight_grad(node, NARROW)
    assert found is not None
    check_plan(node, found[0], NARROW)
    check_plan(node, ahead(found[0]), NARROW)


def test_slices_may_be_strided_and_dilated() -> None:
    at = {"stride": (2, 1, 1), "low": (1, 2, 1), "high": (2, 2, 1), "dilation": (3, 2, 1)}
    x, w = leaf("x", 2, 3, 9, 6, 5), leaf("w", 4, 3, 2, 3, 3)
    dy = leaf("dy", *ops.conv(x, w, **at).shape)
    node = ops.conv_weight_grad(x, dy, w.shape[2:], **at)
    found = plan_weight_grad(node, NARROW)
    assert found is not None
    check_plan(node, found[0], NARROW)


def test_what_images_are_made_of() -> None:
    images = images_of(Case((2, 3, 5, 4, 8), (4, 3, 2, 3, 3), low=2, dilation=2).weight_grad())
    assert images is not None
    assert images.numbers == (2, 7, 2, 2)
    assert (images.count, images.channels) == (56, 6)
    assert (images.space, images.extents, images.low) == ((2, 4), (2, 4), (1, 1))


@pytest.mark.parametrize(
    "case",
    [
        Case((1, 4, 9, 8), (4, 4, 3, 3), low=2, dilation=2),
        Case((1, 4, 8, 8), (4, 4, 3, 3), low=1, dilation=2),
        Case((1, 4, 16), (4, 4, 1)),
        Case((1, 4, 8, 8), (4, 4, 3, 3), stride=2, low=1),
        Case((1, 4, 8, 8), (4, 4, 2, 6), low=1),
    ],
    ids=["rows", "padding", "line", "stride", "window"],
)
def test_no_images(case: Case) -> None:
    assert images_of(case.weight_grad()) is None
    assert images_of(case.forward()) is None


@pytest.mark.parametrize(
    "case",
    [
        Case((2, 32, 8, 16, 16), (64, 32, 3, 3, 3), low=1),
        Case((4, 64, 28, 28), (64, 64, 3, 3), low=2, dilation=2),
    ],
    ids=["volume", "dilated"],
)
def test_chosen_for_many_channels(case: Case) -> None:
    node = case.weight_grad()
    assert any("winograd" in name for name in names(node, WIDE))
    assert not any("winograd" in name for name in names(node, replace(WIDE, winograd=False)))


def test_epilogue_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of an optimizer on a volume's filters, in the same group."""
    monkeypatch.setattr(ways, "LITTLE", 0.0)
    monkeypatch.setattr(ways, "CLEARLY", 1e12)
    grad = Case((1, 4, 3, 5, 6), (5, 4, 3, 3, 3), low=1).weight_grad()
    step = ops.sub(leaf("w", *grad.shape), ops.mul(grad, grad))
    calls = check(step, machine=NARROW, tolerance=1e-4)
    assert any("winograd" in call.kernel.name for call in calls)
