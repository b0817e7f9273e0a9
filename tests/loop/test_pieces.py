"""Dense pieces of values as arguments: which slices are, where they lie, and what is shared by that."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import graphc
from graphc import nn, ops, pipeline, repeat
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, float32
from graphc.loop.lower.pieces import without_pieces
from graphc.loop.lowered import Part
from graphc.passes.fuse import partition

from .running import WIDE, draw, execute, oracle


def node(name: str, *shape: int) -> Node:
    return ops.input_(name, TensorType(shape, float32))


X = node("x", 6, 4, 8)


@pytest.mark.parametrize(
    ("start", "stop", "step", "offset"),
    [
        ((2, 0, 0), (3, 4, 8), (1, 1, 1), 2 * 32),
        ((2, 0, 0), (5, 4, 8), (1, 1, 1), 2 * 32),
        ((2, 1, 0), (3, 3, 8), (1, 1, 1), 2 * 32 + 8),
        ((2, 1, 3), (3, 2, 7), (1, 1, 1), 2 * 32 + 8 + 3),
        ((5, 0, 0), (6, 4, 8), (3, 1, 1), 5 * 32),
        ((0, 0, 0), (2, 4, 8), (1, 1, 1), 0),
        ((0, 0, 0), (6, 4, 8), (2, 1, 1), None),
        ((2, 1, 0), (5, 3, 8), (1, 1, 1), None),
        ((2, 0, 3), (3, 4, 7), (1, 1, 1), None),
        ((2, 0, 0), (3, 4, 8), (1, 1, 2), None),
    ],
)
def test_dense_pieces_are_inputs(
    start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...], offset: int | None
) -> None:
    cut = ops.slice_(X, start, stop, step)
    flat = ops.reshape(cut, (cut.type.size,))
    out = ops.exp(flat)
    group = Group((cut, flat, out), (X,), (out,))
    found, pieces = without_pieces(group)
    if offset is None:
        assert found is group
        assert not pieces
    else:
        assert found.nodes == (out,)
        assert found.inputs == (flat,)
        ((value, part),) = pieces.items()
        assert (value, part.value, part.type, part.offset) == (flat, X, flat.type, 4 * offset)


def test_what_stays() -> None:
    """Fixed inputs, a group that copies a piece, and inputs whose memory a result may take."""
    cut = ops.slice_axis(X, 0, 2, 3)
    out = ops.exp(cut)
    assert without_pieces(Group((cut, out), (X,), (out,)))[1]
    assert not without_pieces(Group((cut, out), (X,), (out,)), frozenset((X,)))[1]
    assert not without_pieces(Group((cut, out), (X,), (cut, out)))[1]
    rest = ops.slice_axis(X, 0, 1, 6)
    over = ops.concat((out, rest), 0)
    assert not without_pieces(Group((cut, out, rest, over), (X,), (over,)))[1]


def test_values() -> None:
    """Pieces of pieces, whole and piece in one group, and pieces that are operands of a product."""
    w = node("w", 8, 5)
    second = ops.slice_axis(X, 0, 1, 4)
    inner = ops.reshape(ops.slice_axis(second, 0, 2, 3), (4, 8))
    other = ops.reshape(ops.slice_axis(X, 0, 5, 6), (4, 8))
    product = ops.dot_general(inner, w, ((1,), (0,)))
    total = ops.reduce_sum(ops.mul(X, ops.broadcast(other, X.shape, (1, 2))), (0,))
    results = (ops.exp(product), total, ops.add(ops.sin(other), inner))
    graph = Graph((X, w), results)
    parts = partition(graph, WIDE)
    assert any(
        isinstance(arg, Part)
        for group in parts.groups
        for call in repeat.lower(group, WIDE).steps
        for arg in call.args  # type: ignore[union-attr]
    )
    rng = np.random.default_rng(0)
    values = {x: draw(x, rng) for x in graph.inputs}
    for got, wanted in zip(execute(parts, values), oracle(results, values), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def unrolled(steps: int) -> Graph:
    """An LSTM cell's steps, one after another, and their gradients."""
    cell = nn.LSTMCell(8, 16)

    def loss(x: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        h, c = graphc.zeros(4, 16), graphc.zeros(4, 16)
        for t in range(steps):
            h, c = cell(x[t], (h, c))
        return (h.sum(), *graphc.autograd.grad(h.sum(), list(cell.parameters())))

    graph: Graph = graphc.trace(loss, graphc.TensorSpec((steps, 4, 8)))
    return graph


def test_steps_of_a_written_out_loop_share_their_kernels() -> None:
    kernels = []
    for steps in (6, 12):
        planned = pipeline.inspect(unrolled(steps)).planned
        assert planned is not None
        kernels.append(Counter(call.kernel for call in planned.steps))
    assert len(kernels[0]) == len(kernels[1])
    assert sum(kernels[1].values()) > sum(kernels[0].values()) + 12
