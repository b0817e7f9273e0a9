"""simplify and fold: each identity, and no bit changed on random graphs with special values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.analysis.evaluate import evaluate_graph
from graphc.ir.graph import Graph
from graphc.ir.node import Node, Site, no_sites, set_site, site_of
from graphc.ir.types import TensorType, bool_, float32, float64, int32, int64, uint8
from graphc.ir.verify import verify
from graphc.passes import fold, simplify
from graphc.passes.rules import RuleTable, apply_rules, on

from ..random_graphs import assert_same, random_graph, random_inputs


def inputs(*shapes: tuple[int, ...], dtype=float32) -> list[Node]:
    return [ops.input_(f"{dtype.short}{i}", TensorType(s, dtype)) for i, s in enumerate(shapes)]


X, Y = inputs((2, 3), (2, 3))
K, J = inputs((2, 3), (2, 3), dtype=int64)
B, C = inputs((2, 3), (2, 3), dtype=bool_)
(M,) = inputs((4, 5))
U = ops.input_("u", TensorType((2, 3), uint8))


def simple(node: Node, run=simplify.run) -> Node:
    leaves = Graph((), (node,)).nodes
    graph = Graph(tuple(n for n in leaves if n.kind.value == "input"), (node,))
    verify(run(graph), ops.REGISTRY)
    return run(graph).outputs[0]


def like(x: Node, value) -> Node:
    return ops.like(x, value)


SAME = {
    "x*1": (lambda: ops.mul(X, like(X, 1.0)), X),
    "1*x": (lambda: ops.mul(like(X, 1.0), X), X),
    "x*-1": (lambda: ops.mul(X, like(X, -1.0)), ops.neg(X)),
    "x+-0": (lambda: ops.add(X, like(X, -0.0)), X),
    "x-0": (lambda: ops.sub(X, like(X, 0.0)), X),
    "int x+0": (lambda: ops.add(K, like(K, 0)), K),
    "int x-x": (lambda: ops.sub(K, K), like(K, 0)),
    "int x*0": (lambda: ops.mul(K, like(K, 0)), like(K, 0)),
    "x/1": (lambda: ops.div(X, like(X, 1.0)), X),
    "x/4": (lambda: ops.div(X, like(X, 4.0)), ops.mul(X, like(X, 0.25))),
    "x+(-y)": (lambda: ops.add(X, ops.neg(Y)), ops.sub(X, Y)),
    "(-x)+y": (lambda: ops.add(ops.neg(X), Y), ops.sub(Y, X)),
    "x-(-y)": (lambda: ops.sub(X, ops.neg(Y)), ops.add(X, Y)),
    "(-x)*(-y)": (lambda: ops.mul(ops.neg(X), ops.neg(Y)), ops.mul(X, Y)),
    "x**2": (lambda: ops.pow_(X, like(X, 2.0)), ops.mul(X, X)),
    "x**1": (lambda: ops.pow_(X, like(X, 1.0)), X),
    "x**0": (lambda: ops.pow_(X, like(X, 0.0)), like(X, 1.0)),
    "x**-1": (lambda: ops.pow_(X, like(X, -1.0)), ops.div(like(X, 1.0), X)),
    "--x": (lambda: ops.neg(ops.neg(X)), X),
    "abs(-x)": (lambda: ops.abs_(ops.neg(X)), ops.abs_(X)),
    "floor(ceil x)": (lambda: ops.floor(ops.ceil(X)), ops.ceil(X)),
    "floor(float(int))": (lambda: ops.floor(ops.cast(K, float64)), ops.cast(K, float64)),
    "not not": (lambda: ops.logical_not(ops.logical_not(B)), B),
    "not(x==y)": (lambda: ops.logical_not(ops.eq(X, Y)), ops.ne(X, Y)),
    "int not(x<y)": (lambda: ops.logical_not(ops.lt(K, J)), ops.ge(K, J)),
    "max(x,x)": (lambda: ops.maximum(X, X), X),
    "b&true": (lambda: ops.bit_and(B, like(B, True)), B),
    "b&false": (lambda: ops.bit_and(B, like(B, False)), like(B, False)),
    "b|true": (lambda: ops.bit_or(B, like(B, True)), like(B, True)),
    "b^true": (lambda: ops.bit_xor(B, like(B, True)), ops.logical_not(B)),
    "u&255": (lambda: ops.bit_and(U, like(U, 255)), U),
    "select(true)": (lambda: ops.select(like(B, True), X, Y), X),
    "select(c,a,a)": (lambda: ops.select(B, X, X), X),
    "select(not c)": (lambda: ops.select(ops.logical_not(B), X, Y), ops.select(B, Y, X)),
    "select nested": (lambda: ops.select(B, ops.select(B, X, Y), Y), ops.select(B, X, Y)),
    "select bool": (lambda: ops.select(B, like(B, True), like(B, False)), B),
    "cast up, down": (lambda: ops.cast(ops.cast(X, float64), float32), X),
    "bool to int to float": (lambda: ops.cast(ops.cast(B, int64), float32), ops.cast(B, float32)),
    "u8 to f32 to f64": (lambda: ops.cast(ops.cast(U, float32), float64), ops.cast(U, float64)),
    "stop_gradient": (lambda: ops.exp(ops.stop_gradient(X)), ops.exp(X)),
    "reshape twice": (lambda: ops.reshape(ops.reshape(X, (6,)), (3, 2)), ops.reshape(X, (3, 2))),
    "reshape back": (lambda: ops.reshape(ops.reshape(X, (6,)), (2, 3)), X),
    "transpose twice": (lambda: ops.transpose(ops.transpose(X, (1, 0)), (1, 0)), X),
    "transpose of ones": (
        lambda: ops.transpose(ops.reshape(X, (2, 1, 3)), (1, 0, 2)),
        ops.reshape(X, (1, 2, 3)),
    ),
    "broadcast twice": (
        lambda: ops.broadcast(ops.broadcast(X, (4, 2, 3), (1, 2)), (4, 5, 2, 3), (0, 2, 3)),
        ops.broadcast(X, (4, 5, 2, 3), (2, 3)),
    ),
    "broadcast size-1 dims": (
        lambda: ops.broadcast(ops.reshape(X, (2, 1, 3)), (5, 2, 1, 3), (1, 2, 3)),
        ops.broadcast(X, (5, 2, 1, 3), (1, 3)),
    ),
    "broadcast to ones": (lambda: ops.broadcast(X, (1, 2, 3), (1, 2)), ops.reshape(X, (1, 2, 3))),
    "reshape of broadcast": (
        lambda: ops.reshape(ops.broadcast(X, (4, 2, 3), (1, 2)), (4, 1, 2, 3)),
        ops.broadcast(X, (4, 1, 2, 3), (2, 3)),
    ),
    "transpose of broadcast": (
        lambda: ops.transpose(ops.broadcast(X, (4, 2, 3), (1, 2)), (1, 0, 2)),
        ops.broadcast(X, (2, 4, 3), (0, 2)),
    ),
    "slice twice": (
        lambda: ops.slice_axis(ops.slice_axis(M, 1, 1, 5), 1, 1, 3),
        ops.slice_axis(M, 1, 2, 4),
    ),
    "slice inside pad": (lambda: ops.slice_axis(ops.pad(M, (2, 0), (1, 0), 7.0), 0, 2, 6), M),
    "slice of concat": (lambda: ops.slice_axis(ops.concat([X, Y], 0), 0, 2, 4), Y),
    "pad twice": (
        lambda: ops.pad(ops.pad(X, (1, 0), (0, 0), 0.0), (1, 2), (0, 0), 0.0),
        ops.pad(X, (2, 2), (0, 0), 0.0),
    ),
    "flip twice": (lambda: ops.flip(ops.flip(X, (0,)), (0, 1)), ops.flip(X, (1,))),
    "concat nested": (lambda: ops.concat([ops.concat([X, Y], 0), X], 0), ops.concat([X, Y, X], 0)),
    "reduce of one": (lambda: ops.reduce_sum(ops.reshape(X, (2, 1, 3)), (1,)), X),
    "max of max": (lambda: ops.reduce_max(ops.reduce_max(X, (0,)), (0,)), ops.reduce_max(X, (0, 1))),
    "max of repeated": (lambda: ops.reduce_max(ops.broadcast(X, (4, 2, 3), (1, 2)), (0,)), X),
    "dot of transpose": (
        lambda: ops.dot_general(ops.transpose(M, (1, 0)), ops.transpose(M, (1, 0)), ((0,), (0,))),
        ops.dot_general(M, M, ((1,), (1,))),
    ),
    "transpose of dot": (
        lambda: ops.transpose(ops.dot_general(M, X, ((), ())), (2, 3, 0, 1)),
        ops.dot_general(X, M, ((), ())),
    ),
    "empty sum": (lambda: ops.reduce_sum(ops.slice_axis(X, 1, 1, 1), (1,)), ops.full((2,), 0, float32)),
    "empty dot": (
        lambda: ops.dot_general(ops.slice_axis(X, 1, 1, 1), ops.slice_axis(Y, 1, 1, 1), ((1,), (1,))),
        ops.full((2, 2), 0, float32),
    ),
    "empty part": (lambda: ops.concat([X, ops.slice_axis(Y, 0, 1, 1)], 0), X),
    "pad of empty": (
        lambda: ops.pad(ops.slice_axis(X, 0, 0, 0), (1, 0), (0, 0), 2.0),
        ops.full((1, 3), 2.0, float32),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_identity(name: str) -> None:
    build, expected = SAME[name]
    assert simple(build()) is expected


KEPT = {
    "x+0": lambda: ops.add(X, like(X, 0.0)),  # -0.0 + 0.0 is 0.0
    "x*0": lambda: ops.mul(X, like(X, 0.0)),  # NaN, infinities, signs
    "x-x": lambda: ops.sub(X, X),
    "x/3": lambda: ops.div(X, like(X, 3.0)),
    "x/2**-149": lambda: ops.div(X, like(X, 2.0**-149)),
    "not(x<y)": lambda: ops.logical_not(ops.lt(X, Y)),
    "-(x-y)": lambda: ops.neg(ops.sub(X, Y)),
    "f64 to f32 to f64": lambda: ops.cast(ops.cast(ops.cast(K, float64), float32), float64),
    "i64 to f64 to u8": lambda: ops.cast(ops.cast(K, float64), uint8),
    "i32 to f64 to u8": lambda: ops.cast(ops.cast(ops.cast(K, int32), float64), uint8),
    "sum of sum": lambda: ops.reduce_sum(ops.reduce_sum(X, (0,)), (0,)),
    "sum of repeated": lambda: ops.reduce_sum(ops.broadcast(X, (3, 2, 3), (1, 2)), (0,)),
    "slice of pad's edge": lambda: ops.slice_axis(ops.pad(M, (2, 0), (1, 0), 7.0), 0, 1, 3),
}


@pytest.mark.parametrize("name", KEPT)
def test_not_an_identity(name: str) -> None:
    node = KEPT[name]()
    assert simple(node) is node


FOLDED = {
    "scalars": (lambda: ops.add(like(X, 1.0), like(X, 2.0)), like(X, 3.0)),
    "views of scalars": (lambda: ops.transpose(like(M, 5.0), (1, 0)), ops.full((5, 4), 5.0, float32)),
    "pad with itself": (lambda: ops.pad(like(X, 0.0), (1, 1), (0, 0), 0), ops.full((3, 4), 0.0, float32)),
    "arrays": (
        lambda: ops.exp(ops.mul(ops.constant(np.zeros(3, np.float32)), ops.full((3,), 2.0, float32))),
        ops.constant(np.ones(3, np.float32)),
    ),
    "sum of ones": (
        lambda: ops.reduce_sum(ops.full((1000, 1000), 1.0, float32), (0, 1)),
        ops.constant(1e6, float32),
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_fold(name: str) -> None:
    build, expected = FOLDED[name]
    assert simple(build(), fold.run) is expected


def test_fold_keeps_large_and_inexact() -> None:
    big = ops.exp(ops.constant(np.zeros(4096, np.float32)))
    assert simple(big, fold.run) is big
    tenth = ops.reduce_sum(ops.full((1000, 1000), 0.1, float32), (0, 1))
    assert simple(tenth, fold.run) is tenth
    other = ops.pad(like(X, 0.0), (1, 1), (0, 0), -0.0)
    assert simple(other, fold.run) is not ops.full((3, 4), 0.0, float32)


def test_fold_sees_the_padding_of_windows() -> None:
    """The average of ones with zeros around them is less than one at the border."""
    ones, taps = ops.full((64, 64), 1.0, float32), ((3,), (1,), (1,), (1,), (1,))
    padded = ops.window(ones, *taps)
    assert simple(padded, fold.run) is padded
    assert simple(ops.window(ones, *taps, 1.0), fold.run) is ops.full((64, 64, 3), 1.0, float32)


@pytest.mark.parametrize("run", [simplify.run, fold.run, lambda g: fold.run(simplify.run(g))])
@pytest.mark.parametrize("block", range(6))
def test_random_graphs_keep_every_bit(run: Callable[[Graph], Graph], block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        graph = random_graph(seed)
        new = run(graph)
        verify(new, ops.REGISTRY)
        arrays = random_inputs(graph, seed)
        for actual, expected in zip(evaluate_graph(new, arrays), evaluate_graph(graph, arrays), strict=True):
            assert_same(actual, expected)


@pytest.mark.parametrize("run", [simplify.run, fold.run])
def test_one_run_is_enough(run: Callable[[Graph], Graph]) -> None:
    for seed in range(100):
        once = run(random_graph(seed))
        assert run(once) is once


@pytest.mark.parametrize("extent", [4, 5])
def test_windows_side_by_side_are_views(extent: int) -> None:
    image = ops.input_(f"image{extent}", TensorType((2, extent, 6), float32))
    taps = ops.window(image, (2, 3), (2, 3), (0, 0), (0, 0), (1, 1), 0)
    back = ops.fold(taps, (extent, 6), (2, 3), (2, 3), (0, 0), (0, 0), (1, 1))
    graph = Graph((image,), (taps, back))
    new = simplify.run(graph)
    assert not {"window", "fold"} & {n.op.name for n in new.nodes}
    arrays = random_inputs(graph, 1)
    for actual, expected in zip(evaluate_graph(new, arrays), evaluate_graph(graph, arrays), strict=True):
        assert_same(actual + 0, expected + 0)  # a sum of one -0.0 is 0.0, a view of it is not
    overlapping = ops.window(image, (2, 3), (1, 3), (0, 0), (0, 0), (1, 1), 0)
    assert simple(overlapping) is overlapping


def test_unchanged_graph_is_the_same_object() -> None:
    graph = Graph((X, Y), (ops.add(ops.exp(X), Y),))
    assert simplify.run(graph) is graph
    assert fold.run(graph) is graph


def test_replacements_take_over_sites() -> None:
    with no_sites():
        old = ops.add(ops.tan(X), ops.neg(ops.tan(Y)))
        set_site(old, Site("user.py", 7))
        assert site_of(simple(old)) == Site("user.py", 7)


def test_endless_rules_are_caught() -> None:
    table: RuleTable = {}

    @on(table, "add")
    def swap(node: Node) -> Node:
        return ops.add(node.inputs[1], node.inputs[0])

    with pytest.raises(RuntimeError, match="does not settle"):
        apply_rules(Graph((X, Y), (ops.add(X, Y),)), table)
