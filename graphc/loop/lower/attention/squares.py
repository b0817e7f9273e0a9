"""Squares: values [..., rows, cols] that contractions make (scores) and use up (attention).

A *producer* is a dot_general whose result is a square: its last two axes are a free axis of each operand. A
*consumer* is a dot_general that contracts one of the two axes of a square operand. The square itself, and all
elementwise values between, are as large as rows * cols, while the operands on either side are not: blocks of
squares can be computed where they are used up, and never be stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.analysis.product import behind_reshapes, is_uniform
from graphc.ir.node import Kind, Node
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr

POSITION, FEATURE = -1, -2  # labels of the dims of a side that are not leading axes of the square


@dataclass(frozen=True, eq=False)
class Side:
    """An operand (or the result) of a product with a square, as [batch, position, feature].

    labels: for each dim of the node, the number of the square's leading axis it runs along, or POSITION,
    or FEATURE
    """

    node: Node
    labels: tuple[int, ...]

    @property
    def features(self) -> int:
        return self.node.shape[self.labels.index(FEATURE)]

    @property
    def positions(self) -> int:
        return self.node.shape[self.labels.index(POSITION)]

    def at(self, lead: Sequence[Expr], position: Expr, feature: Expr) -> ix.Index:
        """The index of an element of the node."""
        named = {POSITION: position, FEATURE: feature}
        return tuple([lead[label] if label >= 0 else named[label] for label in self.labels])


@dataclass(frozen=True, eq=False)
class Producer:
    """square[lead, i, j] = sum over d of rows[lead, i, d] * cols[lead, j, d]."""

    node: Node
    rows: Side
    cols: Side

    @property
    def lead(self) -> Shape:
        return self.node.shape[:-2]


@dataclass(frozen=True, eq=False)
class Consumer:
    """result[lead, p, e] = sum over q of square[lead, p, q] * other[lead, q, e], or with p and q exchanged.

    over_cols: the sum runs over the columns of the square
    """

    node: Node
    square: Node
    over_cols: bool
    other: Side
    result: Side

    @property
    def lead(self) -> Shape:
        return self.square.shape[:-2]


def as_producer(node: Node) -> Producer | None:
    """`node` as the maker of a square; None if it is not one."""
    if node.kind is not Kind.CONTRACT or node.type.rank < 2:
        return None
    a, b = node.inputs
    contract, batch = node.attrs.contract, node.attrs.batch
    free_a, free_b = (node.attrs.free(side, x.type.rank) for side, x in enumerate((a, b)))
    if len(contract[0]) != 1 or len(free_b) != 1 or not free_a:
        return None
    rank = node.type.rank
    numbers = {rank - 2: POSITION, rank - 1: POSITION}  # result dim -> label; each operand has one of the two
    labels = []
    for side, (x, free, first) in enumerate(((a, free_a, len(batch[0])), (b, free_b, rank - 1))):
        found = dict.fromkeys(contract[side], FEATURE)
        found.update((d, i) for i, d in enumerate(batch[side]))
        found.update((d, numbers.get(first + i, first + i)) for i, d in enumerate(free))
        labels.append(tuple([found[d] for d in range(x.type.rank)]))
    return Producer(node, Side(a, labels[0]), Side(b, labels[1]))


def as_consumer(node: Node, side: int) -> Consumer | None:
    """`node` as a user of the square that is its operand `side`; None if it is not one."""
    if node.kind is not Kind.CONTRACT:
        return None
    square, other = node.inputs[side], node.inputs[1 - side]
    rank, attrs = square.type.rank, node.attrs
    free, their_free = attrs.free(side, rank), attrs.free(1 - side, other.type.rank)
    if len(attrs.contract[side]) != 1 or len(their_free) != 1 or rank < 2:
        return None
    (over,) = attrs.contract[side]
    kept = 2 * rank - 3 - over  # the other one of the last two
    if over < rank - 2 or kept not in free:
        return None
    theirs = {attrs.contract[1 - side][0]: POSITION, their_free[0]: FEATURE}
    theirs.update(zip(attrs.batch[1 - side], attrs.batch[side], strict=True))
    ours = [POSITION if d == kept else d for d in free]
    ends = (ours, [FEATURE]) if side == 0 else ([FEATURE], ours)
    result = (*attrs.batch[side], *ends[0], *ends[1])
    return Consumer(
        node,
        square,
        over == rank - 1,
        Side(other, tuple([theirs[d] for d in range(other.type.rank)])),
        Side(node, tuple(result)),
    )


@dataclass(frozen=True)
class Space:
    """The axes that all squares of an attention share."""

    batch: int
    rows: int
    cols: int

    def holds(self, node: Node) -> bool:
        """Whether a value is a square of this space."""
        shape = node.shape
        return shape[-2:] == (self.rows, self.cols) and math.prod(shape[:-2]) == self.batch

    def index(self, shape: Shape, batch: Expr, row: Expr, col: Expr) -> ix.Index:
        """The index in a square of this shape."""
        return (*ix.unflatten(batch, shape[:-2]), row, col)


def space_of(node: Node) -> Space:
    """The space of a square."""
    return Space(math.prod(node.shape[:-2]), node.shape[-2], node.shape[-1])


@dataclass(frozen=True, eq=False)
class Softmax:
    """The numerators of a softmax over the last axis: weight = exp(score - top).

    `top` is the largest score of the row; the weight may have 0 in its place in rows without finite scores.
    """

    score: Node
    top: Node
    weight: Node


def softmax_of(weight: Node) -> Softmax | None:
    """The softmax whose numerators `weight` is; None if it is something else."""
    rank = weight.type.rank
    if weight.op.name != "exp" or weight.inputs[0].op.name != "sub" or rank < 2:
        return None
    score, spread = weight.inputs[0].inputs
    if not _follows_rows(spread):
        return None
    top = _finite_top(behind_reshapes(spread.inputs[0]))
    if top.op.name != "reduce_max" or top.inputs[0] is not score or top.attrs.axes != (rank - 1,):
        return None
    return Softmax(score, top, weight)


def _follows_rows(node: Node) -> bool:
    """Whether a value is a broadcast, along the last axis, of one number for each row."""
    if not is_uniform(node):
        return False
    return all(node.shape[d] == 1 for d in node.attrs.new_axes if d != node.type.rank - 1)


def is_total(node: Node, softmax: Softmax) -> bool:
    """Whether `node` is the denominator of a softmax."""
    axes = (softmax.weight.type.rank - 1,)
    return node.op.name == "reduce_sum" and node.inputs[0] is softmax.weight and node.attrs.axes == axes


def _finite_top(node: Node) -> Node:
    """The maximum behind `0 where it is -inf`, a guard against rows without any finite score."""
    if node.op.name != "select":
        return node
    test, zero, top = node.inputs
    guards = test.op.name == "eq" and top in test.inputs and any(map(is_minus_infinity, test.inputs))
    return behind_reshapes(top) if guards and is_zero(zero) else node


def constant_value(node: Node) -> float | None:
    """The number that a value is everywhere; None if it is not a constant of one element."""
    while node.op.name in ("broadcast", "reshape"):
        node = node.inputs[0]
    if node.kind is not Kind.CONSTANT or node.type.size != 1:
        return None
    return node.attrs.array.item()


def is_minus_infinity(node: Node) -> bool:
    return constant_value(node) == -math.inf


def is_zero(node: Node) -> bool:
    return constant_value(node) == 0
