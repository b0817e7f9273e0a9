"""Pieces of graph made again on other inputs are what their builder would have made."""

from __future__ import annotations

from graphc import ops
from graphc.ir.node import Node, site_of
from graphc.ir.recipe import Recipe, frontier
from graphc.ir.types import TensorType, float32, float64

ARRAY, NUMBER = TensorType((2, 3), float32), TensorType((), float64)


def inputs(name: str, *types: TensorType) -> list[Node]:
    return [ops.input_(f"{name}{i}", t) for i, t in enumerate(types)]


def build(x: Node, y: Node, rate: Node) -> list[Node]:
    half = ops.mul(rate, ops.constant(0.5, float64))
    factor = ops.broadcast(ops.cast(half, float32), (2, 3), ())
    moved = ops.sub(x, ops.mul(factor, y))
    return [moved, ops.exp(moved), y]


def test_a_recipe_makes_the_nodes_its_builder_would_make() -> None:
    first, second = inputs("a", ARRAY, ARRAY, NUMBER), inputs("b", ARRAY, ARRAY, NUMBER)
    recipe = Recipe(first, build(*first))
    made = recipe(second)
    assert all(a is b for a, b in zip(made, build(*second), strict=True))
    assert site_of(made[0]) is not None


def test_inputs_may_coincide_when_a_recipe_is_used() -> None:
    first = inputs("a", ARRAY, ARRAY, NUMBER)
    x, rate = inputs("c", ARRAY, NUMBER)
    made = Recipe(first, build(*first))([x, x, rate])
    assert all(a is b for a, b in zip(made, build(x, x, rate), strict=True))


def test_the_frontier_is_what_does_not_follow_from_the_inputs() -> None:
    x, y, rate = inputs("a", ARRAY, ARRAY, NUMBER)
    outputs = build(x, y, rate)
    (factor,) = frontier([x, y], outputs)
    assert factor.op.name == "broadcast"
    other = inputs("b", ARRAY, ARRAY, NUMBER)
    (there,) = Recipe([rate], [factor])(other[2:])
    made = Recipe([x, y, factor], outputs)([*other[:2], there])
    assert all(a is b for a, b in zip(made, build(*other), strict=True))
