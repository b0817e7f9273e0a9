"""Lowering of attention groups: a softmax between two contractions, or contractions of its gradient.

Such a group is found by `graphc/passes/attention.py`. Its outputs are contractions of squares (see
`squares.py`) and, forward, the softmax's row statistics. Its other members are squares and what they are made
of.
"""

from __future__ import annotations

from graphc.ir.graph import depending
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.lower.attention.backward import lower_backward
from graphc.loop.lower.attention.blocks import Plan
from graphc.loop.lower.attention.forward import lower_forward
from graphc.loop.lower.attention.squares import Consumer, Softmax, as_consumer, as_producer, softmax_of
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def is_attention(group: Group) -> bool:
    """Whether a group computes contractions of contractions."""
    return sum(n.kind is Kind.CONTRACT for n in group.nodes) > 1


def lower_attention(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernel of an attention group."""
    producers = [p for n in group.nodes if n not in group.outputs and (p := as_producer(n)) is not None]
    dependent = followers(group.nodes, frozenset(p.node for p in producers))
    consumers = [_consumer(n, dependent) for n in group.outputs if n.kind is Kind.CONTRACT]
    forward = any(n.kind is Kind.REDUCE for n in group.nodes)
    plan = Plan(_softmax(group), producers, consumers, dependent)
    lower = lower_forward if forward else lower_backward
    return (lower(group, plan, machine),)


def followers(nodes: tuple[Node, ...], sources: frozenset[Node]) -> frozenset[Node]:
    """The sources and all elementwise values and views that depend on them; `nodes` are in topological
    order."""
    return frozenset(depending([n for n in nodes if n.kind in (Kind.ELEMENTWISE, Kind.VIEW)], sources))


def _consumer(node: Node, dependent: frozenset[Node]) -> Consumer:
    side = 0 if node.inputs[0] in dependent else 1
    found = as_consumer(node, side)
    assert found is not None
    return found


def _softmax(group: Group) -> Softmax:
    """The softmax whose numerators are a member."""
    found = [s for n in group.nodes if (s := softmax_of(n)) is not None]
    assert len(found) == 1, "an attention group has one softmax"
    return found[0]
