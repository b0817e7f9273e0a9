"""Depthwise convolutions ask for the plane that they copy next where planes come from far: every line of it,
once; where they do not, or writing sets the pace, or planes are read where they are, they ask for nothing.
Weight gradients ask for two planes, also those that they read where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.loop.interpret import run
from graphc.loop.lower.ways import lower_contraction
from graphc.loop.lowered import KernelCall
from tests.loop.test_ahead import LINE, counted, prefetches
from tests.loop.test_conv import Case
from tests.loop.test_ways import WIDE, check, group_of, leaf

NEAR = replace(WIDE, l1_bytes=4 << 10, masked=False)
FAR = replace(NEAR, l2_bytes=18 << 10)
PLACE = replace(FAR, masked=True)  # planes are read where they are
STRIDED = Case((1, 10, 16, 32), (10, 1, 3, 3), stride=2, low=1, groups=10)
LARGE = Case((1, 10, 16, 32), (10, 1, 5, 5), low=2, groups=10)
SMALL = Case((1, 10, 16, 32), (10, 1, 3, 3), low=1, groups=10)


def kernel_of(node: Node, machine) -> KernelCall:
    (call,) = lower_contraction(group_of(node), machine)
    return call


@pytest.mark.parametrize(
    "node", [STRIDED.forward(), LARGE.forward(), LARGE.input_grad()], ids=["strided", "large", "gradient"]
)
def test_every_line_of_the_next_plane_once(node: Node) -> None:
    call = kernel_of(node, FAR)
    size = node.inputs[0].type.size
    plane = size // (node.inputs[0].shape[0] * node.inputs[0].shape[1])
    (source,) = {p.buffer for p in prefetches(call.kernel)}
    marks = {source: replace(source, name="marks", shape=(size + plane,))}
    body = counted(call.kernel.body, marks)
    kernel = replace(call.kernel, params=(*call.kernel.params, *marks.values()), body=body)
    count = np.zeros(size + plane, np.float32)
    arrays = [np.ones(a.type.shape, a.type.dtype.numpy) for a in call.args]
    assert run(kernel, [*arrays, count], range(kernel.tasks)) == 0
    lines = count.reshape(-1, LINE).sum(1)
    assert (lines[: plane // LINE] == 0).all()
    assert (lines[plane // LINE :] == 1).all()


@pytest.mark.parametrize("case", [STRIDED, LARGE], ids=["strided", "large"])
def test_values(case: Case) -> None:
    (call,) = check(case.forward(), machine=FAR)
    assert prefetches(call.kernel)


@pytest.mark.parametrize("machine", [FAR, PLACE], ids=["planes", "place"])
@pytest.mark.parametrize("case", [STRIDED, SMALL], ids=["strided", "small"])
def test_weight_gradients_ask_for_both_sources(case: Case, machine) -> None:
    (call,) = check(case.weight_grad(), machine=machine)
    asked = prefetches(call.kernel)
    assert {p.buffer for p in asked} == set(call.kernel.params[:2])


def test_nothing_is_asked_for_in_vain() -> None:
    assert not prefetches(kernel_of(SMALL.weight_grad(), NEAR).kernel)
    assert not prefetches(kernel_of(STRIDED.forward(), NEAR).kernel)
    assert not prefetches(kernel_of(SMALL.forward(), FAR).kernel)
    assert not prefetches(kernel_of(LARGE.forward(), PLACE).kernel)


def test_source_that_is_computed_on_the_way() -> None:
    """There is no plane to ask for."""
    x, w = leaf("x", 1, 10, 16, 32), leaf("w", 10, 1, 3, 3)
    y = ops.conv(ops.neg(x), w, **STRIDED.options)
    (call,) = check(y, machine=FAR)
    assert not prefetches(call.kernel)
