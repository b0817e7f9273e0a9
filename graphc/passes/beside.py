"""What the gates of a recurrent cell become is kept side by side, in the layout of what they came from.

An LSTM's step cuts z = x[t] + h @ W into slices, makes a gate of each, and its backward pass wants them all:
four stacks beside the stack of x. Kept as one stack of the shape of x, each gate where its slice of x was, a
step writes over what it has just read: the memory planner lets the one stack lie over the other
(`lifetimes.py`), and the backward loop's gradient of z lies over both. A third of the memory, and lines that
are written are in the cache already.

    gate_k = f_k(slice_k(x + ...)), stacked     ->     one stack of concat(gate_0, gate_1, ...); the loops
    for other loops alone                              that read the gates read slices of its steps

Needs: loops as `loops.py` leaves them. Leaves: an equal graph, with other siblings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph, rebuild, rewrite
from graphc.ir.node import Kind, Node
from graphc.ir.types import TensorType
from graphc.ops.constant import input_
from graphc.ops.scan import Key, Loop, key_of, replaced, scan, siblings
from graphc.ops.view import concat, slice_axis


@dataclass(frozen=True, eq=False)
class _Gates:
    """Results of a loop, each the stack of what a step makes of its own part of one value; in the order of
    the parts along `axis`, of a step's value."""

    results: tuple[Node, ...]
    axis: int


def run(graph: Graph) -> Graph:
    """Put the stacks of gates of every loop side by side."""
    groups = siblings(graph.nodes)
    found = {key: gates for key, results in groups.items() if (gates := _gates(graph, results)) is not None}
    if not found:
        return graph
    rewriter = _Rewriter(groups, found)
    return rewrite(graph, rewriter.rule)


# ------------------------------------------------------------------------- which


def _gates(graph: Graph, results: Sequence[Node]) -> _Gates | None:
    """The gates of a loop that have a stack to lie over."""
    loop: Loop = results[0].attrs.loop
    parts: dict[Node, dict[Node, Node]] = {}  # value -> slice of it -> result
    for node in results:
        piece = _own_slice(node.attrs.emit) if node.attrs.emit is not None else None
        if piece is not None and piece.type == node.attrs.emit.type and _readers(graph, node):
            parts.setdefault(piece.inputs[0], {}).setdefault(piece, node)
    for value, pieces in parts.items():
        axis = _axis_tiled(value, list(pieces))
        stacks = [stack for x, stack in _stacks(loop, results) if x.type == value.type and _made_of(value, x)]
        if axis is None or not any(_dies(graph, stack, results) for stack in stacks):
            continue
        ordered = sorted(pieces, key=lambda piece: piece.attrs.start[axis])
        gates = tuple([pieces[piece] for piece in ordered])
        if len({_readers(graph, node) for node in gates}) == 1:
            return _Gates(gates, axis)
    return None


def _stacks(loop: Loop, results: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    """The xs of a loop with their stacks."""
    return zip(loop.xs, results[0].inputs[len(loop.carries) :], strict=False)


def _own_slice(node: Node) -> Node | None:
    """The one slice that elementwise arithmetic makes a value of, if it reads nothing else but constants."""
    slices: set[Node] = set()
    stack, seen = [node], {node}
    while stack:
        n = stack.pop()
        if n.op.name == "slice":
            slices.add(n)
        elif n.kind is Kind.ELEMENTWISE or n.op.name == "broadcast":
            stack += [x for x in n.inputs if x not in seen]
            seen.update(n.inputs)
        elif n.kind is not Kind.CONSTANT:
            return None
    return slices.pop() if len(slices) == 1 else None


def _made_of(value: Node, x: Node) -> bool:
    """Whether elementwise arithmetic on `x` (and other values) makes `value`."""
    stack, seen = [value], {value}
    while stack:
        n = stack.pop()
        if n is x:
            return True
        if n.kind is Kind.ELEMENTWISE:
            stack += [operand for operand in n.inputs if operand not in seen]
            seen.update(n.inputs)
    return False


def _axis_tiled(value: Node, pieces: Sequence[Node]) -> int | None:
    """The axis along which slices are equal parts of a value, and all of it."""
    if len(pieces) < 2:
        return None
    shape = value.type.shape
    cut = [axis for axis, size in enumerate(shape) if pieces[0].type.shape[axis] != size]
    if len(cut) != 1 or any(set(piece.attrs.step) != {1} for piece in pieces):
        return None
    (axis,) = cut
    size = pieces[0].type.shape[axis]
    starts = sorted(piece.attrs.start[axis] for piece in pieces)
    equal = all(piece.type == pieces[0].type for piece in pieces)
    return axis if equal and starts == list(range(0, shape[axis], size)) else None


def _readers(graph: Graph, node: Node) -> frozenset[Key] | None:
    """The loops that read a result as a stack; None if anybody else reads it, or nobody."""
    found: set[Key] = set()
    for user in graph.users[node]:
        if user.kind is not Kind.SCAN:
            return None
        loop: Loop = user.attrs.loop
        stacks = [stack for _, stack in _stacks(loop, (user,))]
        if user.inputs.count(node) != stacks.count(node):
            return None
        found.add(key_of(user))
    return frozenset(found) if found and node not in graph.outputs else None


def _dies(graph: Graph, stack: Node, results: Sequence[Node]) -> bool:
    """Whether a stack is computed for this loop alone."""
    if stack.kind in (Kind.INPUT, Kind.CONSTANT) or stack in graph.outputs:
        return False
    return all(user in results for user in graph.users[stack])


# ------------------------------------------------------------------------ making


def _step_of(stack: Node) -> TensorType:
    """The type of a step of a stack."""
    return TensorType(stack.type.shape[1:], stack.type.dtype)


class _Rewriter:
    """Rebuilds loops; `slices` are stacks of gates, each with the stack of them all and where it lies
    there."""

    def __init__(self, groups: dict[Key, tuple[Node, ...]], found: dict[Key, _Gates]) -> None:
        self.groups, self.found = groups, found
        self.done: dict[Key, dict[Node, Node]] = {}
        self.slices: dict[Node, tuple[Node, int, int]] = {}

    def rule(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        """What stands for a node whose inputs are now `inputs`."""
        if node.kind is not Kind.SCAN:
            return rebuild(node, inputs)
        key = key_of(node)
        if key not in self.found and self.slices.keys().isdisjoint(inputs):
            return rebuild(node, inputs)
        if key not in self.done:
            self.done[key] = self._rebuilt(self.groups[key], inputs, self.found.get(key))
        return self.done[key][node]

    def _rebuilt(
        self, results: Sequence[Node], inputs: tuple[Node, ...], gates: _Gates | None
    ) -> dict[Node, Node]:
        """What stands for each result of a loop."""
        loop: Loop = results[0].attrs.loop
        n, m = len(loop.carries), len(loop.carries) + len(loop.xs)
        carries = [input_(f"beside.carry{i}", c.type) for i, c in enumerate(loop.carries)]
        by = dict(zip((*loop.carries, *loop.consts), (*carries, *inputs[m:]), strict=True))
        xs: dict[Node, Node] = {}  # stack -> placeholder
        for x, stack in zip(loop.xs, inputs[n:m], strict=True):
            whole, axis, start = self.slices.get(stack, (stack, 0, 0))
            held = xs.setdefault(whole, input_(f"beside.x{len(xs)}", _step_of(whole)))
            by[x] = held if whole is stack else slice_axis(held, axis, start, start + x.type.shape[axis])
        emits = list(dict.fromkeys(node.attrs.emit for node in results if node.attrs.emit is not None))
        new = replaced(loop.body(emits).nodes, by)
        joined = [] if gates is None else [node.attrs.emit for node in gates.results]
        single = [emit for emit in emits if emit not in joined]
        values = [new[emit] for emit in single]
        if gates is not None:
            values.append(concat([new[emit] for emit in joined], gates.axis))
        nexts = [new[node] for node in loop.nexts]
        made = scan(
            carries, list(xs.values()), nexts, values, inputs[:n], list(xs), loop.length, loop.reverse
        )
        stacked = dict(zip(single, made.stacked, strict=False))
        if gates is not None:
            stacked.update(self._cut(made.stacked[-1], gates))
        return {
            node: made.finals[node.attrs.final] if node.attrs.emit is None else stacked[node.attrs.emit]
            for node in results
        }

    def _cut(self, whole: Node, gates: _Gates) -> Iterator[tuple[Node, Node]]:
        """The emits of gates with their parts of the stack of them all."""
        start, axis = 0, gates.axis
        for node in gates.results:
            size = node.attrs.emit.type.shape[axis]
            part = slice_axis(whole, axis + 1, start, start + size)
            self.slices[part] = whole, axis, start
            yield node.attrs.emit, part
            start += size
