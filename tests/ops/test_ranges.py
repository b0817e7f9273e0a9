"""Intervals of integers: every value lies in them, and those that matter are exact."""

from __future__ import annotations

import random

import numpy as np
import pytest

from graphc import ops
from graphc.analysis.evaluate import evaluate_nodes
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float64, int32, int64, uint8
from graphc.ops.ranges import everything, interval

X = ops.input_("x", TensorType((2, 3), int64))
SMALL = ops.check_index(X, -4, 5, "")
FLOATS = ops.input_("f", TensorType((2, 3), float64))


def like(value: int, x: Node = X) -> Node:
    return ops.like(x, value)


def clamp(x: Node, low: int, high: int) -> Node:
    x = ops.select(ops.lt(x, like(low)), like(low), x)
    return ops.select(ops.gt(x, like(high)), like(high), x)


CASES = {
    "input": (X, everything(int64)),
    "check": (SMALL, (-4, 4)),
    "argmax": (ops.argmax(FLOATS, 1), (0, 2)),
    "argmin": (ops.argmin(FLOATS, 0), (0, 1)),
    "remainder": (ops.rem(X, like(7)), (0, 6)),
    "negative remainder": (ops.rem(X, like(-7)), (-6, 0)),
    "min and max": (ops.minimum(ops.maximum(X, like(2)), like(9)), (2, 9)),
    "clamp": (clamp(X, -1, 8), (-1, 8)),
    "wrapped index": (
        ops.select(ops.lt(SMALL, like(0)), ops.add(SMALL, like(4)), SMALL),
        (0, 8),  # the sum is not narrowed
    ),
    "product": (ops.mul(SMALL, SMALL), (-16, 16)),
    "difference": (ops.sub(SMALL, like(1)), (-5, 3)),
    "negative": (ops.neg(SMALL), (-4, 4)),
    "wraps around": (ops.add(X, like(1)), everything(int64)),
    "cast that fits": (ops.cast(SMALL, int32), (-4, 4)),
    "cast that does not": (ops.cast(SMALL, uint8), everything(uint8)),
    "cast of floats": (ops.cast(FLOATS, int32), everything(int32)),
    "bool": (ops.cast(ops.lt(FLOATS, ops.like(FLOATS, 0.0)), int64), (0, 1)),
    "positions": (ops.iota((2, 3), 1), (0, 2)),
    "padded": (ops.pad(SMALL, (1, 0), (0, 0), 9), (-4, 9)),
    "joined": (ops.concat([SMALL, like(7)], 0), (-4, 7)),
    "constants": (ops.constant(np.array([[3, -2, 5]])), (-2, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_interval(name: str) -> None:
    node, expected = CASES[name]
    assert interval(node) == expected


def test_known_ancestors() -> None:
    assert interval(ops.add(X, like(1)), {X: (0, 3)}) == (1, 4)


@pytest.mark.parametrize("seed", range(40))
def test_values_lie_in_their_intervals(seed: int) -> None:
    pick, rng = random.Random(seed), np.random.default_rng(seed)
    pool = [SMALL, like(3), like(-2), ops.iota((2, 3), 1)]
    for _ in range(12):
        a, b, c = (pick.choice(pool) for _ in range(3))
        name = pick.choice(("add", "sub", "mul", "maximum", "minimum", "rem", "neg", "select"))
        if name == "neg":
            pool.append(ops.neg(a))
        elif name == "select":
            compare = getattr(ops, pick.choice(("lt", "le", "gt", "ge", "eq")))
            pool.append(ops.select(compare(a, b), pick.choice((a, b)), pick.choice((a, b, c))))
        else:
            pool.append(getattr(ops, name)(a, b))
    values = evaluate_nodes(pool, {X: rng.integers(-4, 5, (2, 3))})
    for node, value in zip(pool, values, strict=True):
        low, high = interval(node)
        assert low <= value.min(), node
        assert value.max() <= high, node
