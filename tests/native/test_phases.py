"""Strided convolutions on phases of their source against NumPy, interpreted and compiled."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float32, float64
from graphc.loop.lower import lower_group
from graphc.loop.lower.convolution import phases
from graphc.loop.lowered import KernelCall
from tests.loop.running import NARROW, WIDE
from tests.loop.test_ways import check, group_of, leaf

from .test_contractions import TARGETS, compare

CASES = {  # images, channels in and out, space, kernel, and the options
    "3x3": (2, 6, 9, (9, 10), (3, 3), {"stride": (2, 2), "low": (1, 1), "high": (1, 1)}),
    "point": (1, 8, 7, (6, 20), (1, 1), {"stride": (2, 2)}),
    "stem": (1, 3, 8, (16, 18), (7, 7), {"stride": (2, 2), "low": (3, 3), "high": (3, 3)}),
    "uneven": (2, 4, 5, (11, 13), (2, 5), {"stride": (3, 2), "low": (0, 2), "high": (2, 1)}),
    "gaps": (
        1,
        4,
        6,
        (12, 14),
        (3, 2),
        {"stride": (2, 3), "dilation": (3, 2), "low": (2, 0), "high": (3, 1)},
    ),
    "groups": (2, 6, 4, (8, 9), (3, 3), {"stride": (1, 2), "low": (1, 1), "high": (1, 1), "groups": 2}),
    "patches": (2, 3, 10, (8, 12), (4, 4), {"stride": (4, 4)}),
    "line": (3, 5, 6, (40,), (4,), {"stride": (3,), "low": (2,), "high": (1,)}),
    "box": (1, 3, 4, (5, 6, 7), (3, 1, 2), {"stride": (2, 1, 2), "low": (1, 0, 1), "high": (1, 0, 0)}),
    "all border": (1, 2, 3, (2, 2), (3, 3), {"stride": (2, 2), "low": (5, 4), "high": (4, 5)}),
}


@pytest.fixture(autouse=True)
def _every_size_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORTH", "OFTEN", "SHORT"):
        monkeypatch.setattr(phases, name, 0)


def convolution(name: str, dtype=float32) -> Node:
    images, ins, outs, space, kernel, given = CASES[name]
    x = leaf("x", images, ins, *space, dtype=dtype)
    w = leaf("w", outs, ins // given.get("groups", 1), *kernel, dtype=dtype)
    return ops.conv(x, w, **given)


def is_split(calls: tuple[KernelCall, ...]) -> bool:
    return any(call.kernel.name == "conv_phases" for call in calls)


@pytest.mark.parametrize("machine", [WIDE, NARROW], ids=lambda m: m.name)
@pytest.mark.parametrize("name", CASES)
def test_interpreted(name: str, machine) -> None:
    y = convolution(name)
    calls = check(ops.maximum(ops.add(y, leaf("r", *y.shape)), ops.like(y, -0.5)), machine=machine)
    assert is_split(calls)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [float32, float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_compiled(name: str, dtype, target: str) -> None:
    y = convolution(name, dtype)
    compare((ops.mul(y, leaf("s", *y.shape, dtype=dtype)), y), target)


def test_source_through_a_cast_and_a_view() -> None:
    x = ops.cast(ops.transpose(leaf("x", 6, 9, 2, 10, dtype=float64), (2, 0, 1, 3)), float32)
    assert is_split(check(ops.conv(x, leaf("w", 8, 6, 3, 3), stride=(2, 2), low=(1, 1), high=(1, 1))))


def test_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    around = {"stride": (2, 2), "low": (1, 1), "high": (1, 1)}
    few = ops.conv(leaf("x", 4, 3, 96, 96), leaf("w", 32, 3, 3, 3), **around)
    many = ops.conv(leaf("x", 1, 64, 28, 28), leaf("w", 128, 64, 3, 3), **around)
    assert not is_split(lower_group(group_of(few), WIDE))
    assert is_split(lower_group(group_of(many), WIDE))
