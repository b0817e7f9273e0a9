"""Winograd's algorithm for volumes, slice by slice, against NumPy's evaluation; when it is chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc import ops
from graphc.loop.lower import ways
from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.winograd.volumes import is_volume, sliced
from tests.loop.test_conv import Case
from tests.loop.test_ways import NARROW, WIDE, check, group_of, leaf

CASES = {
    "same": Case((2, 4, 3, 5, 6), (8, 4, 3, 3, 3), low=1),
    "no-padding": Case((1, 4, 3, 4, 6), (4, 4, 2, 3, 3)),
    "far-padding": Case((1, 4, 2, 4, 4), (4, 4, 3, 3, 3), low=3),
    "one-slice-windows": Case((1, 4, 3, 4, 4), (4, 4, 1, 3, 3), low=1),
    "groups": Case((1, 8, 2, 4, 4), (8, 4, 3, 3, 3), low=1, groups=2),
}
LAYER = Case((2, 32, 8, 16, 16), (64, 32, 3, 3, 3), low=1)
KINDS = ("forward", "input_grad")


@pytest.fixture
def always(monkeypatch):
    """Winograd's algorithm is free, however little there is to do."""
    monkeypatch.setattr(ways, "LITTLE", 0.0)
    monkeypatch.setattr(ways, "CLEARLY", 1e12)


def names(calls) -> list[str]:
    return [call.kernel.name for call in calls]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_values(name, kind, always):
    node = getattr(CASES[name], kind)()
    found = names(check(node, machine=NARROW, tolerance=1e-4))
    assert f"{node.op.name}_slices" in found
    assert f"{node.op.name}_winograd" in found


def test_epilogue_and_operand_through_a_view(always):
    x = ops.transpose(leaf("x", 4, 3, 5, 6, 2), (4, 0, 1, 2, 3))
    w = leaf("w", 4, 4, 3, 3, 3)
    y = ops.conv(ops.neg(x), w, low=(1, 1, 1), high=(1, 1, 1))
    bias = leaf("bias", *y.shape)
    check(ops.maximum(ops.add(y, bias), ops.like(y, 0.0)), y, machine=NARROW, tolerance=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_for_many_channels(kind):
    node = getattr(LAYER, kind)()
    assert f"{node.op.name}_winograd" in names(ways.lower_contraction(group_of(node), WIDE))
    direct = ways.lower_contraction(group_of(node), replace(WIDE, winograd=False))
    assert not any("winograd" in n or "slices" in n for n in names(direct))


def test_weights_that_do_not_change_are_transformed_once():
    group = group_of(LAYER.forward())
    fixed = {n for n in group.inputs if n.attrs.name == "w"}
    calls = ways.repeated_contraction(group, WIDE, fixed)
    assert not any("weights" in n for n in names(calls.each))
    assert "conv_slices" in names(calls.each)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (LAYER, True),
        (Case((1, 24, 4, 8, 8), (32, 24, 3, 3, 3)), False),
        (Case((1, 32, 4, 8, 8), (32, 32, 3, 3, 3), stride=2), False),
        (Case((1, 32, 8, 8), (32, 32, 3, 3)), False),
    ],
    ids=["volume", "part of a vector of channels", "stride", "plane"],
)
def test_volumes_of_whole_vectors_of_channels(case, expected):
    (problem,) = conv_problems(case.forward())
    assert is_volume(problem, 16) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_as_much_work_as_before(kind):
    (problem,) = conv_problems(getattr(LAYER, kind)())
    assert sliced(problem).flops == problem.flops
    assert sliced(problem).cols == (16, 16, 16)
