"""A value as a product: what an elementwise chain of products, quotients and signs multiplies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graphc.ir.node import Kind, Node


@dataclass(frozen=True, eq=False)
class Product:
    """(-1 if `negative`) * product of `over` / product of `under`; factors have the shape of the value."""

    negative: bool
    over: Counter[Node]
    under: Counter[Node]

    def without(self, other: Product) -> Product | None:
        """What multiplies `other` to give this; None if `other` does not divide it factor by factor."""
        if other.over - self.over or other.under - self.under:
            return None
        sign = self.negative != other.negative
        return Product(sign, self.over - other.over, self.under - other.under)

    def equals(self, other: Product) -> bool:
        """Whether both have the same factors."""
        rest = self.without(other)
        return rest is not None and not (rest.negative or rest.over or rest.under)


def factors(node: Node) -> Product:
    """The factors of a value, down to values that are no products themselves."""
    over: Counter[Node] = Counter()
    under: Counter[Node] = Counter()
    negative = False
    stack = [(node, True)]
    while stack:
        n, above = stack.pop()
        match n.op.name:
            case "neg":
                negative = not negative
                stack.append((n.inputs[0], above))
            case "mul":
                stack += [(x, above) for x in n.inputs]
            case "div":
                stack += [(n.inputs[0], above), (n.inputs[1], not above)]
            case _:
                (over if above else under)[n] += 1
    return Product(negative, over, under)


def is_uniform(node: Node) -> bool:
    """Whether a value is known to be the same all along the last axis: a broadcast along it."""
    return node.op.name == "broadcast" and node.type.rank - 1 in node.attrs.new_axes


def behind_reshapes(node: Node) -> Node:
    """The value that reshapes look at."""
    while node.kind is Kind.VIEW and node.op.name == "reshape":
        node = node.inputs[0]
    return node
