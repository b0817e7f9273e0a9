"""Operations made again from recipes are what their builders would have made."""

from __future__ import annotations

import gc as collector

import numpy as np
import pytest

import graphc as gc
from graphc import ops
from graphc.frontend import remembered
from graphc.frontend.remembered import build_node
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32
from graphc.nn import functional as F


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_recipes", {})
    monkeypatch.setattr(remembered, "_left_alone", {})


def array(name: str, *shape: int) -> Node:
    return ops.input_(name, TensorType(shape, float32))


def scaled(factor: float, calls: list[int]):
    def build(x: Node) -> Node:
        count()
        return ops.mul(x, ops.like(x, factor))

    def count() -> None:
        calls.append(1)

    return build


CALLS: list[int] = []


def counted(factor: float):
    def build(x: Node) -> Node:
        CALLS.append(1)
        return ops.mul(x, ops.like(x, factor))

    return build


def test_a_builder_is_called_until_its_recipe_is_written() -> None:
    CALLS.clear()
    x = array("x", 3)
    expected = ops.mul(x, ops.like(x, 2.0))
    seen = []
    for _ in range(5):
        assert build_node(counted(2.0), [x]) is expected
        seen.append(len(CALLS))
    assert seen == [1, 3, 3, 3, 3]  # the second time twice: for the recipe, and for the result
    other = array("y", 3)
    assert build_node(counted(2.0), [other]) is ops.mul(other, ops.like(other, 2.0))
    assert len(CALLS) == 3


@pytest.mark.parametrize("a, b", [(0.0, -0.0), (1.0, True), (1, True), (1, 1.0), ((2, 1), (2, True))])
def test_values_that_are_equal_but_not_the_same_are_told_apart(a: object, b: object) -> None:
    def holding(value: object):
        return lambda x: (x, value)

    assert a == b
    assert remembered._key(holding(a)) != remembered._key(holding(b))
    assert remembered._key(holding(a)) == remembered._key(holding(a))


def test_the_default_dtype_counts() -> None:
    whole = gc.arange(6)
    try:
        for dtype in (gc.float32, gc.float32, gc.float32, gc.float64, gc.float64, gc.float64):
            gc.set_default_dtype(dtype)
            assert gc.sin(whole).dtype is dtype
            assert gc.special.entr(whole).dtype is dtype
    finally:
        gc.set_default_dtype(gc.float32)


def test_other_shapes_are_other_recipes() -> None:
    for n in (2, 2, 2, 3, 3, 3):
        x = array(f"x{n}", n, 4)
        assert build_node(lambda t: ops.reduce_sum(ops.exp(t), (0,)), [x]) is ops.reduce_sum(ops.exp(x), (0,))


def test_builders_that_hold_objects_are_called_each_time() -> None:
    calls: list[int] = []
    x = array("x", 3)
    for _ in range(4):
        build_node(scaled(2.0, calls), [x])
    assert len(calls) == 4
    assert len(remembered._left_alone) == 1


def test_random_numbers_are_drawn_each_time_and_once() -> None:
    gc.manual_seed(4)
    x = gc.ones(64)
    first = [F.dropout(x, 0.5).numpy() for _ in range(6)]
    gc.manual_seed(4)
    again = [F.dropout(x, 0.5).numpy() for _ in range(2)]
    for a, b in zip(first, again, strict=False):
        np.testing.assert_array_equal(a, b)
    assert len({a.tobytes() for a in first}) == 6
    gc.manual_seed(4)
    for expected in first:
        np.testing.assert_array_equal(F.dropout(x, 0.5).numpy(), expected)


def test_values_and_gradients_stay_the_same() -> None:
    values = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    labels = gc.tensor([0, 4, 2, 1])
    found = []
    for _ in range(4):
        x = gc.tensor(values, requires_grad=True)
        loss = F.cross_entropy(F.gelu(F.softmax(x, 1) * 3), labels, label_smoothing=0.1)
        loss.backward()
        found.append((loss.item(), x.grad.numpy().tobytes()))
    assert len(set(found)) == 1


def test_recipes_hold_no_tensors() -> None:
    x = gc.ones(8, 8)
    for _ in range(3):
        F.softmax(x, 1)
    node = x._cell.node
    del x
    collector.collect()
    held = [o for o in collector.get_referrers(node) if isinstance(o, (list, tuple, dict))]
    assert not any(o in remembered._recipes.values() for o in held)


def test_a_site_is_the_line_of_the_call_that_made_the_node() -> None:
    lines = set()
    for _ in range(2):
        F.softmax(gc.ones(3, 7), 1)
    for _ in range(2):
        y = F.softmax(gc.ones(3, 7) * 2, 1)
        lines.add(y._cell.node.site.line)
    assert len(lines) == 1
    z = F.softmax(gc.ones(3, 7) * 2.5, 1)
    assert z._cell.node.site.line not in lines
