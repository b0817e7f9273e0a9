"""Fusion: a partition of an untouched graph into groups that become one kernel each (or a few).

Members are visited in topological order; each joins the clusters of the values it reads where one loop nest
can compute them together (`fit.py`) and the quotient stays acyclic (`clusters.py`). Views, constants and
cheap values belong to every group that reads them (`roles.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from math import prod

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group, Partition
from graphc.loop.lower.attention import is_attention
from graphc.loop.lower.evaluate import LoweringError
from graphc.loop.lower.reductions.rows import probe
from graphc.loop.lower.structure import structure
from graphc.ops.scan import key_of, siblings
from graphc.passes import attention
from graphc.passes.clusters import Quotient, bits
from graphc.passes.fit import Fit, Fitter
from graphc.passes.roles import ANCHORS, CHEAP, Roles, assign
from graphc.passes.shed import shed
from graphc.program import Machine

MOST = 256  # members of a cluster: the time to compile a kernel grows faster than its length
FEW = 256  # loops over no more elements are merged even if they share nothing
CROSSED = 16  # fewer rows are not added up while they are swept
PLACES = 64  # for each value of a cluster: most places where it is read that are counted; more are too many
SUMMED = 64  # bytes of cache for each element of a row that is swept while rows are added up
FELLOWS = 4  # most clusters with which a reduction may share nothing but an operand that are tried


def partition(graph: Graph, machine: Machine, recompute: AbstractSet[Node] = frozenset()) -> Partition:
    """Ordered groups that together compute the graph's outputs.

    Every value read outside its group is an output of exactly one group; groups are convex and their
    quotient is acyclic. Inputs and constants that are outputs of the graph themselves are in no group.

    `recompute` names values that are better computed again by their readers than stored (`remat.decide`).
    """
    alone: set[Node] = set()
    while True:
        groups = _groups(graph, machine, recompute, alone)
        bad = {n for g in groups if not _lowers(g) for n in g.nodes if n.kind is Kind.REDUCE}
        if bad <= alone:
            return Partition(graph, tuple(groups))
        alone |= bad  # what was put together with them finds other company


def _groups(
    graph: Graph, machine: Machine, recompute: AbstractSet[Node], alone: AbstractSet[Node]
) -> list[Group]:
    """The groups, with the nodes in `alone` in groups of their own."""
    attentions = attention.find(graph)
    roles = assign(graph, attentions.inner, attentions.inner.union(*attentions.clusters))
    fusion = _Fusion(graph, roles, Fitter(graph, roles, machine, alone), attentions)
    fusion.run()
    fusion.join_together()
    again = shed(graph, roles, fusion.quotient.home, fusion.fitter.sources, recompute).again
    fusion.join_fellows(again)
    fusion.join_crossing(again)
    fusion.join_readers(again)
    fusion.join_small()
    clusters = [fusion.quotient.members[c] for c in fusion.quotient.order()]
    groups = build_groups(graph, roles, clusters, again)
    return groups + [_renaming(node, base) for node, base in roles.aliases.items()]


def _renaming(node: Node, base: Node) -> Group:
    """The group of an output that is `base` in another shape."""
    chain = [node]
    while chain[-1].inputs[0] is not base:
        chain.append(chain[-1].inputs[0])
    return Group(tuple(chain[::-1]), (base,), (node,))


class _Fusion:
    """The greedy pass: state of the clusters so far."""

    def __init__(self, graph: Graph, roles: Roles, fitter: Fitter, attentions: attention.Found) -> None:
        self.graph, self.roles = graph, roles
        self.together = {n: cluster for cluster in attentions.clusters for n in cluster}
        self.fitter = fitter
        self.quotient = Quotient()
        self.fits: dict[int, Fit] = {}
        self.readers = self.fitter.readers
        self.outputs = frozenset(roles.results)
        self.results = siblings(graph.nodes)

    def run(self) -> None:
        for node, sources in self.fitter.sources.items():
            at = self.quotient.add(node, sources)
            if node in self.together:
                self.fits[at] = Fit("own", node.type.size, {node: ()})
                continue
            self.fits[at] = self.fitter.start(node)
            if node.kind is Kind.SCAN:
                self._join_loop(node)
                continue
            for other in self._candidates(node, sources):
                home = self.quotient.home.get(other)
                at = self.quotient.home[node]
                if home is not None and home != at:
                    self._join(home, at)

    def _join_loop(self, node: Node) -> None:
        """Merge the results of a loop: they share their inputs, so nothing comes between them."""
        first, at = self.quotient.home[self.results[key_of(node)][0]], self.quotient.home[node]
        if first != at:
            self.fits[self.quotient.merge(first, at)] = self.fits.pop(at)
            del self.fits[first]

    def join_together(self) -> None:
        """Merge the members of each attention kernel."""
        for cluster in dict.fromkeys(self.together.values()):
            for node in cluster[1:]:
                first, at = self.quotient.home[cluster[0]], self.quotient.home[node]
                if self.quotient.can_merge(first, at):
                    fit = self.fits.pop(first)
                    self.fits[self.quotient.merge(first, at)] = fit

    def join_fellows(self, again: AbstractSet[Node]) -> None:
        """Merge clusters of reductions over the same elements of the same value."""
        found: dict[tuple, list[int]] = {}
        for at in sorted(self.quotient.members):
            fit = self.fits[at]
            if fit.kind == "row" and fit.spaces:
                _, inputs = _closure(self.quotient.members[at], self.roles, self.graph, again)
                for key in [(space, s) for space in fit.spaces for s in inputs if s.type.size >= fit.size]:
                    found.setdefault(key, []).append(at)
        for (space, source), clusters in found.items():
            if source.type.size * 4 < prod(space[0]):
                continue
            last = clusters[0]
            for at in clusters[1:]:
                if at in self.fits and last in self.fits and at != last:
                    self._join(last, at)
                last = at if at in self.fits else last

    def join_crossing(self, again: AbstractSet[Node]) -> None:
        """Merge reductions across the rows of a cluster into it if they read what it reads: one pass over
        memory for both (the gradients of a norm's input and of its weights)."""
        fits = {at: self.fits[at] for at in sorted(self.quotient.members) if self.fits[at].kind == "row"}
        along = {at: fit.rows_along() for at, fit in fits.items()}
        for last, fit in fits.items():
            key = fit.rows_across()
            for first in [at for at, other in along.items() if key is not None and other == key]:
                if self._crosses(first, last, again):
                    self.quotient.merge(last, first)
                    del self.fits[last]
                    break

    def _crosses(self, first: int, last: int, again: AbstractSet[Node]) -> bool:
        """Whether `last`, which reduces across the rows of `first`, reads what it reads, and may join it."""
        rows, elements = self.fits[last].rows_across() or (0, 0)
        if rows < CROSSED or elements * SUMMED > self.fitter.machine.l2_bytes:
            return False
        if not self.quotient.can_merge(first, last):
            return False
        along, across = self.quotient.members[first], self.quotient.members[last]
        known = {n for part in _closure(along, self.roles, self.graph, again) for n in part}
        _, read = _closure(across, self.roles, self.graph, again)
        terms = [m for m in across if m.type.size > elements]  # must not be stored
        shares = any(s in known for s in read if s.type.size == rows * elements)
        if not shares or not self._only_reader(terms, across):
            return False
        members = sorted([*along, *across], key=self.graph.index.__getitem__)
        nodes, inputs = _closure(members, self.roles, self.graph, again)
        group = Group(nodes, inputs, tuple([m for m in members if not self._only_reader([m], members)]))
        return _lowers(group)

    def join_readers(self, again: AbstractSet[Node]) -> None:
        """Merge independent loops over the elements of a value that no cache holds: it is read once."""
        last: dict[Node, int] = {}
        for at in sorted(self.quotient.members):
            fit = self.fits[at]
            if fit.kind != "point":
                continue
            _, inputs = _closure(self.quotient.members[at], self.roles, self.graph, again)
            of_points = [s for s in inputs if s.type.size == fit.size]
            large = [s for s in of_points if s.type.nbytes > self.fitter.machine.l2_bytes]
            for before in dict.fromkeys(last[s] for s in large if s in last):
                if before in self.fits and self.fits[before].kind == "point":
                    self._join(before, at)
            last.update(dict.fromkeys(large, at))

    def join_small(self) -> None:
        """Merge independent loops over a few elements (counters, scalars of an optimizer): fewer calls."""
        last: dict[int, int] = {}
        for at in sorted(self.quotient.members):
            fit = self.fits[at]
            if fit.kind == "point" and 0 < fit.size <= FEW:
                if fit.size in last:
                    self._join(last[fit.size], at)
                last[fit.size] = at

    def _candidates(self, node: Node, sources: Sequence[Node]) -> list[Node]:
        """What `node` may join, best first: operands by size (of equal ones the one whose loops are longer),
        then other reductions of the same operand."""
        order = sorted(sources, key=lambda s: (-s.type.nbytes, -self._swept(s)))
        if node.kind is Kind.REDUCE:
            for s in order:
                homes = {self.quotient.home[r]: r for r in self.readers[s] if r in self.quotient.home}
                rows = [r for at, r in homes.items() if self.fits[at].kind == "row" and r is not node]
                order = [*order, *rows[:FELLOWS]]
        return order

    def _swept(self, value: Node) -> int:
        """Elements that the reductions of a value's cluster run over."""
        at = self.quotient.home.get(value)
        return 0 if at is None else max([prod(shape) for shape, _ in self.fits[at].spaces], default=0)

    def _join(self, a: int, b: int) -> None:
        """Merge cluster `a`, which comes first, with `b`, if that is possible and good."""
        members = self.quotient.members
        if len(members[a]) + len(members[b]) > MOST or not self.quotient.can_merge(a, b):
            return
        if self._parts(a, b) or self._parts(b, a):
            return
        fit = self._merged(a, b)
        if fit is not None:
            self.fits[self.quotient.merge(a, b)] = fit
            del self.fits[a]

    def _parts(self, after: int, before: int) -> bool:
        """Whether merging two clusters of a few values comes between larger ones that could be merged: what
        `after` reads is computed with a value that is read again by somebody who waits for `before` only.

        The mean of a loss waits for the losses, the number of labels for nothing: if both are added up in one
        loop, the gradient waits for the losses, and the rows that led to them are read from memory again.
        """
        if self.fits[after].size > FEW or self.fits[before].size > FEW:
            return False
        graph, quotient = self.graph, self.quotient
        index, ancestors = graph.index, graph.ancestors
        late, early = (sum(1 << index[m] for m in quotient.members[c]) for c in (after, before))
        members = [*quotient.members[after], *quotient.members[before]]
        read = sum(s.type.nbytes for m in members for s in self.fitter.sources[m])
        above = quotient.direct[after] & ~quotient.above[before] & ~(1 << before)
        for m in [m for c in bits(above) for m in quotient.members[c] if m.type.nbytes > read]:
            readers = [ancestors[index[r]] for r in self.readers.get(m, ())]
            if any(a & early and not a & late for a in readers):
                return True
        return False

    def _merged(self, a: int, b: int) -> Fit | None:
        first, last = self.fits[a], self.fits[b]
        if "own" in (first.kind, last.kind):
            return None
        members = (self.quotient.members[a], self.quotient.members[b])
        may_inline = first.kind == "point" and self._only_reader(*members)
        if may_inline and self._worth_inlining(first, *members) and self._again(a, b) <= CHEAP:
            return self.fitter.inline(first, last, members[0])
        if len(members[1]) == 1 and not last.inlined and members[1][0].kind not in ANCHORS:
            direct = self.fitter.admit(first, members[1][0])
            if direct is not None or self.quotient.direct[b] >> a & 1:
                return direct
        if "anchor" in (first.kind, last.kind) and not self._free_of_anchor(*members):
            return None
        return self.fitter.union(first, last, [*members[0], *members[1]])

    def _only_reader(self, part: Sequence[Node], rest: Sequence[Node]) -> bool:
        """Whether nobody but `rest` reads what `part` computes."""
        allowed = {*part, *rest}
        return all(m not in self.outputs and allowed.issuperset(self.readers.get(m, ())) for m in part)

    def _worth_inlining(self, fit: Fit, part: Sequence[Node], rest: Sequence[Node]) -> bool:
        """Whether computing `part` where it is read costs little more than computing it once."""
        if any(n.kind in ANCHORS for n in rest):
            reading = {n for m in part for n in self.readers.get(m, ())} - set(part)
            if any(n.kind in ANCHORS for n in reading):
                return False
        points = max(max(n.type.size, *[x.type.size for x in n.inputs], 0) for n in rest)
        cost = sum(m.op.cost for m in part)
        return points <= 1.01 * fit.size or cost <= CHEAP

    def _again(self, a: int, b: int) -> float:
        """Scalar operations for each of its elements that cluster `a` costs in excess of being computed once,
        if `b` computes it where it reads it: through views that lead to several places of it from one point.
        (Running products by doubling read each value at two places, which are two each of the next ...) What
        is repeated over more points is not counted (see `_worth_inlining`)."""
        inside = {*self.quotient.members[a], *self.fits[a].inlined}
        free, inlined = self.roles.free, self.fits[b].inlined
        times: dict[Node, int] = dict.fromkeys(inside, 0)
        roots = [x for n in self.quotient.members[b] for x in n.inputs]
        stack: list[tuple[Node, tuple[Node, ...], int]] = [(x, (), x.type.size) for x in roots]
        seen: set[tuple[Node, tuple[Node, ...]]] = set()
        while stack:
            x, way, points = stack.pop()
            if (x, way) in seen or not (x in inside or x in free or x in inlined):
                continue
            seen.add((x, way))
            if len(seen) > PLACES * len(inside):
                return math.inf
            if x in inside:
                times[x] += points
            if x.kind is Kind.VIEW:
                way, points = (*way, x), min(points, x.type.size)
            stack += [(y, way, min(points, y.type.size)) for y in x.inputs]
        more = {n: count / max(n.type.size, 1) - 1.0 for n, count in times.items()}
        return sum(self._cost(n) * extra for n, extra in more.items() if extra > 0.0)

    def _cost(self, member: Node) -> float:
        """Scalar operations for an element of a member, and for the free values that it is made of."""
        return member.op.cost + sum(self.roles.cost.get(x, 0.0) for x in dict.fromkeys(member.inputs))

    def _free_of_anchor(self, a: Sequence[Node], b: Sequence[Node]) -> bool:
        """Whether no contraction among the members reads another member as an operand."""
        index, ancestors = self.graph.index, self.graph.ancestors
        both = sum(1 << index[n] for n in (*a, *b))
        anchors = [n for n in (*a, *b) if n.kind in ANCHORS]
        return len(anchors) <= 1 and all(not (ancestors[index[n]] & both) & ~(1 << index[n]) for n in anchors)


# ----------------------------------------------------------------------------- groups


def build_groups(
    graph: Graph, roles: Roles, clusters: Sequence[Sequence[Node]], again: AbstractSet[Node] = frozenset()
) -> list[Group]:
    """Groups of clusters of members, each with the free nodes that it evaluates.

    `again`: members of other clusters that a cluster computes for itself.
    """
    home = {n: i for i, members in enumerate(clusters) for n in members}
    outside = {n for n in roles.results if n in home}
    closures = [_closure(members, roles, graph, again) for members in clusters]
    for _, inputs in closures:
        outside.update(inputs)
    groups = []
    for members, (nodes, inputs) in zip(clusters, closures, strict=True):
        ordered = sorted(members, key=graph.index.__getitem__)
        outputs = tuple([n for n in ordered if n in outside])
        if outputs:
            groups.append(Group(nodes, inputs, outputs))
    return groups


def _closure(
    members: Sequence[Node], roles: Roles, graph: Graph, again: AbstractSet[Node]
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """(the members and the free nodes they read, in topological order; the values read from memory)."""
    inside = set(members)
    inputs: dict[Node, None] = {}
    stack = [x for n in reversed(members) for x in reversed(n.inputs)]
    while stack:
        n = stack.pop()
        if n in inside or n in inputs:
            continue
        if n in roles.free or n in again:
            inside.add(n)
            stack.extend(reversed(n.inputs))
        else:
            inputs[n] = None
    nodes = tuple(sorted(inside, key=graph.index.__getitem__))
    return nodes, tuple(inputs)


_REMEMBERED = 4096
_known: dict[tuple, bool] = {}  # by structure: equal groups are lowered once


def _lowers(group: Group) -> bool:
    """Whether the loops of a group with reductions can be found."""
    if is_attention(group):
        return True
    reductions = [n for n in group.nodes if n.kind is Kind.REDUCE]
    if not reductions or tuple(reductions) == group.outputs == group.outputs[:1]:
        return True
    key, _ = structure(group)
    found = _known.get(key)
    if found is None:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        found = _known[key] = _finds_rows(group)
    return found


def _finds_rows(group: Group) -> bool:
    try:
        probe(group)
    except LoweringError:
        return False
    return True
