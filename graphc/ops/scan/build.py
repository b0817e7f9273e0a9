"""Building loops: closure conversion of a body given as nodes over placeholders.

What does not depend on the placeholders is computed before the loop, once; numbers, positions and plain views
of such values stay in the body, where they cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node, make
from graphc.ir.types import TensorType
from graphc.ops.batching import stacked
from graphc.ops.constant import input_
from graphc.ops.op import fail
from graphc.ops.scan.checks import settle_checks
from graphc.ops.scan.fission import Body, Stacks, move_ahead, needed_behind, replaced
from graphc.ops.scan.loop import SCAN, Loop, ScanAttrs
from graphc.ops.view import reshape

_PEELED = frozenset({"broadcast", "transpose", "slice"})  # views that a body reads through at no cost
_PREFIXES = ("carry", "x", "const")
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

    Raises ValueError for numbers or types that do not fit, for a length below 1, and for a check of an index
    that a step computes and that may be out of range.
    """
    length = _checked(carries, xs, nexts, init, stacks, length)
    if length == 1:
        return _one_step(carries, xs, nexts, emits, init, stacks)
    body = move_ahead(Body(carries, xs, stacks, nexts, emits, length))
    body, needed, init = settle_checks(body, needed_behind(body), init)
    closed = _Closed(body, needed)
    loop, inputs = closed.loop(reverse), (*init, *closed.stacks, *closed.consts)
    finals = [
        first if after is carry else make(SCAN, inputs, ScanAttrs(loop, None, i))
        for i, (first, after, carry) in enumerate(zip(init, body.nexts, carries, strict=True))
    ]
    known = dict(zip(body.xs, body.stacks, strict=True))
    known.update((node, stack_of(loop, inputs, closed.new[node])) for node in needed)
    behind = Stacks(known, body.varying, length)
    return Scanned(
        finals,
        [behind.of([e])[0] if e in body.varying else stacked(e, length) for e in body.emits],
    )


def _one_step(
    carries: Sequence[Node],
    xs: Sequence[Node],
    nexts: Sequence[Node],
    emits: Sequence[Node],
    init: Sequence[Node],
    stacks: Sequence[Node],
) -> Scanned:
    """A loop of one step is its body."""
    values = [*init, *[reshape(stack, stack.type.shape[1:]) for stack in stacks]]
    new = replaced(toposort((*carries, *xs, *nexts, *emits)), dict(zip((*carries, *xs), values, strict=True)))
    return Scanned([new[n] for n in nexts], [reshape(new[e], (1, *e.type.shape)) for e in emits])


def stack_of(loop: Loop, inputs: Sequence[Node], node: Node) -> Node:
    """The values in all steps of a node over a loop's parameters; `inputs` are the loop's."""
    if node in loop.xs:
        return inputs[len(loop.carries) + loop.xs.index(node)]
    return make(SCAN, inputs, ScanAttrs(loop, node, None))


def _names(prefix: str, nodes: Sequence[Node]) -> list[Node]:
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


class _Closed:
    """A body closed over: graphs above placeholders, with parameters for all that it reads.

    stacks  inputs for the xs that are read
    consts  values from outside that the body reads
    new     its nodes, by those they are made from
    """

    def __init__(self, body: Body, emits: Sequence[Node]) -> None:
        self.body = body
        placeholders = {*body.carries, *body.xs}
        inside: set[Node] = set(body.carries)
        outside: set[Node] = set()
        stack = [*body.nexts, *emits]
        while stack:
            node = stack.pop()
            if node in inside or node in outside:
                continue
            if node in body.varying or _stays(node):
                inside.add(node)
                stack.extend(node.inputs)
            else:
                outside.add(node)
        read = [i for i, x in enumerate(body.xs) if x in inside]
        self.stacks = [body.stacks[i] for i in read]
        self.consts = [node for node in body.order if node in outside]
        groups = (body.carries, [body.xs[i] for i in read], self.consts)
        self.params = [_names(name, group) for name, group in zip(_PREFIXES, groups, strict=True)]
        given: dict[Node, Node] = {}
        for params, group in zip(self.params, groups, strict=True):
            given.update(zip(group, params, strict=True))
        order = [n for n in body.order if (n in inside and n not in placeholders) or n in outside]
        self.new = replaced([*body.carries, *groups[1], *order], given)

    def loop(self, reverse: bool) -> Loop:
        carries, xs, consts = self.params
        nexts = tuple([self.new[node] for node in self.body.nexts])
        return Loop(self.body.length, bool(reverse), tuple(carries), tuple(xs), tuple(consts), nexts)


def _stays(node: Node) -> bool:
    """Whether a loop-invariant node is computed (for nothing) in the body, from what it reads."""
    if node.kind is Kind.CONSTANT:
        return node.type.size <= _SMALL
    return (node.kind is Kind.GENERATE and not node.inputs) or node.op.name in _PEELED
