"""Compiled convolutions of values whose channels are their last dim against NumPy: the kernel of depthwise
ones and of few channels, and the tiles of all others; with what is fused to them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float32, float64
from graphc.loop.lower.convolution.channels import is_direct
from tests.loop.test_ways import leaf
from tests.native.test_contractions import TARGETS, compare
from tests.native.test_depthwise import options

# images, channels, space, results, kernel (channels of a group first), attributes
DEPTHWISE = {
    "rows": (2, 24, (6, 19), 24, (1, 3, 3), {"low": 1}),
    "stride-2": (2, 33, (9, 14), 33, (1, 3, 3), {"low": 1, "stride": 2}),
    "one-side": (1, 16, (8, 8), 16, (1, 3, 3), {"low": (0, 0), "high": (1, 1), "stride": 2}),
    "5x5": (1, 7, (7, 7), 7, (1, 5, 5), {"low": 2}),
    "7x7": (1, 17, (14, 11), 17, (1, 7, 7), {"low": 3}),
    "gaps": (1, 20, (13, 12), 20, (1, 3, 2), {"low": (2, 3), "dilation": (2, 3), "stride": (1, 2)}),
    "tiny": (3, 40, (2, 2), 40, (1, 3, 3), {"low": 1}),
    "no-border": (2, 16, (9, 9), 16, (1, 3, 3), {}),
    "few": (2, 2, (9, 16), 2, (1, 3, 3), {"low": 1}),
    "box": (1, 18, (4, 5, 6), 18, (1, 3, 2, 3), {"low": (1, 0, 1), "stride": (1, 2, 2)}),
}
IMAGES = {
    "stem": (2, 3, (20, 22), 32, (3, 3, 3), {"low": 1, "stride": 2}),
    "grey": (1, 1, (28, 28), 6, (1, 5, 5), {"low": 2}),
    "wide": (1, 3, (9, 31), 70, (3, 3, 3), {"low": (1, 2), "stride": (1, 3)}),
    "patches": (2, 3, (16, 16), 40, (3, 4, 4), {"stride": 4}),
    "voxels": (1, 2, (4, 6, 7), 20, (2, 2, 3, 3), {"low": (0, 1, 1)}),
    "one-result": (2, 4, (8, 9), 1, (4, 3, 3), {"low": 1, "stride": 2}),
}
OTHERS = {
    "1x1": (2, 40, (7, 7), 24, (40, 1, 1), {}),
    "3x3": (1, 19, (9, 11), 35, (19, 3, 3), {"low": 1}),
    "groups": (2, 12, (8, 8), 18, (4, 3, 3), {"low": 1, "groups": 3}),
    "1x1-stride-2": (2, 16, (9, 9), 32, (16, 1, 1), {"stride": 2}),
    "far-border": (1, 24, (5, 6), 24, (1, 7, 5), {"low": 20, "groups": 24}),
    "line": (2, 16, (33,), 16, (1, 5), {"low": 2, "groups": 16}),
}


def forward(images, channels, space, results, kernel, given, dtype=float32) -> Node:
    at = options(len(space), **given)
    x = leaf("x", images, *space, channels, dtype=dtype)
    return ops.conv(x, leaf("w", results, *kernel, dtype=dtype), **at, last=True)


def direct(images, channels, space, results, kernel, given, dtype=float32) -> Node:
    groups = channels if kernel[0] == 1 and channels == results else 1
    return forward(images, channels, space, results, kernel, {"groups": groups, **given}, dtype)


def finished(node: Node) -> list[Node]:
    """Scale and shift of channels, a residual, ReLU6."""
    scale, shift = (
        leaf("scale", node.shape[-1], dtype=node.dtype),
        leaf("shift", node.shape[-1], dtype=node.dtype),
    )
    last = (node.type.rank - 1,)
    y = ops.mul(node, ops.broadcast(scale, node.shape, last))
    y = ops.add(y, ops.broadcast(shift, node.shape, last))
    y = ops.add(y, leaf("beside", *node.shape, dtype=node.dtype))
    return [ops.minimum(ops.maximum(y, ops.like(y, 0.0)), ops.like(y, 6.0))]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*DEPTHWISE, *IMAGES])
def test_kernel_of_their_own(target: str, name: str) -> None:
    node = direct(*{**DEPTHWISE, **IMAGES}[name])
    assert is_direct(node)
    compare(finished(node), target)


@pytest.mark.parametrize("name", ["rows", "gaps", "stem"])
def test_doubles(name: str) -> None:
    compare([direct(*{**DEPTHWISE, **IMAGES}[name], float64)], TARGETS[0])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OTHERS)
def test_tiles(target: str, name: str) -> None:
    node = forward(*OTHERS[name])
    assert not is_direct(node)
    compare(finished(node), target)


def test_an_image_in_the_usual_order_is_read_where_it_is() -> None:
    x, w = leaf("x", 2, 3, 16, 18), leaf("w", 16, 3, 3, 3)
    compare([ops.conv(ops.transpose(x, (0, 2, 3, 1)), w, low=(1, 1), stride=(2, 2), last=True)], TARGETS[0])


@pytest.mark.parametrize("name", ["stride-2", "stem", "3x3", "groups"])
def test_gradients(name: str) -> None:
    """Other kernels than forward: contractions of these index maps."""
    case = {**DEPTHWISE, **IMAGES, **OTHERS}[name]
    node = (forward if name in OTHERS else direct)(*case)
    dy = leaf("dy", *node.shape)
    compare([_grad("conv_input_grad", node, dy)], TARGETS[0])
    compare([_grad("conv_weight_grad", node, dy)], TARGETS[0])


def _grad(name: str, node: Node, dy: Node) -> Node:
    x, w = node.inputs
    at = node.attrs
    given = {k: getattr(at, k) for k in ("stride", "low", "high", "dilation", "groups")}
    if name == "conv_input_grad":
        return ops.conv_input_grad(dy, w, at.input_spatial, **given, last=True)
    return ops.conv_weight_grad(x, dy, at.kernel, **given, last=True)


@pytest.mark.parametrize("seed", range(16))
def test_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(2, 4))

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(low, high, rank))

    kernel, dilation = draw(1, 4), draw(1, 3)
    low, high = draw(0, 3), draw(0, 3)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    space = tuple(
        max(r - a - b, 1) + int(rng.integers(0, 9)) for r, a, b in zip(reach, low, high, strict=True)
    )
    channels, images = int(rng.integers(1, 40)), int(rng.integers(1, 4))
    groups = int(rng.choice([1, channels]))
    results = channels * int(rng.integers(1, 3))
    given = {"low": low, "high": high, "dilation": dilation, "stride": draw(1, 4), "groups": groups}
    node = forward(images, channels, space, results, (channels // groups, *kernel), given)
    compare(finished(node), TARGETS[seed % len(TARGETS)])
