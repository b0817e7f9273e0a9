"""Loops turned by half a step, so that arithmetic at the beginning of the body follows a contraction.

The body of a reverse recurrence begins with elementwise arithmetic on carries (the gradients of the gates)
and ends with the contraction that makes the next carry. Two kernels a step, and the first does nothing but
stream what the forward loop saved. Turned, a trip is the contraction of one step and the arithmetic of the
next, which then is the contraction's epilogue:

    first = early(init, x[0])                 for t in range(length - 1):
                                                  carry = late(first, x[t])
                                                  first = early(carry, x[t + 1])

What the contraction of the last step would have made must be wanted by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from graphc.ir.graph import Graph, depending, toposort
from graphc.ir.node import Kind, Node
from graphc.ops.constant import input_
from graphc.ops.scan import Loop, replaced


@dataclass(frozen=True, eq=False)
class Turned:
    """A turned loop.

    cut     values of the body that the early part computes and that leave it
    held    the placeholder of each of them in `body`: the value of this trip's step
    xs      placeholders in `body` of the xs of this trip's step
    after   placeholders in `body` of the xs of the next step
    body    gives the cut values of the next step
    """

    cut: tuple[Node, ...]
    held: tuple[Node, ...]
    xs: tuple[Node, ...]
    after: tuple[Node, ...]
    body: Graph


def turned(loop: Loop, results: Sequence[Node]) -> Turned | None:
    """The loop turned; None if its body does not begin with arithmetic on carries, or if something is wanted
    that the last step computes after that."""
    emits = list(dict.fromkeys(node.attrs.emit for node in results if node.attrs.emit is not None))
    if loop.length < 2 or any(node.attrs.emit is None for node in results):
        return None
    order = toposort((*loop.nexts, *emits))
    varying = depending(order, {*loop.carries, *loop.xs})
    early = _early(loop, order, varying)
    late = [node for node in order if node in varying and node not in early]
    read = [x for node in late for x in node.inputs if x in early and x not in loop.xs]
    cut = tuple(dict.fromkeys((*emits, *read, *[node for node in loop.nexts if node not in late])))
    if not all(node in early and node not in loop.params for node in cut):
        return None
    held = tuple([input_(f"held{i}", node.type) for i, node in enumerate(cut)])
    xs = tuple([input_(f"x{i}", x.type) for i, x in enumerate(loop.xs)])
    after = tuple([input_(f"after{i}", x.type) for i, x in enumerate(loop.xs)])
    now = replaced(order, dict(zip((*loop.xs, *cut), (*xs, *held), strict=True)))
    carries = [now[node] for node in loop.nexts]
    then = replaced(order, dict(zip((*loop.carries, *loop.xs), (*carries, *after), strict=True)))
    outputs = tuple([then[node] for node in cut])
    if len(set(outputs)) < len(outputs):
        return None
    return Turned(cut, held, xs, after, Graph((*held, *xs, *after, *loop.consts), outputs))


def _early(loop: Loop, order: Sequence[Node], varying: AbstractSet[Node]) -> set[Node]:
    """Carries, xs, and what is simple arithmetic on them."""
    early = {*loop.carries, *loop.xs}
    for node in order:
        simple = node in varying and node.kind in (Kind.ELEMENTWISE, Kind.VIEW)
        if simple and all(x in early for x in node.inputs if x in varying):
            early.add(node)
    return early
