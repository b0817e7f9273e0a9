"""Ops over a new leading dim: f of every step's values at once, where f is one op.

`batch(node, operands, batched)` is the stack, over all steps, of what `node` computes in one step. Operands
marked in `batched` are stacks themselves, with the steps as dim 0; the others are the same in all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from graphc.ir.node import Kind, Node, make
from graphc.ops.contract import DotAttrs
from graphc.ops.index import AxisAttrs, CumsumAttrs
from graphc.ops.running import RecurrenceAttrs, RunningAttrs
from graphc.ops.sort import SortAttrs
from graphc.ops.spread import BroadcastAttrs, ReduceAttrs, broadcast
from graphc.ops.view import ConcatAttrs, FlipAttrs, PadAttrs, SliceAttrs, reshape, transpose

Rule = Callable[[Node, Sequence[Node], Sequence[bool], int], Node | None]

_POINTWISE = frozenset({Kind.ELEMENTWISE, Kind.CHECK, Kind.BARRIER})
_RULES: dict[str, Rule] = {}


def batch(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node | None:
    """The stack of `length` steps of a node of which an operand is batched; None if there is no such op."""
    if node.kind in _POINTWISE:
        return make(node.op, _all_stacked(operands, batched, length), node.attrs)
    if node.kind is Kind.REDUCE and isinstance(node.attrs, ReduceAttrs):
        return make(node.op, operands, ReduceAttrs(later(node.attrs.axes)))
    rule = _RULES.get(node.op.name)
    return None if rule is None else rule(node, operands, batched, length)


def can_batch(node: Node, batched: Sequence[bool]) -> bool:
    """Whether `batch` has an answer when operands are stacks as `batched` says."""
    if node.kind in _POINTWISE or (node.kind is Kind.REDUCE and isinstance(node.attrs, ReduceAttrs)):
        return True
    if node.op.name in ("conv", "conv_input_grad"):
        return not batched[1]
    if node.op.name == "take":
        return not all(batched)
    return node.op.name in _RULES


def later(axes: Iterable[int]) -> tuple[int, ...]:
    """Axes of one step's value as those of a stack."""
    return tuple([axis + 1 for axis in axes])


def stacked(node: Node, length: int) -> Node:
    """A value that is the same in all steps, repeated."""
    return broadcast(node, (length, *node.type.shape), later(range(node.type.rank)))


def _all_stacked(operands: Sequence[Node], batched: Sequence[bool], length: int) -> list[Node]:
    return [x if is_stack else stacked(x, length) for x, is_stack in zip(operands, batched, strict=True)]


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return enter


# ------------------------------------------------------------------------ views


@_rule("broadcast")
def _broadcast(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    attrs: BroadcastAttrs = node.attrs
    return broadcast(operands[0], (length, *attrs.shape), (0, *later(attrs.dims)))


@_rule("reshape")
def _reshape(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return reshape(operands[0], (length, *node.type.shape))


@_rule("transpose")
def _transpose(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return transpose(operands[0], (0, *later(node.attrs.perm)))


@_rule("slice")
def _slice(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    a: SliceAttrs = node.attrs
    return make(node.op, operands, SliceAttrs((0, *a.start), (length, *a.stop), (1, *a.step)))


@_rule("flip")
def _flip(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return make(node.op, operands, FlipAttrs(later(node.attrs.axes)))


@_rule("pad")
def _pad(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    a: PadAttrs = node.attrs
    return make(node.op, operands, PadAttrs((0, *a.low), (0, *a.high), a.value))


@_rule("concat")
def _concat(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return make(node.op, _all_stacked(operands, batched, length), ConcatAttrs(node.attrs.axis + 1))


@_rule("window", "fold")
def _windows(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    """Windows lie on the trailing dims."""
    return make(node.op, operands, node.attrs)


@_rule("cumsum")
def _cumsum(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return make(node.op, operands, CumsumAttrs(node.attrs.axis + 1, node.attrs.reverse))


@_rule("recurrence")
def _recurrence(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    attrs = RecurrenceAttrs(node.attrs.axis + 1, node.attrs.reverse)
    return make(node.op, _all_stacked(operands, batched, length), attrs)


@_rule("running_arg", "running_extreme")
def _running(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return make(node.op, operands, RunningAttrs(node.attrs.axis + 1, node.attrs.largest))


@_rule("argsort")
def _argsort(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return make(node.op, operands, SortAttrs(node.attrs.axis + 1, node.attrs.descending, node.attrs.kept))


# ------------------------------------------------------- contractions, convolutions


@_rule("dot_general")
def _dot(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    """Steps are a batch dim of two stacks, and one more free dim of one stack."""
    attrs: DotAttrs = node.attrs
    contract, batch_dims = [
        tuple([later(dims) if is_stack else dims for dims, is_stack in zip(pair, batched, strict=True)])
        for pair in (attrs.contract, attrs.batch)
    ]
    if all(batched):
        steps = ((0, *batch_dims[0]), (0, *batch_dims[1]))
        return make(node.op, operands, DotAttrs((contract[0], contract[1]), steps))
    out = make(node.op, operands, DotAttrs((contract[0], contract[1]), (batch_dims[0], batch_dims[1])))
    at = len(batch_dims[0])
    if batched[1]:
        at += len(attrs.free(0, operands[0].type.rank))
    rest = [d for d in range(out.type.rank) if d != at]
    return transpose(out, (at, *rest))


@_rule("conv", "conv_input_grad")
def _conv(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node | None:
    """Steps join the samples."""
    if batched[1]:
        return None
    x, weight = operands
    merged = reshape(x, (length * x.type.shape[1], *x.type.shape[2:]))
    return reshape(make(node.op, (merged, weight), node.attrs), (length, *node.type.shape))


# -------------------------------------------------------------------- data as index


@_rule("take")
def _take(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node | None:
    axis = node.attrs.axis
    if all(batched):
        return None
    if batched[0]:
        return make(node.op, operands, AxisAttrs(axis + 1))
    out = make(node.op, operands, AxisAttrs(axis))
    rest = [d for d in range(out.type.rank) if d != axis]
    return transpose(out, (axis, *rest))


@_rule("take_along", "scatter_add_along")
def _along(node: Node, operands: Sequence[Node], batched: Sequence[bool], length: int) -> Node:
    return make(node.op, _all_stacked(operands, batched, length), AxisAttrs(node.attrs.axis + 1))
