"""Lowering: a group of nodes becomes kernels of loop IR.

Groups of equal structure (same ops, attributes, types and wiring) are lowered once; the others get the same
kernels on their own values.
"""

from __future__ import annotations

from collections.abc import Set

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.lower.apart import lower_apart
from graphc.loop.lower.attention import is_attention, lower_attention
from graphc.loop.lower.contract import Repeated, lower_contraction, repeated_contraction
from graphc.loop.lower.evaluate import LoweringError
from graphc.loop.lower.pointwise import lower_pointwise
from graphc.loop.lower.reduce import lower_reduce
from graphc.loop.lower.special import SPECIAL, lower_special
from graphc.loop.lowered import KernelCall, Temp, Value, with_args
from graphc.program import Machine

_REMEMBERED = 4096
_known: dict[tuple, tuple[KernelCall, ...]] = {}
_values: dict[tuple, tuple[Node, ...]] = {}


def lower_group(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernel calls that compute a group's outputs from its inputs, in order."""
    key, values = _structure(group, machine)
    calls = _known.get(key)
    if calls is None:
        if len(_known) >= _REMEMBERED:
            _known.clear()
            _values.clear()
        calls = _lower(group, machine)
        _known[key], _values[key] = calls, values
        return calls
    return _rebind(calls, dict(zip(_values[key], values, strict=True)))


def lower_repeated(group: Group, machine: Machine, fixed: Set[Node]) -> Repeated:
    """`lower_group` for a group that runs many times, always with the same values of its `fixed` inputs:
    what a contraction copies of them is copied once, by kernels that go before the first time."""
    if is_attention(group):
        return Repeated((), lower_group(group, machine))
    if any(n.kind is Kind.CONTRACT or n.kind is Kind.CONV for n in group.nodes):
        return repeated_contraction(group, machine, fixed)
    return Repeated((), lower_group(group, machine))


def _lower(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    kinds = {n.kind for n in group.nodes}
    if is_attention(group):
        return lower_attention(group, machine)
    if kinds & {Kind.CONTRACT, Kind.CONV}:
        return lower_contraction(group, machine)
    if kinds & SPECIAL:
        return lower_special(group, machine)
    if Kind.REDUCE not in kinds:
        return lower_pointwise(group, machine)
    try:
        return lower_reduce(group, machine)
    except LoweringError:
        reductions = tuple([n for n in group.nodes if n.kind is Kind.REDUCE])
        if reductions == group.outputs == group.outputs[:1]:
            raise
        return lower_apart(group, machine, _lower)


def _structure(group: Group, machine: Machine) -> tuple[tuple, tuple[Node, ...]]:
    """(a key that equal-structured groups share, the group's values in the key's order)."""
    values = (*group.inputs, *group.nodes)
    number = {n: i for i, n in enumerate(values)}
    leaves = tuple([(n.shape, n.dtype.short) for n in group.inputs])
    body = tuple(
        [(n.op.name, n.attrs.key, n.shape, tuple([number[x] for x in n.inputs])) for n in group.nodes]
    )
    return (machine, leaves, body, tuple([number[o] for o in group.outputs])), values


def _rebind(calls: tuple[KernelCall, ...], to: dict[Node, Node]) -> tuple[KernelCall, ...]:
    """The same kernels on other values, with temporaries of their own."""
    temps: dict[Temp, Temp] = {}

    def other(value: Value) -> Value:
        if isinstance(value, Temp):
            return temps.setdefault(value, Temp(value.name, value.type))
        return to[value]

    return with_args(calls, other)
