"""scan: a body graph run once for each step of its inputs, with values carried from step to step.

    carry = init
    for t in range(length):                     # or backwards
        carry, emit[t] = body(carry, x[t], const)

A scan node is ONE result of a loop: a stacked `emit`, or the `final` value of a carry. The results of one
loop are *siblings*: nodes with the same inputs and the same `Loop`. Whoever runs a loop runs it once for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Attrs, Kind, Node
from graphc.ir.types import TensorType
from graphc.ops.evaluate import evaluate_node
from graphc.ops.op import fail, register


@dataclass(frozen=True, eq=False)
class Loop(Attrs):
    """The body of a loop and how often it runs.

    carries, xs, consts  the body's parameters: input nodes called carry0.., x0.., const0..; an x has the type
                         of one step
    nexts                the carries after a step, of the types of `carries`
    reverse              step i works on position length - 1 - i of the xs, and emits are stored there
    """

    length: int
    reverse: bool
    carries: tuple[Node, ...]
    xs: tuple[Node, ...]
    consts: tuple[Node, ...]
    nexts: tuple[Node, ...]

    @cached_property
    def params(self) -> tuple[Node, ...]:
        """What the body reads, in the order of a scan node's inputs."""
        return (*self.carries, *self.xs, *self.consts)

    def input_types(self) -> list[TensorType]:
        """What the inputs of a scan node must be: initial carries, stacked xs, consts."""
        stacked = [TensorType((self.length, *x.type.shape), x.type.dtype) for x in self.xs]
        return [*[c.type for c in self.carries], *stacked, *[c.type for c in self.consts]]

    def body(self, emits: Sequence[Node] = ()) -> Graph:
        """The body as a graph of its own: parameters to nexts and `emits`."""
        names = tuple(p.attrs.name for p in self.params)
        return Graph(self.params, (*self.nexts, *emits), names, (), "body")

    def positions(self) -> range:
        """The positions of the xs in the order of the steps."""
        return range(self.length - 1, -1, -1) if self.reverse else range(self.length)


@dataclass(frozen=True, eq=False)
class ScanAttrs(Attrs):
    """Which result of the loop: every step's value of the body node `emit`, or the last of carry `final`.

    `emit` may be any body node; a carry parameter means the value before the step.
    """

    loop: Loop
    emit: Node | None = None
    final: int | None = None

    @property
    def outline(self) -> tuple:
        """The result asked for, and the loop with it."""
        loop, emits = self.loop, () if self.emit is None else (self.emit,)
        counts = len(loop.carries), len(loop.xs), len(loop.consts)
        return self.final, loop.length, loop.reverse, counts, loop.body(emits)


def _infer_scan(types: Sequence[TensorType], attrs: ScanAttrs) -> TensorType:
    loop = attrs.loop
    if loop.length < 1:
        raise fail("scan", f"needs at least one step, not {loop.length}")
    if len(loop.nexts) != len(loop.carries):
        raise fail("scan", f"{len(loop.carries)} carries, but {len(loop.nexts)} next values", types)
    for i, (carry, after) in enumerate(zip(loop.carries, loop.nexts, strict=True)):
        if carry.type != after.type:
            raise fail("scan", f"carry {i} is {carry.type} before a step and {after.type} after it", types)
    if list(types) != loop.input_types():
        wanted = ", ".join(map(str, loop.input_types()))
        raise fail("scan", f"the loop takes {wanted}", types)
    if (attrs.emit is None) == (attrs.final is None):
        raise fail("scan", "a node is either an emit or a final carry", types)
    if attrs.emit is not None:
        return TensorType((loop.length, *attrs.emit.type.shape), attrs.emit.type.dtype)
    assert attrs.final is not None
    if not 0 <= attrs.final < len(loop.carries):
        raise fail("scan", f"carry {attrs.final} is not one of {len(loop.carries)}", types)
    return loop.carries[attrs.final].type


# ------------------------------------------------------------------- siblings

Key = tuple[tuple[Node, ...], Loop]


def key_of(node: Node) -> Key:
    """Equal for the results of one loop."""
    return node.inputs, node.attrs.loop


def siblings(nodes: Iterable[Node]) -> dict[Key, tuple[Node, ...]]:
    """The scan nodes among `nodes`, loop by loop, in order."""
    found: dict[Key, list[Node]] = {}
    for node in nodes:
        if node.op.kind is Kind.SCAN:
            found.setdefault(key_of(node), []).append(node)
    return {key: tuple(group) for key, group in found.items()}


# ----------------------------------------------------------------- evaluation


def evaluate_siblings(group: Sequence[Node], operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The values of the results `group` of one loop, computed together. `operands` are the loop's inputs."""
    loop: Loop = group[0].attrs.loop
    emits = [node.attrs.emit for node in group if node.attrs.emit is not None]
    order = toposort((*loop.nexts, *emits))
    stacks = {e: np.empty((loop.length, *e.type.shape), e.type.dtype.numpy) for e in emits}
    n, m = len(loop.carries), len(loop.carries) + len(loop.xs)
    carried, stacked = list(operands[:n]), operands[n:m]
    fixed = dict(zip(loop.consts, operands[m:], strict=True))
    for at in loop.positions():
        values = fixed | dict(zip(loop.carries, carried, strict=True))
        values.update((x, stack[at]) for x, stack in zip(loop.xs, stacked, strict=True))
        evaluate_order(order, values)
        for emit, stack in stacks.items():
            stack[at] = values[emit]
        carried = [values[node] for node in loop.nexts]
    return [
        carried[node.attrs.final] if node.attrs.emit is None else stacks[node.attrs.emit] for node in group
    ]


def evaluate_order(order: Sequence[Node], values: dict[Node, np.ndarray]) -> None:
    """Add to `values` those of the nodes of a topological order; the results of a loop are found together."""
    groups = siblings(order)
    for node in order:
        if node in values:
            continue
        operands = [values[x] for x in node.inputs]
        if node.op.kind is Kind.SCAN:
            group = groups[key_of(node)]
            values.update(zip(group, evaluate_siblings(group, operands), strict=True))
        else:
            values[node] = evaluate_node(node, operands)


def _evaluate_scan(arrays: Sequence[np.ndarray], attrs: ScanAttrs) -> np.ndarray:
    return evaluate_siblings([_Result(attrs)], arrays)[0]  # type: ignore[list-item]


@dataclass(frozen=True)
class _Result:
    """What `evaluate_siblings` asks of a node."""

    attrs: ScanAttrs


SCAN = register("scan", Kind.SCAN, infer=_infer_scan, evaluate=_evaluate_scan, attrs=ScanAttrs)
