"""Layout: convolutions of a network in inference keep their channels last, if that is faster.

All of them then compute [N, *S, C]; what is elementwise on their results, pools them or puts them side by
side does the same, and all others read them through a transposing view. Vectors run along channels, of which
there are many in every layer, and not along pixels, of which there are few in the last ones and which
strides and borders disturb; neighbouring rows of an image stay neighbours in memory. The lowering's cost
models decide: Winograd's algorithm, for one, wants pixels together.

Needs: a graph of which autodiff is done. Leaves: an equal graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet

from graphc import ops
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Attrs, Kind, Node, make, set_site, site_of
from graphc.ir.types import TensorType
from graphc.loop.lower.convolution.channels import is_depthwise, reads_elements
from graphc.loop.lower.ways import forward_cost
from graphc.ops.constant import input_
from graphc.ops.conv import CONV, channels_last
from graphc.ops.reduce import ReduceAttrs
from graphc.ops.spread import Axes
from graphc.ops.view import inverse
from graphc.passes import simplify
from graphc.program import Machine

WORTH = 0.95  # part of the cycles at which another layout is worth it
TURNED = 2.0  # cycles to read an element in another order than that of memory


def run(graph: Graph, machine: Machine, fixed: AbstractSet[Node]) -> Graph:
    """Rewrite the graph; the same graph if its convolutions stay as they are. `fixed` inputs seldom
    change."""
    if not machine.layout or not _may_turn(graph):
        return graph
    first, last = _cycles(graph, machine, fixed)
    if last > WORTH * first:
        return graph
    new = rewritten(graph)
    return new if last + _turning(new) <= WORTH * (first + _turning(graph)) else graph


def rewritten(graph: Graph) -> Graph:
    """The graph with channels last in all of its convolutions, which must be forward ones."""
    rewriter = _Rewriter()
    for node in graph.nodes:
        rewriter.visit(node)
    return simplify.run(graph.with_outputs([rewriter.plain(n) for n in graph.outputs]))


def _may_turn(graph: Graph) -> bool:
    """Whether all convolutions are forward ones, over two or more spatial dims, and some depthwise: with
    tiles and Winograd's algorithm alone pixels do as well as channels, and nothing would be gained."""
    convs = [n for n in graph.nodes if n.kind is Kind.CONV]
    plain = (n.op.name == "conv" and not n.attrs.last and n.type.rank > 3 and n.dtype.is_float for n in convs)
    return all(plain) and all(n.type.size for n in convs) and any(is_depthwise(n) for n in convs)


def _cycles(graph: Graph, machine: Machine, fixed: AbstractSet[Node]) -> tuple[float, float]:
    """What the convolutions of a graph take as they are, and with channels last."""
    convs = [n for n in graph.nodes if n.kind is Kind.CONV]
    alike = Counter([(n.inputs[0].type, n.inputs[1].type, n.attrs, n.inputs[1] in fixed) for n in convs])
    first = last = 0.0
    for (x, w, attrs, steady), times in alike.items():
        turned = TensorType(tuple([x.shape[d] for d in _to_last(x.rank)]), x.dtype)
        first += times * _cost(x, w, attrs, steady, machine)
        last += times * _cost(turned, w, channels_last(attrs), steady, machine)
    return first, last


def _turning(graph: Graph) -> float:
    """Cycles of reading values in another order than they have in memory."""
    total = 0.0
    for node in graph.nodes:
        if node.op.name == "transpose" and node.type.rank > 3:
            perm, there = node.attrs.perm, _to_last(node.type.rank)
            readers = graph.users[node]
            image = readers and all(n.kind is Kind.CONV and reads_elements(n) for n in readers)
            if perm in (there, inverse(there)) and not image:
                total += TURNED * node.type.size
    return total


def _cost(x: TensorType, w: TensorType, attrs: Attrs, steady: bool, machine: Machine) -> float:
    """Cycles of a convolution by itself; `steady`: its weight is fixed."""
    return forward_cost(make(CONV, (input_("x", x), input_("w", w)), attrs), machine, steady)


def _to_last(rank: int) -> Axes:
    """The permutation that brings channels behind the other dims."""
    return (0, *range(2, rank), 1)


class _Rewriter:
    """`first` holds values in the order of the graph, `last` those with channels last; one of the two is
    computed, the other a view of it."""

    def __init__(self) -> None:
        self.first: dict[Node, Node] = {}
        self.last: dict[Node, Node] = {}
        self.computed: set[Node] = set()  # nodes that are computed with channels last

    def visit(self, node: Node) -> None:
        """Rewrite a node whose operands are rewritten."""
        new = self._with_channels_last(node)
        if new is not None:
            self.last[node] = new
            self.computed.add(node)
        else:
            new = self.first[node] = self._mean(node) or rebuild(node, self._plain_inputs(node))
        if new is not node:
            set_site(new, site_of(node))

    def plain(self, node: Node) -> Node:
        """The value in the order of the graph."""
        if node not in self.first:
            last = self.last[node]
            self.first[node] = ops.transpose(last, inverse(_to_last(last.type.rank)))
        return self.first[node]

    def _plain_inputs(self, node: Node) -> tuple[Node, ...]:
        return tuple([self.plain(x) for x in node.inputs])

    def _turned(self, node: Node) -> Node:
        """The value with channels last."""
        if node not in self.last:
            self.last[node] = ops.transpose(self.first[node], _to_last(node.type.rank))
        return self.last[node]

    def _with_channels_last(self, node: Node) -> Node | None:
        """The node as one with channels last; None if it stays as it is."""
        if node.kind is Kind.CONV:
            x, w = node.inputs
            return make(node.op, (self._turned(x), self.plain(w)), channels_last(node.attrs))
        if node.kind is Kind.REDUCE:
            return self._pooled(node)
        if self.computed.isdisjoint(node.inputs):
            return None
        if node.kind is Kind.ELEMENTWISE:
            return rebuild(node, tuple([self._turned(x) if x.shape else self.plain(x) for x in node.inputs]))
        if node.op.name == "concat":
            axis = _to_last(node.type.rank).index(node.attrs.axis)
            return ops.concat([self._turned(x) for x in node.inputs], axis)
        return None

    def _pooled(self, node: Node) -> Node | None:
        """A reduction of windows of a value with channels last."""
        axes = getattr(node.attrs, "axes", ())
        source = node.inputs[0]
        while source.kind is Kind.VIEW and source not in self.computed and len(source.inputs) == 1:
            source = source.inputs[0]
        x = node.inputs[0]
        kept = [d for d in range(x.type.rank) if d not in axes]
        if source not in self.computed or source is x or len(kept) < 3 or kept[:2] != [0, 1]:
            return None
        if x.shape[:2] != source.shape[:2] or kept != list(range(len(kept))):
            return None
        turned = ops.transpose(self.plain(x), (0, *kept[2:], 1, *axes))
        return make(node.op, (turned,), ReduceAttrs(tuple(range(len(kept), x.type.rank))))

    def _mean(self, node: Node) -> Node | None:
        """A reduction over all places of a value with channels last."""
        axes = getattr(node.attrs, "axes", ())
        if node.kind is not Kind.REDUCE or self.computed.isdisjoint(node.inputs):
            return None
        (x,) = node.inputs
        if axes != tuple(range(2, x.type.rank)):
            return None
        return make(node.op, (self.last[x],), ReduceAttrs(tuple([a - 1 for a in axes])))
