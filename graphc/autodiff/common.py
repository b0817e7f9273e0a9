"""Sums of cotangents with a common factor: ct * a + ct * b is ct * (a + b).

An elementwise function that reads its operand several times (GELU, SiLU, Mish) sends it one cotangent for
each way. Taken together they are the upstream cotangent times the derivative of the whole function, which
depends on forward values alone: the forward pass computes it beside the function, and keeps one array instead
of several.
"""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.ops.arithmetic import add, div, mul, neg

LONGEST = 32  # factors that are looked through


def add_cotangents(old: Node, part: Node) -> Node:
    """old + part, with the factor out that both were made from by products, quotients and signs."""
    one, two = _chain(old), _chain(part)
    common = next((node for node in two if node in one), None)
    if common is None or common is old or common is part:
        return add(old, part)
    first, second = (_derivative(chain, common) for chain in (one, two))
    if first is None or second is None:
        return add(old, part)
    return mul(common, add(first, second))


def _chain(node: Node) -> list[Node]:
    """The node, what it is a multiple of, and so on."""
    chain = [node]
    while node.op.name in ("mul", "div", "neg") and len(chain) < LONGEST:
        node = node.inputs[0]
        chain.append(node)
    return chain


def _derivative(chain: list[Node], start: Node) -> Node | None:
    """What `start` has been multiplied by to give the first of the chain; None if it is no product."""
    steps = chain[: chain.index(start)]
    value: Node | None = None
    negative = False
    for step in reversed(steps):
        if step.op.name == "neg":
            negative = not negative
        elif step.op.name == "mul":
            value = step.inputs[1] if value is None else mul(value, step.inputs[1])
        elif value is None:
            return None
        else:
            value = div(value, step.inputs[1])
    return neg(value) if value is not None and negative else value
