"""Sums over rows of scores, taken over features instead.

The gradient of a softmax over scores needs, for each row, the sum of weight * gradient, where the gradient is
a product of what comes from above with the values: ``sum_j w[i,j] * (a[i] . v[j])``. That is ``a[i] . o[i]``
with ``o[i] = sum_j w[i,j] * v[j]``, which the forward pass has computed: as many terms as there are features,
and no square of scores. Equal up to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from graphc import ops
from graphc.analysis.product import Product, behind_reshapes, factors, is_uniform
from graphc.ir.graph import Graph, rebuild, rewrite
from graphc.ir.node import Kind, Node
from graphc.ir.types import Shape
from graphc.loop.lower.attention.squares import (
    FEATURE,
    POSITION,
    Consumer,
    Producer,
    Side,
    as_consumer,
    as_producer,
    softmax_of,
)

Usable = Callable[[Node], bool]  # whether a value of the graph does not depend on the sum at hand


def run(graph: Graph) -> Graph:
    """Rewrite every such sum; the same graph if there is none."""
    if not any(n.op.name == "reduce_max" for n in graph.nodes):
        return graph
    consumers: dict[Node, list[Consumer]] = {}  # by the operand that is no square
    for node in graph.nodes:
        for side in range(2 * (node.kind is Kind.CONTRACT)):
            found = as_consumer(node, side)
            if found is not None and found.over_cols:
                consumers.setdefault(found.other.node, []).append(found)

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        new = rebuild(node, inputs)
        if new.op.name == "reduce_sum" and new.attrs.axes == (new.inputs[0].type.rank - 1,):
            return _rewritten(new, consumers, lambda known: not graph.reaches(node, known)) or new
        return new

    return rewrite(graph, rule)


def _rewritten(total: Node, consumers: dict[Node, list[Consumer]], usable: Usable) -> Node | None:
    """The sum over the last axis, as a sum over features; None if it is no sum of weights times products."""
    terms = total.inputs[0]
    whole = factors(terms)
    if not any(softmax_of(n) for n in whole.over):
        return None
    for node, times in whole.over.items():
        product = as_producer(behind_reshapes(node))
        if product is None or times != 1 or product.node.shape[-2:] != terms.shape[-2:]:
            continue
        rest = whole.without(Product(False, Counter([node]), Counter()))
        assert rest is not None
        known = [c for c in consumers.get(product.cols.node, ()) if usable(c.node)]
        found = _summed(rest, terms, product, known)
        if found is not None:
            result, left = found
            return _scaled(ops.reshape(result, total.shape), left)
    return None


def _summed(
    rest: Product, terms: Node, product: Producer, consumers: Sequence[Consumer]
) -> tuple[Node, Product] | None:
    """(sum over j of weights[i, j] * product[i, j], the factors of rows that are not in it)."""
    for consumer in consumers:
        square = behind_reshapes(consumer.square)
        same = consumer.square.shape == product.node.shape and square.shape == terms.shape
        if not same or not _alike(consumer.other, product.cols):
            continue
        left = rest.without(factors(square))
        if left is not None and _of_rows(left):
            return _row_dot(product, consumer), left
    weights = [n for n in rest.over.elements() if not is_uniform(n)]
    if not weights or not all(map(is_uniform, rest.under)):
        return None
    square = weights[0]
    for node in weights[1:]:
        square = ops.mul(square, node)
    over = rest.over - Counter(weights)
    made = _consume(ops.reshape(square, product.node.shape), product)
    return _row_dot(product, made), Product(rest.negative, over, rest.under)


def _alike(one: Side, other: Side) -> bool:
    """Whether two products read the same operand in the same way."""
    return one.node is other.node and one.labels == other.labels


def _of_rows(product: Product) -> bool:
    return all(map(is_uniform, (*product.over, *product.under)))


def _consume(square: Node, product: Producer) -> Consumer:
    """square @ the product's second operand."""
    side = product.cols
    lead = [label for label in side.labels if label >= 0]
    batch = tuple([side.labels.index(label) for label in lead])
    contract = ((square.type.rank - 1,), (side.labels.index(POSITION),))
    made = as_consumer(ops.dot_general(square, side.node, contract, (tuple(lead), batch)), 0)
    assert made is not None
    return made


def _row_dot(product: Producer, consumer: Consumer) -> Node:
    """For each row: the product's first operand times the consumer's result."""
    rank = product.node.type.rank
    a, o = (_in_order(side, rank) for side in (product.rows, consumer.result))
    return ops.reduce_sum(ops.mul(a, o), (rank - 1,))


def _in_order(side: Side, rank: int) -> Node:
    """The operand as [lead..., position, feature]."""
    order = [*range(rank - 2), POSITION, FEATURE]
    return ops.transpose(side.node, tuple([side.labels.index(label) for label in order]))


def _scaled(rows: Node, product: Product) -> Node:
    """Rows times factors that were spread along the last axis."""
    for counter, combine in ((product.over, ops.mul), (product.under, ops.div)):
        for node in counter.elements():
            rows = combine(rows, _row(node, rows.shape))
    return ops.neg(rows) if product.negative else rows


def _row(node: Node, shape: Shape) -> Node:
    """A broadcast without its last axis."""
    source: Node = node.inputs[0]
    dims: Sequence[int] = node.attrs.dims
    return ops.broadcast(source, shape, tuple(dims))
