"""Lookup tables."""

from __future__ import annotations

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.nodes import number, spread
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply, from_node, inplace, operand
from graphc.ir.node import Node
from graphc.ir.types import int32, int64
from graphc.nn.functional.common import need_tensors
from graphc.nn.functional.linear import check_labels


def need_indices(name: str, which: str, tensor: Tensor) -> None:
    """RuntimeError unless the tensor has an index dtype."""
    if tensor.dtype not in (int32, int64):
        raise fail(
            RuntimeError,
            f"Expected tensor for argument #1 '{which}' to have one of the following scalar types: Long, "
            f"Int; but got {tensor.dtype.name} instead (while checking arguments for {name})",
        )


def table_rows(weight: Tensor) -> int:
    """The number of rows of a table [n, d]; RuntimeError for another rank."""
    if weight.ndim != 2:
        raise fail(RuntimeError, f"'weight' must be 2-D, got {list(weight.shape)}")
    return weight.shape[0]


def looked_up(w: Node, indices: Node, by_frequency: bool) -> Node:
    """Rows of w at `indices`; with `by_frequency`, gradients are divided by how often an index occurs."""
    rows = ops.take(w, indices, 0)
    if not by_frequency:
        return rows
    count = w.shape[0]
    ones = number(1, w.dtype, indices.shape)
    uses = ops.scatter_add(number(0, w.dtype, (count,)), indices, ones, 0)
    often = ops.broadcast(ops.take(uses, indices, 0), rows.shape, tuple(range(indices.type.rank)))
    return ops.with_gradient(rows, ops.div(rows, often))


@repeatable
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` [n, d] at integer indices of any shape: [*input, d].

    No gradient goes to row `padding_idx`. With `max_norm`, rows looked up are first shortened in place.
    `scale_grad_by_freq` divides gradients by how often the index occurs. `sparse` is accepted; gradients
    are dense. IndexError, when the program runs, for an index out of range.
    """
    need_tensors("embedding", input, weight)
    need_indices("embedding", "indices", input)
    count = table_rows(weight)
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise fail(AssertionError, "Padding_idx must be within num_embeddings")
        padding_idx %= count
    indices = check_labels("embedding", operand(input, False), count, "index")
    if max_norm is not None:
        shorten(weight, indices, max_norm, norm_type)

    def build(w: Node) -> Node:
        rows = looked_up(w, indices, scale_grad_by_freq)
        if padding_idx is not None:
            padded = ops.eq(indices, ops.like(indices, padding_idx))
            padded = ops.broadcast(padded, rows.shape, tuple(range(len(indices.shape))))
            rows = ops.with_gradient(rows, ops.select(padded, ops.stop_gradient(rows), rows))
        return rows

    return apply("EmbeddingBackward0", build, weight)


def shorten(weight: Tensor, indices: Node, max_norm: float, norm_type: float) -> None:
    """Scale the rows of `weight` that are looked up and longer than `max_norm` down to it, in place."""
    with no_grad():
        w = operand(weight, False)
        size = ops.abs(w)
        if norm_type == 2.0:
            norm = ops.sqrt(ops.reduce_sum(ops.mul(w, w), (1,)))
        elif norm_type == 1.0:
            norm = ops.reduce_sum(size, (1,))
        else:
            power = ops.reduce_sum(ops.pow(size, ops.like(size, norm_type)), (1,))
            norm = ops.pow(power, ops.like(power, 1.0 / norm_type))
        none = ops.full(norm.shape, 0, w.dtype)
        used = ops.scatter_add(none, indices, ops.full(indices.shape, 1, w.dtype), 0)
        long = ops.bit_and(ops.gt(norm, ops.like(norm, max_norm)), ops.gt(used, none))
        scale = ops.div(ops.like(norm, max_norm), ops.add(norm, ops.like(norm, 1e-7)))
        scale = ops.select(long, scale, ops.like(norm, 1))
        inplace(weight, from_node(ops.mul(w, spread(scale, w.shape, 1))))
