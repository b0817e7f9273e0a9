"""Lowering: a group of nodes becomes kernels of loop IR.

What a group is made around decides who writes its kernels, and all of them write the rest of the group (views
of operands, functions of the result) by the ops' own rules (`evaluate`):

    a softmax between two products       `attention`
    a matrix product                     `ways` chooses a way by its cost; the ways are in `contraction`
    a convolution or one of its          `ways` too; those that see more than the canonical form of a
      gradients                          product (`convolution.as_contraction`) are in `convolution`
    reductions                           `reductions`; `apart`, if they do not share loops
    the order of elements                `sorting`
    running sums, scatters               `special`, which has `running` and `scatter`
    none of these                        `pointwise`

Shared: `writer` and `scope` build blocks, `frame` is what every kernel has, `nest` and `box` choose loops and
cut them into tasks, `cost` says how many.

Groups of equal structure (same ops, attributes, types and wiring) are lowered once; the others get the same
kernels on their own values.
"""

from __future__ import annotations

from collections.abc import Set

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.lower.apart import lower_apart
from graphc.loop.lower.attention import is_attention, lower_attention
from graphc.loop.lower.evaluate import LoweringError
from graphc.loop.lower.pointwise import lower_pointwise
from graphc.loop.lower.reductions.reduce import lower_reduce
from graphc.loop.lower.sorting import lower_sort
from graphc.loop.lower.special import SPECIAL, lower_special
from graphc.loop.lower.structure import structure
from graphc.loop.lower.ways import Repeated, lower_contraction, repeated_contraction
from graphc.loop.lowered import KernelCall, Temp, Value, with_args
from graphc.program import Machine

_REMEMBERED = 4096
_known: dict[tuple, tuple[Repeated, tuple[Node, ...]]] = {}  # kernels, and the values they were made for


def lower_group(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernel calls that compute a group's outputs from its inputs, in order."""
    return lower_repeated(group, machine, frozenset()).each


def lower_repeated(group: Group, machine: Machine, fixed: Set[Node]) -> Repeated:
    """`lower_group` for a group that runs many times, always with the same values of its `fixed` inputs:
    what a contraction copies of them is copied once, by kernels that go before the first time."""
    same, values = structure(group)
    key = (machine, same, tuple([n in fixed for n in group.inputs]))
    known = _known.get(key)
    if known is None:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        made = _lower_fixed(group, machine, fixed)
        _known[key] = made, values
        return made
    return _rebind(known[0], dict(zip(known[1], values, strict=True)))


def _lower_fixed(group: Group, machine: Machine, fixed: Set[Node]) -> Repeated:
    contracts = any(n.kind is Kind.CONTRACT or n.kind is Kind.CONV for n in group.nodes)
    if contracts and not fixed.isdisjoint(group.inputs) and not is_attention(group):
        return repeated_contraction(group, machine, fixed)
    return Repeated((), _lower(group, machine))


def _lower(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    kinds = {n.kind for n in group.nodes}
    if is_attention(group):
        return lower_attention(group, machine)
    if kinds & {Kind.CONTRACT, Kind.CONV}:
        return lower_contraction(group, machine)
    if Kind.SORT in kinds:
        return lower_sort(group, machine)
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


def _rebind(calls: Repeated, to: dict[Node, Node]) -> Repeated:
    """The same kernels on other values, with temporaries of their own."""
    temps: dict[Temp, Temp] = {}

    def other(value: Value) -> Value:
        if isinstance(value, Temp):
            return temps.setdefault(value, Temp(value.name, value.type))
        return to[value]

    return Repeated(with_args(calls.once, other), with_args(calls.each, other))
