"""Attention in a graph: the softmax between two contractions, and what its gradient adds.

Scores, weights and their gradients are *squares* (`loop/lower/attention/squares.py`): far larger than the
operands they are made of, and used up by contractions. If every square that follows from the scores is used
up, none needs to be stored: each contraction computes its blocks of squares again. That is what this file
decides, for any mask, scale, bias or dropout, wherever the user wrote it. Where something else reads a square
(attention weights that are returned, the gradient of a bias), the whole attention is left to the ordinary
partition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.loop.lower.attention import followers
from graphc.loop.lower.attention.forward import weights_of
from graphc.loop.lower.attention.squares import (
    Consumer,
    Softmax,
    Space,
    as_consumer,
    as_producer,
    is_total,
    softmax_of,
    space_of,
)

LEAST_ROWS, LEAST_COLS = 8, 16  # smaller squares are not worth blocks of their own
MOST_DEPTH = 256  # products with longer sums (and longer than a row of scores) are not computed twice
JOINT = 8  # batch elements from which all gradients are computed in one walk, each element by one task

_WALKED = frozenset({Kind.ELEMENTWISE, Kind.VIEW, Kind.GENERATE})


@dataclass(eq=False)
class Found:
    """clusters: members that are computed together; inner: what they compute for themselves."""

    clusters: list[tuple[Node, ...]] = field(default_factory=list)
    inner: set[Node] = field(default_factory=set)


def find(graph: Graph) -> Found:
    """All attentions of a graph whose squares need not be stored."""
    found = Found()
    for node in graph.nodes:
        softmax = softmax_of(node)
        if softmax is None or node in found.inner or not _worth(space_of(softmax.score)):
            continue
        if not softmax.score.dtype.is_float:
            continue
        search = _Search(graph, softmax)
        if search.run():
            found.clusters += search.clusters
            found.inner |= search.inner
    return found


def _worth(space: Space) -> bool:
    return space.rows >= LEAST_ROWS and space.cols >= LEAST_COLS


class _Search:
    """The squares around one softmax."""

    def __init__(self, graph: Graph, softmax: Softmax) -> None:
        self.graph, self.softmax = graph, softmax
        self.space = space_of(softmax.score)
        self.scores = frozenset(self._products([softmax.score], frozenset()))
        self.squares: dict[Node, None] = {}  # values that follow from products
        self.totals: list[Node] = []
        self.consumers: list[Consumer] = []
        self.clusters: list[tuple[Node, ...]] = []
        self.inner: set[Node] = set()

    def run(self) -> bool:
        """Whether all squares are used up; fills `clusters` and `inner`."""
        if not self.scores or not self._follow():
            return False
        forward = self._forward()
        if not forward:
            return False
        ahead = [c.square for c in forward]
        self.inner = {*self.squares, *self._free_squares(), *self._row_values(ahead)}
        if not self.inner.isdisjoint(self.graph.outputs):
            return False
        top = self.softmax.top
        self.clusters.append((top, *self.totals, *[c.node for c in forward]))
        self.clusters += self._backward([c for c in self.consumers if c not in forward])
        return True

    # ------------------------------------------------------------------- squares

    def _products(self, nodes: Iterable[Node], known: Collection[Node]) -> list[Node]:
        """The products that make squares out of less, and lead to `nodes` by elementwise work."""
        found: dict[Node, None] = {}
        seen: set[Node] = set()
        stack = list(nodes)
        while stack:
            n = stack.pop()
            if n in seen or n in known or not self.space.holds(n):
                continue
            seen.add(n)
            made = as_producer(n)
            if made is not None and made.rows.features <= max(MOST_DEPTH, self.space.cols):
                found[n] = None
            elif n.kind in _WALKED:
                stack.extend(n.inputs)
        return list(found)

    def _follow(self) -> bool:
        """Find all squares that follow from products, and their last users; False if one must be stored."""
        users, stack = self.graph.users, list(self.scores)
        self.squares.update(dict.fromkeys(stack))
        while stack:
            square = stack.pop()
            for user in users[square]:
                if user in self.squares or user is self.softmax.top:
                    continue
                if is_total(user, self.softmax):
                    self.totals.append(user)
                elif self._continues(user):
                    new = [user, *self._products(user.inputs, self.squares)]
                    stack += [n for n in new if n not in self.squares]
                    self.squares.update(dict.fromkeys(new))
                elif not self._consumes(user, square):
                    return False
        made = [n for n in self.squares if n.kind is Kind.CONTRACT]
        return not any(x in self.squares for n in made for x in n.inputs)

    def _continues(self, node: Node) -> bool:
        """Whether a user of a square is another square, element by element in the same order."""
        elementwise = node.kind is Kind.ELEMENTWISE or node.op.name == "reshape"
        return elementwise and self.space.holds(node)

    def _consumes(self, node: Node, square: Node) -> bool:
        if node.kind is not Kind.CONTRACT or node.inputs[0] is node.inputs[1]:
            return False
        consumer = as_consumer(node, node.inputs.index(square))
        if consumer is None or consumer.other.node in self.squares:
            return False
        self.consumers.append(consumer)
        return True

    def _free_squares(self) -> set[Node]:
        """Squares that follow from no product (masks, random bits) and that nobody else reads."""
        found: set[Node] = set()
        stack = [x for n in self.squares for x in n.inputs]
        while stack:
            n = stack.pop()
            if n not in found and n not in self.squares and self.space.holds(n) and n.kind in _WALKED:
                found.add(n)
                stack.extend(n.inputs)
        kept: set[Node] = set()
        for n in reversed(self._ordered(found)):
            readers = self.graph.users[n]
            if n not in self.graph.outputs and all(u in kept or u in self.squares for u in readers):
                kept.add(n)
        return kept

    def _row_values(self, squares: Iterable[Node]) -> frozenset[Node]:
        """Elementwise functions of the row statistics on the way to `squares`, which would else stand between
        members of the forward cluster."""
        ends = {self.softmax.top, *self.totals}
        seen: set[Node] = set()
        stack = list(squares)
        while stack:
            n = stack.pop()
            if n not in seen and n not in ends and n.kind in (Kind.ELEMENTWISE, Kind.VIEW):
                seen.add(n)
                stack.extend(n.inputs)
        return followers(self._ordered(seen), frozenset(ends)) - ends

    def _ordered(self, nodes: Iterable[Node]) -> tuple[Node, ...]:
        return tuple(sorted(nodes, key=self.graph.index.__getitem__))

    # ------------------------------------------------------------------ clusters

    def _forward(self) -> list[Consumer]:
        """The consumers of the softmax's weights; empty if they cannot be summed as the weights are made."""
        others = frozenset(n for n in self.squares if as_producer(n) is not None) - self.scores
        later = followers(self._ordered(self.squares), others)
        found, kept = [], None
        for consumer in self.consumers:
            weights = weights_of(consumer.square, self.softmax)
            if weights is None or not consumer.over_cols or consumer.square in later:
                continue
            if any(n in self.squares for n in (*weights.kept.over, *weights.kept.under)):
                continue
            if kept is not None and not kept.equals(weights.kept):
                continue  # another dropout of the same weights
            kept = weights.kept
            found.append(consumer)
        return found

    def _backward(self, consumers: Sequence[Consumer]) -> list[tuple[Node, ...]]:
        """One walk over the squares for all results, or, where batch elements are too few to be the tasks,
        one for sums over rows and one for sums over columns."""
        if self.space.batch >= JOINT:
            parts = [list(consumers)]
        else:
            parts = [[c for c in consumers if c.over_cols == over] for over in (True, False)]
        return [tuple([c.node for c in part]) for part in parts if part]
