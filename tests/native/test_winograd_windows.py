"""Compiled convolutions that Winograd's algorithm runs as others, of planes at unit stride, whatever that
costs, against NumPy; the same bits on one thread and on three."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.backends.llvm import Backend
from graphc.ir.node import Node
from graphc.loop.lower import ways
from tests.loop.test_ways import draw, evaluate, group_of, leaf
from tests.native.test_contractions import TARGETS
from tests.native.test_winograd import ULPS, on_threads


def windows(kernel: int, stride: int, space: tuple[int, ...], dilation: int = 1) -> list[Node]:
    """A convolution of planes or lines, and its data gradient."""
    rank, low = len(space), (kernel - 1) // 2 * dilation
    axes = ((stride,) * rank, (low,) * rank, (low,) * rank, (dilation,) * rank)
    w = leaf("w", 64, 21, *(kernel,) * rank)
    y = ops.conv(leaf("x", 2, 21, *space), w, *axes)
    return [y, ops.conv_input_grad(leaf("dy", *y.shape), w, space, *axes)]


WINDOWS = {
    "even": windows(4, 2, (22, 27)),
    "uneven": windows(5, 2, (23, 20)),
    "stem": windows(7, 2, (17, 19)),
    "stride-3": windows(9, 3, (22, 18)),
    "line": windows(3, 1, (517,)),
    "dilated-line": windows(5, 1, (96,), 4),
    "strided-line": windows(8, 2, (1001,)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", WINDOWS)
def test_other_windows(target: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases of strided windows are channels of the source, or apart in the gradient; lines are columns."""
    monkeypatch.setattr(ways, "LITTLE", 0.0)
    monkeypatch.setattr(ways, "SEVERAL", 1.0)
    monkeypatch.setattr(ways, "CLEARLY", 1e6)  # whatever it costs
    backend = Backend(target)
    for node in WINDOWS[name]:
        group = group_of(node)
        calls = ways.lower_contraction(group, backend.machine)
        assert any(call.kernel.name.endswith("_winograd") for call in calls)
        values = {n: draw(n, np.random.default_rng(1)) for n in group.inputs}
        (want,) = evaluate([node], values)
        one, three = on_threads(node, backend, calls, values)
        assert one.tobytes() == three.tobytes()
        np.testing.assert_allclose(one, want, rtol=0, atol=ULPS[node.dtype] * np.abs(want).max())
