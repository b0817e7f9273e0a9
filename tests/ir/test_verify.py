"""The verifier accepts what the builders make and names what is wrong with anything else."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import NO_ATTRS, Kind, Node, Op
from graphc.ir.types import TensorType, float32, int64
from graphc.ir.verify import VerifyError, verify

X = ops.input_("x", TensorType((2, 3), float32))
Y = ops.input_("y", TensorType((2, 3), float32))


def raw(op: Op, inputs: tuple[Node, ...], type_: TensorType, attrs=NO_ATTRS) -> Node:
    """A node made behind the constructor's back."""
    node = object.__new__(Node)
    node.op, node.inputs, node.attrs, node.type = op, inputs, attrs, type_
    node.bound = node.site = None
    return node


def test_built_graphs_are_well_formed() -> None:
    verify(Graph((X, Y), (ops.add(X, ops.exp(Y)), X)), ops.REGISTRY)


ADD = ops.REGISTRY["add"]
ROGUE = Op("rogue", Kind.ELEMENTWISE, lambda types, attrs: types[0])


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (Graph((X,), (ops.add(X, Y),)), "is not declared as an input"),
        (Graph((ops.exp(X),), (X,)), "is declared as an input but is computed"),
        (Graph((X, X), (X,)), "declares an input twice"),
        (Graph((X,), (X,), ("a", "b")), "2 input names for 1"),
        (Graph((X,), (raw(ROGUE, (X,), X.type),)), "not in the registry"),
        (Graph((X,), (raw(ADD, (X, X), TensorType((2, 3), int64)),)), "its op infers f32[2, 3]"),
        (Graph((X,), (raw(ADD, (X,), X.type),)), "is ill-typed: add: takes 2 operands"),
        (Graph((X,), (raw(ADD, (X, ops.exp(X)), X.type),)), "is not interned"),
        (Graph((X,), (raw(ADD, (X, X), X.type, ops.reshape(X, (6,)).attrs),)), "not NoAttrs"),
    ],
)
def test_broken_graphs_are_refused(graph: Graph, says: str) -> None:
    keep = ops.add(X, ops.exp(X))  # so that the raw twin is not the interned node
    with pytest.raises(VerifyError) as caught:
        verify(graph, ops.REGISTRY)
    assert says in str(caught.value)
    assert keep.type == X.type
