"""Building loops: closure conversion of a body given as nodes over placeholders.

What does not depend on the placeholders is computed before the loop, once; numbers, positions and plain views
of such values stay in the body, where they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.graph import rebuild, toposort
from graphc.ir.node import Kind, Node, make, set_site, site_of
from graphc.ir.types import TensorType
from graphc.ops.constant import input_
from graphc.ops.op import fail
from graphc.ops.scan.loop import SCAN, Loop, ScanAttrs
from graphc.ops.spread import broadcast

_PEELED = frozenset({"broadcast", "transpose", "slice"})  # views that a body reads through at no cost
_SMALL = 16  # elements of an array constant that a body holds itself


@dataclass(frozen=True)
class Scanned:
    """The results of a loop: the last values of its carries, and every step's values of its emits."""

    finals: list[Node]
    stacked: list[Node]


def scan(
    carries: Sequence[Node],
    xs: Sequence[Node],
    nexts: Sequence[Node],
    emits: Sequence[Node],
    init: Sequence[Node],
    stacks: Sequence[Node],
    length: int | None = None,
    reverse: bool = False,
) -> Scanned:
    """Run a body for each step: `nexts` and `emits` are nodes over the placeholders `carries` and `xs`.

    carries, xs  input nodes of any names; an x has the type of one step
    nexts        the carries after the step, of their types
    emits        values of the body to be stacked: [length, ...]
    init         initial carries; `stacks` the xs of all steps: [length, ...]
    length       the number of steps; may be left out if there are stacks
    reverse      from the last position to the first

    Raises ValueError for numbers or types that do not fit and for a length below 1.
    """
    length = _checked(carries, xs, nexts, init, stacks, length)
    body = _Body(carries, xs, (*nexts, *emits))
    read = [i for i, x in enumerate(xs) if x in body.inside]
    xs, stacks = [xs[i] for i in read], [stacks[i] for i in read]
    names = [*_names("carry", carries), *_names("x", xs), *_names("const", body.consts)]
    n, m = len(carries), len(carries) + len(xs)
    new = dict(zip((*carries, *xs, *body.consts), names, strict=True))
    for node in body.order:
        if node not in new:
            new[node] = rebuild(node, tuple([new[x] for x in node.inputs]))
            set_site(new[node], site_of(node))
    params = tuple(names)
    loop = Loop(
        length, bool(reverse), params[:n], params[n:m], params[m:], tuple([new[node] for node in nexts])
    )
    inputs = (*init, *stacks, *body.consts)

    def final(i: int) -> Node:
        return init[i] if nexts[i] is carries[i] else make(SCAN, inputs, ScanAttrs(loop, None, i))

    def stack(emit: Node) -> Node:
        if emit in body.varying:
            return stack_of(loop, inputs, new[emit])
        return broadcast(emit, (length, *emit.type.shape), tuple(range(1, emit.type.rank + 1)))

    return Scanned([final(i) for i in range(n)], [stack(emit) for emit in emits])


def stack_of(loop: Loop, inputs: Sequence[Node], node: Node) -> Node:
    """The values in all steps of a node over a loop's parameters; `inputs` are the loop's."""
    if node in loop.xs:
        return inputs[len(loop.carries) + loop.xs.index(node)]
    return make(SCAN, inputs, ScanAttrs(loop, node, None))


def _names(prefix: str, nodes: Iterable[Node]) -> list[Node]:
    """Parameters of a body: the same for equal bodies."""
    return [input_(f"{prefix}{i}", node.type) for i, node in enumerate(nodes)]


def _checked(
    carries: Sequence[Node],
    xs: Sequence[Node],
    nexts: Sequence[Node],
    init: Sequence[Node],
    stacks: Sequence[Node],
    length: int | None,
) -> int:
    """The number of steps; ValueError if anything does not fit."""
    for what, given, wanted in (("next values", nexts, carries), ("initial carries", init, carries)):
        if len(given) != len(wanted):
            raise fail("scan", f"{len(wanted)} carries, but {len(given)} {what}")
    for i, (carry, first, after) in enumerate(zip(carries, init, nexts, strict=True)):
        if not carry.type == first.type == after.type:
            raise fail(
                "scan",
                f"carry {i} is {first.type} at first, {carry.type} before a step and {after.type} after it",
            )
    if length is None:
        if not stacks or not stacks[0].type.shape:
            raise fail("scan", "needs xs with a leading dim of steps, or a length")
        length = stacks[0].type.shape[0]
    if length < 1:
        raise fail("scan", f"needs at least one step, not {length}")
    if len(xs) != len(stacks):
        raise fail("scan", f"{len(stacks)} xs, but a body of {len(xs)}")
    for x, stack in zip(xs, stacks, strict=True):
        if stack.type != TensorType((length, *x.type.shape), x.type.dtype):
            raise fail("scan", f"{length} steps of {x.type} are not a {stack.type}")
    return length


class _Body:
    """What of the graph above the placeholders belongs into the loop.

    varying  nodes that depend on a placeholder
    consts   values from outside that the body reads
    order    the body in topological order, from placeholders, consts and numbers
    """

    def __init__(self, carries: Sequence[Node], xs: Sequence[Node], roots: Sequence[Node]) -> None:
        placeholders = {*carries, *xs}
        whole = toposort(roots)
        self.varying = set(placeholders)
        for node in whole:
            if not self.varying.isdisjoint(node.inputs):
                self.varying.add(node)
        inside: set[Node] = set()
        self.inside = inside
        outside: set[Node] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node in inside or node in outside:
                continue
            if node in placeholders or node in self.varying or _stays(node):
                inside.add(node)
                if node not in placeholders:
                    stack.extend(node.inputs)
            else:
                outside.add(node)
        self.consts = tuple([node for node in whole if node in outside])
        self.order = [node for node in whole if node in inside or node in outside]


def _stays(node: Node) -> bool:
    """Whether a loop-invariant node is computed (for nothing) in the body, from what it reads."""
    if node.kind is Kind.CONSTANT:
        return node.type.size <= _SMALL
    return (node.kind is Kind.GENERATE and not node.inputs) or node.op.name in _PEELED
