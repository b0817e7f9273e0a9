"""What a loop need not do: parts of its body that are done for all steps at once, before or after it.

Ahead: what depends on xs alone and takes work (the input projection of a recurrent layer, a lookup of
embeddings, a check of indices). Behind: what no carry depends on (the output projection). Cheap work stays
where it is, since memory between the parts costs more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from graphc.ir.graph import depending, rebuild, toposort
from graphc.ir.node import Kind, Node, set_site, site_of
from graphc.ops.batching import batch, can_batch
from graphc.ops.constant import input_

_CHEAP = frozenset({Kind.ELEMENTWISE, Kind.VIEW, Kind.BARRIER, Kind.GENERATE, Kind.CONSTANT})
_ALWAYS = frozenset({Kind.CONTRACT, Kind.CONV, Kind.GATHER, Kind.CHECK})  # worth any memory
_DEAR = 8.0  # scalar operations from which on an elementwise op counts as work
_PLAIN = frozenset({"broadcast", "transpose", "slice", "reshape", "flip"})  # views of one value
_WHOLE = frozenset({"broadcast", "transpose", "reshape"})  # views that show all of it


def takes_work(node: Node) -> bool:
    """Whether a value is worth some memory, if it need not be computed again for that."""
    return node.kind not in _CHEAP or node.op.cost >= _DEAR


class Stacks:
    """Values of all steps at once: given ones, and what is computed from them."""

    def __init__(self, known: Mapping[Node, Node], varying: AbstractSet[Node], length: int) -> None:
        self.known = dict(known)
        self.varying = varying
        self.length = length

    def of(self, wanted: Sequence[Node]) -> list[Node]:
        """The stacks of some nodes for which there are rules all the way down to known stacks."""
        waiting = list(wanted)[::-1]
        while waiting:
            node = waiting[-1]
            missing = [x for x in node.inputs if x in self.varying and x not in self.known]
            if node in self.known or missing:
                waiting.pop() if node in self.known else waiting.extend(missing)
                continue
            waiting.pop()
            operands = [self.known.get(x, x) for x in node.inputs]
            made = batch(node, operands, [x in self.varying for x in node.inputs], self.length)
            assert made is not None, f"{node.op.name} has no batching rule"
            set_site(made, site_of(node))
            self.known[node] = made
        return [self.known[node] for node in wanted]


@dataclass
class Body:
    """A loop under construction: its body as nodes over placeholders, and the stacks of its xs.

    order    the body, and all that it is computed from, in topological order
    varying  the nodes that differ from step to step
    """

    carries: Sequence[Node]
    xs: Sequence[Node]
    stacks: Sequence[Node]
    nexts: Sequence[Node]
    emits: Sequence[Node]
    length: int

    def __post_init__(self) -> None:
        self.order = toposort((*self.nexts, *self.emits))
        self.varying = depending(self.order, {*self.carries, *self.xs})

    def can_move(self, node: Node) -> bool:
        """Whether a varying node could be computed for all steps at once."""
        return can_batch(node, [x in self.varying for x in node.inputs])


def move_ahead(body: Body) -> Body:
    """The body without the work that depends on xs alone: its results are xs of their own."""
    carried = depending(body.order, set(body.carries))
    movable = set(body.xs)
    heavy: dict[Node, None] = {}
    for node in body.order:
        if node not in body.varying or node in carried or node in movable or not body.can_move(node):
            continue
        if all(x in movable for x in node.inputs if x in body.varying):
            movable.add(node)
            if takes_work(node) or (node.op.name not in _PLAIN and any(x in heavy for x in node.inputs)):
                heavy[node] = None
    read = {*body.nexts, *body.emits}
    read.update(x for node in body.order if node in body.varying and node not in heavy for x in node.inputs)
    moved = [node for node in heavy if node in read]
    if not moved:
        return body
    known = dict(zip(body.xs, body.stacks, strict=True))
    stacks = Stacks(known, body.varying, body.length).of(moved)
    names = {node: input_(f"ahead{i}", node.type) for i, node in enumerate(moved)}
    new = replaced(body.order, names)
    return Body(
        body.carries,
        [*body.xs, *names.values()],
        [*body.stacks, *stacks],
        [new[node] for node in body.nexts],
        [new[node] for node in body.emits],
        body.length,
    )


def replaced(order: Sequence[Node], by: Mapping[Node, Node]) -> dict[Node, Node]:
    """The nodes of a topological order with some of them replaced."""
    new: dict[Node, Node] = {}
    for node in order:
        new[node] = by[node] if node in by else rebuild(node, tuple([new[x] for x in node.inputs]))
        if new[node] is not node:
            set_site(new[node], site_of(node))
    return new


def needed_behind(body: Body) -> list[Node]:
    """The nodes that a loop must emit, so that its emits can be computed behind it from those and xs."""
    inside = set(toposort(body.nexts))
    behind = _behind(body, inside)
    given = {*body.xs, *behind}
    read = [x for node in body.order if node in behind for x in node.inputs]
    return [x for x in dict.fromkeys((*body.emits, *read)) if x in body.varying and x not in given]


def _behind(body: Body, inside: AbstractSet[Node]) -> set[Node]:
    """What is computed behind the loop: values that no carry needs, and all that is computed from them."""
    movable: set[Node] = set()
    blocked: set[Node] = set()  # read by something that stays
    for node in reversed(body.order):
        late = node in body.varying and node not in inside and bool(node.inputs)
        if late and node not in blocked and body.can_move(node):
            movable.add(node)
        else:
            blocked.update(node.inputs)
    stacked = {*body.xs, *[emit for emit in body.emits if emit not in movable]}
    behind: set[Node] = set()
    for node in body.order:
        if node in movable and _is_worth(node, body.varying, stacked, behind):
            behind.add(node)
    return behind


def _is_worth(
    node: Node, varying: AbstractSet[Node], stacked: AbstractSet[Node], behind: AbstractSet[Node]
) -> bool:
    """Whether a node goes behind: `stacked` is emitted anyway, `behind` has gone there."""
    if node.kind in _ALWAYS or not behind.isdisjoint(node.inputs):
        return True
    missing = {x for x in node.inputs if x in varying and x not in stacked}
    if not missing:
        return True
    saves = takes_work(node) or node.op.name in _WHOLE
    return saves and sum(x.type.nbytes for x in missing) <= node.type.nbytes
