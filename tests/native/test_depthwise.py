"""Compiled depthwise convolutions and their gradients against NumPy: random shapes, strides, dilations and
paddings (also borders larger than the image), with what is fused to them, in one to three dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float32, float64
from graphc.loop.lower import lower_group
from tests.loop.running import WIDE
from tests.loop.test_ways import group_of, leaf
from tests.native.test_contractions import TARGETS, compare


def options(rank: int, stride=1, low=0, high=None, dilation=1, groups=1) -> dict:
    """The attributes of a convolution, from numbers or from tuples for the axes."""

    def each(value) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * rank

    return {
        "stride": each(stride),
        "low": each(low),
        "high": each(low if high is None else high),
        "dilation": each(dilation),
        "groups": groups,
    }


def three(images: int, channels: int, space: tuple, kernel: tuple, dtype=float32, **given) -> list[Node]:
    """Forward, input gradient, weight gradient."""
    at = options(len(space), groups=channels, **given)
    x, w = (
        leaf("x", images, channels, *space, dtype=dtype),
        leaf("w", channels, 1, *kernel, dtype=dtype),
    )
    forward = ops.conv(x, w, **at)
    dy = leaf("dy", *forward.shape, dtype=dtype)
    return [forward, ops.conv_input_grad(dy, w, space, **at), ops.conv_weight_grad(x, dy, kernel, **at)]


SHAPES = {
    "rows": (2, 9, (6, 48), (3, 3), {"low": 1}),
    "rows-stride-2": (2, 9, (12, 48), (3, 3), {"low": 1, "stride": 2}),
    "tiny": (5, 9, (3, 3), (3, 3), {"low": 1}),
    "tiny-stride-2": (4, 17, (6, 6), (3, 3), {"low": 1, "stride": 2}),
    "odd": (3, 8, (13, 7), (5, 3), {"low": 2, "stride": (2, 3)}),
    "border": (2, 8, (2, 3), (7, 5), {"low": 6}),
    "gaps": (1, 8, (11, 12), (2, 2), {"stride": 4, "dilation": 3, "low": (1, 5)}),
    "one": (1, 8, (1, 1), (3, 3), {"low": 1}),
    "line": (2, 10, (101,), (4,), {"low": 2, "stride": 2}),
    "box": (2, 8, (4, 5, 6), (3, 2, 3), {"low": 1, "stride": (1, 2, 2), "dilation": (2, 1, 1)}),
    "many-taps": (1, 8, (16, 33), (7, 7), {"low": 3}),
    "few-channels": (3, 2, (9, 16), (3, 3), {"low": 1}),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [float32, float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(target: str, name: str, dtype) -> None:
    images, channels, space, kernel, given = SHAPES[name]
    for node in three(images, channels, space, kernel, dtype, **given):
        compare([node], target)


@pytest.mark.parametrize("target", TARGETS)
def test_planes_from_far(target: str) -> None:
    """They are asked for ahead, also behind the last one."""
    for node in three(3, 40, (96, 80), (3, 3), low=1, stride=2):
        compare([node], target)


@pytest.mark.parametrize("seed", range(12))
def test_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(low, high, rank))

    kernel, dilation = draw(1, 5), draw(1, 4)
    low, high = draw(0, 6), draw(0, 6)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, r - p - q) for r, p, q in zip(reach, low, high, strict=True)]
    space = tuple(a + b for a, b in zip(least, draw(0, 40 // rank), strict=True))
    given = {"stride": draw(1, 5), "low": low, "high": high, "dilation": dilation}
    for node in three(int(rng.integers(1, 5)), int(rng.integers(1, 20)), space, kernel, **given):
        compare([node], TARGETS[0])


@pytest.mark.parametrize("stride", [1, 2])
def test_epilogues(stride: int) -> None:
    """A bias and ReLU6, a mask by another value, a step of an optimizer."""
    forward, back, weights = three(4, 16, (9, 10), (3, 3), low=1, stride=stride)
    bias = ops.broadcast(leaf("b", 16), forward.shape, (1,))

    def full(like: Node, value: float) -> Node:
        return ops.broadcast(ops.constant(value, float32), like.shape, ())

    six, zero = full(forward, 6.0), full(forward, 0.0)
    compare([ops.minimum(ops.maximum(ops.add(forward, bias), zero), six)], TARGETS[0])
    compare([ops.mul(back, leaf("mask", *back.shape)), back], TARGETS[0])
    step = ops.mul(weights, full(weights, 0.1))
    compare([ops.sub(leaf("p", *weights.shape), step)], TARGETS[0])


@pytest.mark.parametrize("index", range(3))
def test_one_kernel(index: int) -> None:
    """No copy of an operand by a kernel of its own, no kernel for each phase."""
    node = three(4, 16, (12, 12), (3, 3), low=1, stride=2)[index]
    assert len(lower_group(group_of(node), WIDE)) == 1
