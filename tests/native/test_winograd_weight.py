"""Compiled weight gradients by minimal filtering: every cut the planner tries, fused optimizers, the bits on
one to three threads, how far results are from exact sums, and gradients of gradients as PyTorch has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import graphc
from graphc import ops, threads
from graphc.backends.llvm import Backend
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.loop.lower.convolution.winograd.weight_grad import weight_grad_calls
from graphc.loop.lower.convolution.winograd.weight_plan import Plan, candidates, plan_weight_grad
from graphc.plan import make
from graphc.program import Machine
from tests.loop.test_conv import Case
from tests.loop.test_ways import draw, evaluate, group_of, leaf
from tests.loop.test_winograd_weight import ahead, names, weight_grad
from tests.native.test_contractions import TARGETS

Values = dict[Node, np.ndarray]


def best(node: Node, machine: Machine) -> Plan:
    found = plan_weight_grad(node, machine)
    assert found is not None
    return found[0]


def run(outputs: Sequence[Node], anchor: Node, plan: Plan, target: str, values: Values) -> list[np.ndarray]:
    """The outputs of the group around `anchor`; the same bits on one, two and three threads."""
    backend, group = Backend(target), group_of(*outputs)
    graph = Graph(group.inputs, tuple(outputs))
    calls = tuple(weight_grad_calls(anchor, plan, group))
    compiled = backend.compile(graph, make(graph, [group], {group: calls}).plan)
    before, results = threads.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            results.append([np.full(o.shape, 7, o.dtype.numpy) for o in outputs])
            assert compiled([values[n] for n in group.inputs], results[-1]) == 0
    finally:
        threads.set_num_threads(before)
    for got, *others in zip(*results, strict=True):
        assert all(got.tobytes() == other.tobytes() for other in others)
    return results[0]


def check(outputs: Sequence[Node], anchor: Node, plan: Plan, target: str) -> None:
    rng = np.random.default_rng(1)
    values = {n: draw(n, rng) for n in group_of(*outputs).inputs}
    for got, want in zip(run(outputs, anchor, plan, target, values), evaluate(outputs, values), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [4, 6])
def test_every_cut(size: int, target: str) -> None:
    node = weight_grad(3, 64, 64, 7, 13)
    shape = (1, 64, 64, 3, *node.inputs[1].shape[2:])
    tried = list(candidates(size, (3, 3), shape, Backend(target).machine))
    assert {len(p.rows) for p in tried} == {1, size // 2, size}
    assert {p.out_block for p in tried} == {p.in_block for p in tried} == {64, 32}
    assert {p.shares for p in tried} >= {1, 2}
    assert any(p.ahead for p in tried)
    for plan in [*tried[:: 1 + len(tried) // 6], *[p for p in tried if p.ahead][:2]]:
        check([node], node, plan, target)


SHAPES = {
    "odd": (5, 33, 47, 13, 11),
    "wide": (1, 16, 30, 3, 70),
    "layer": (2, 64, 64, 28, 28),
    "short": (4, 128, 96, 4, 4),
    "deep": (2, 256, 512, 7, 7),
    "groups": (2, 64, 128, 14, 14, (1, 1, 1, 1), 2),
    "uneven": (3, 24, 40, 10, 9, (2, 0, 0, 3)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, target: str) -> None:
    node = weight_grad(*SHAPES[name])
    check([node], node, best(node, Backend(target).machine), target)


IMAGES = {
    "volume": Case((2, 24, 5, 9, 14), (32, 24, 3, 3, 3), low=1),
    "dilated": Case((2, 32, 24, 28), (48, 32, 3, 3), low=4, dilation=4),
    "two-taps": Case((2, 36, 12, 17), (33, 36, 2, 2), low=1),
    "four-taps": Case((2, 32, 14, 13), (32, 32, 4, 4), low=2),
    "five-taps": Case((3, 20, 11, 16), (48, 20, 5, 5), low=2),
    "row": Case((3, 32, 6, 41), (32, 32, 1, 3), low=1),
    "line": Case((5, 32, 131), (64, 32, 5), low=2),
    "column": Case((2, 32, 23, 9), (64, 32, 4, 1), low=1),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, target: str) -> None:
    """Slices of volumes, pixels that lie apart, and windows of other sizes."""
    node = IMAGES[name].weight_grad()
    plan = best(node, Backend(target).machine)
    check([node], node, plan, target)
    check([node], node, ahead(plan), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("early", [False, True])
def test_optimizer(early: bool, target: str) -> None:
    """Momentum and weight decay follow in the same group."""
    grad = weight_grad(2, 36, 40, 12, 12)
    plan = best(grad, Backend(target).machine)
    weight, momentum = (leaf(name, *grad.shape) for name in ("w", "m"))
    rate = ops.broadcast(leaf("rate"), grad.shape, ())
    step = ops.add(ops.mul(momentum, rate), ops.add(grad, ops.mul(weight, rate)))
    check([step, ops.sub(weight, ops.mul(step, rate))], grad, ahead(plan) if early else plan, target)


@pytest.mark.parametrize("data", ["normal", "positive"])
@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_rounding(taps: int, data: str) -> None:
    """The stated bound: errors stay below 2^-20 of the sum of |x||dy|, and 2^-16 of the root of the sum of
    squares."""
    node = Case((4, 32, 24, 24), (16, 32, taps, taps), low=taps // 2).weight_grad()
    rng = np.random.default_rng(5)
    x, dy = (rng.standard_normal(n.shape).astype(np.float32) for n in node.inputs)
    if data == "positive":
        x = np.maximum(x, 0)
    values = dict(zip(node.inputs, (x, dy), strict=True))
    (got,) = run([node], node, best(node, Backend(TARGETS[0]).machine), TARGETS[0], values)
    exact = {n: a.astype(np.float64) for n, a in values.items()}
    (want,) = evaluate([node], exact)
    (sizes,) = evaluate([node], {n: np.abs(a) for n, a in exact.items()})
    (squares,) = evaluate([node], {n: a * a for n, a in exact.items()})
    error = np.abs(got - want)
    assert (error / sizes).max() < 2**-20
    assert (error / np.sqrt(squares)).max() < 2**-16


def second_order(T, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Gradients of a convolution, and gradients of those, in namespace T."""
    x, w = (T.tensor(a, requires_grad=True) for a in arrays)
    y = T.nn.functional.conv2d(x, w, padding=1)
    gx, gw = T.autograd.grad((y * y * y).mean(), (x, w), create_graph=True)
    return [g.detach().numpy() for g in (gx, gw, *T.autograd.grad((gw * gw).sum() + (gx * gx).sum(), (x, w)))]


def test_second_order_as_torch() -> None:
    torch = pytest.importorskip("torch")
    assert "conv_weight_grad_winograd" in names(weight_grad(4, 32, 64, 16, 16), Backend(None).machine)
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape) for shape in ((4, 32, 16, 16), (64, 32, 3, 3))]
    got = second_order(graphc, [a.astype(np.float32) for a in arrays])
    for ours, theirs in zip(got, second_order(torch, arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6 * np.abs(theirs).max())
