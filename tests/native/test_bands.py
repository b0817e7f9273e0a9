"""Compiled convolutions on bands of rows, grouped weight gradients, volumes by Winograd's algorithm: against
NumPy, on every target this machine runs, and the same bits on one thread and on three."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.llvm import Backend
from graphc.ir.types import float32, float64
from graphc.loop.lower.ways import lower_contraction
from tests.loop.test_bands import walking
from tests.loop.test_conv import Case
from tests.loop.test_ways import draw, evaluate, group_of
from tests.native.test_contractions import TARGETS, compare
from tests.native.test_winograd import on_threads

KINDS = ("forward", "input_grad", "weight_grad")
WALKING = {
    "strided": Case((4, 32, 29, 30), (48, 32, 3, 3), stride=2, low=1),
    "large-window": Case((2, 16, 20, 23), (32, 16, 5, 5), low=2),
    "dilated": Case((2, 32, 25, 24), (32, 32, 3, 3), low=4, dilation=4),
    "volume": Case((2, 16, 5, 11, 12), (32, 16, 3, 3, 3), stride=2, low=1),
    "two-groups": Case((2, 48, 16, 17), (64, 24, 3, 3), stride=2, low=1, groups=2),
}
OTHERS = {
    "four-channels": Case((3, 16, 18, 19), (16, 4, 3, 3), low=1, groups=4),
    "four-channels-strided": Case((2, 16, 18, 19), (16, 4, 3, 3), stride=2, low=1, groups=4),
    "dilated-phases": Case((2, 32, 24, 24), (32, 32, 3, 3), low=4, dilation=4),
    "slices": Case((2, 32, 6, 12, 13), (32, 32, 3, 3, 3), low=1),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*WALKING, *OTHERS])
def test_values_and_bits(name: str, kind: str, target: str) -> None:
    compare([getattr((WALKING | OTHERS)[name], kind)()], target)


@pytest.mark.parametrize("kind", KINDS)
def test_bands_in_double_precision(kind: str) -> None:
    backend = Backend()
    node = getattr(WALKING["strided"], kind)(float64)
    group = group_of(node)
    values = {n: draw(n, np.random.default_rng(1)) for n in group.inputs}
    (want,) = evaluate([node], values)
    one, three = on_threads(node, backend, list(lower_contraction(group, backend.machine)), values)
    assert one.tobytes() == three.tobytes()
    np.testing.assert_allclose(one, want, rtol=0, atol=1e-12 * np.abs(want).max())


def test_most_of_them_walk() -> None:
    """Otherwise the tests above show nothing about bands."""
    machine = Backend().machine
    found = [
        walking(lower_contraction(group_of(getattr(case, kind)(float32)), machine))
        for case in WALKING.values()
        for kind in KINDS
    ]
    assert sum(found) > len(found) // 2
