"""Winograd's algorithm, run by the loop-IR interpreter against NumPy's evaluation; when it is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.types import int64
from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.winograd.geometry import geometry
from graphc.loop.lower.ways import lower_contraction, repeated_contraction
from tests.loop.test_ways import NARROW, WIDE, draw, evaluate, execute, group_of, leaf
from tests.loop.winograd_plans import CASES, Case, forced, schedules

LAYER = Case(8, 64, 64, (28, 28))


@pytest.mark.parametrize("name", ["wide-padding", "far-padding", "no-padding", "uneven-taps"])
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_interpreted(name: str, gradient: bool) -> None:
    case = CASES[name]
    node = case.gradient() if gradient else case.forward()
    group = group_of(node)
    values = {n: draw(n, np.random.default_rng(2)) for n in group.inputs}
    (want,) = evaluate([node], values)
    for number, plan in enumerate(schedules(case, NARROW)):
        if number % 2 == gradient:
            execute(forced(group, NARROW, **plan), values, backwards=True)
            np.testing.assert_allclose(values[node], want, rtol=0, atol=1e-5 * np.abs(want).max())


def names(node, machine=WIDE, fixed=()) -> list[list[str]]:
    group = group_of(node)
    calls = repeated_contraction(group, machine, {n for n in group.inputs if n.attrs.name in fixed})
    return [[call.kernel.name for call in some] for some in (calls.once, calls.each)]


def test_chosen_for_many_channels() -> None:
    assert "conv_winograd" in names(LAYER.forward())[1]
    assert "conv_input_grad_winograd" in names(LAYER.gradient())[1]


@pytest.mark.parametrize(
    "x,w,stride,low",
    [
        ((8, 64, 28, 28), (64, 64, 5, 5), 1, 2),
        ((8, 64, 32, 32), (128, 64, 4, 4), 2, 1),
        ((8, 64, 32, 32), (128, 64, 5, 5), 2, 2),
        ((16, 64, 500), (64, 64, 3), 1, 1),
    ],
    ids=["5x5", "4x4/2", "5x5/2", "line"],
)
def test_chosen_for_other_windows(x: tuple, w: tuple, stride: int, low: int) -> None:
    rank = len(x) - 2
    axes = ((stride,) * rank, (low,) * rank, (low,) * rank)
    y = ops.conv(leaf("x", *x), leaf("w", *w), *axes)
    assert "conv_winograd" in names(y)[1]
    dx = ops.conv_input_grad(leaf("dy", *y.shape), leaf("w", *w), x[2:], *axes)
    assert ("conv_input_grad_winograd" in names(dx)[1]) == (w[-1] != 4)  # too little for four kernels


def test_the_option_turns_it_off() -> None:
    for node in (LAYER.forward(), LAYER.gradient()):
        assert not any("winograd" in n for n in names(node, replace(WIDE, winograd=False))[1])


def test_weights_that_do_not_change_are_transformed_once() -> None:
    once, each = names(LAYER.forward(), fixed=("w",))
    assert once == ["conv_winograd_weights"]
    assert "conv_winograd_weights" not in each


@pytest.mark.parametrize(
    "node",
    [
        ops.conv(leaf("x", 8, 64, 28, 28), leaf("w", 64, 64, 3, 3), stride=(2, 2), low=(1, 1), high=(1, 1)),
        ops.conv(leaf("x", 8, 64, 28, 28), leaf("w", 64, 64, 3, 3), dilation=(3, 3)),
        ops.conv(leaf("x", 8, 64, 28, 28), leaf("w", 64, 64, 1, 1)),
        ops.conv(leaf("x", 8, 64, 28, 28), leaf("w", 64, 64, 6, 6)),
        ops.conv(leaf("x", 8, 64, 28, 28), leaf("w", 64, 64, 3, 6)),
        ops.conv(leaf("x", 8, 64, 28, 28, dtype=int64), leaf("w", 64, 64, 3, 3, dtype=int64)),
    ],
    ids=["stride", "dilation", "1x1", "6x6", "3x6", "integers"],
)
def test_other_convolutions_have_no_tiles(node) -> None:
    assert all(geometry(problem, 6) is None for problem in conv_problems(node))
    assert not any("winograd" in n for n in names(node)[1])


@pytest.mark.parametrize(
    "case", [Case(8, 3, 64, (32, 32)), Case(1, 4, 4, (2, 2)), Case(8, 64, 64, (28, 28), groups=16)]
)
def test_not_chosen_for_few_channels(case: Case) -> None:
    assert not any("winograd" in n for n in names(case.forward())[1])


def test_useful_work_is_that_of_the_convolution() -> None:
    node = LAYER.forward()
    (kernel,) = [
        c.kernel for c in lower_contraction(group_of(node), WIDE) if c.kernel.name == "conv_winograd"
    ]
    assert kernel.flops == 2.0 * node.type.size * 64 * 9
