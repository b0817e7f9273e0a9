"""Masked scores: which elements of a square are minus infinity before any product is computed.

Blocks without a single visible element are skipped: their weights are zero. What hides an element is a
condition (`masked_fill`, `where`) or an added mask; it is read once a block, whatever it is made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.ir.node import Kind, Node
from graphc.loop import index as ix
from graphc.loop.ir import Const, Expr, binary
from graphc.loop.lower.attention.squares import constant_value, is_minus_infinity, is_zero
from graphc.loop.lower.evaluate import Evaluator


@dataclass(frozen=True, eq=False)
class Hidden:
    """Elements are hidden where one of `where` is true, `unless` is false, or `added` is minus infinity."""

    where: tuple[Node, ...] = ()
    unless: tuple[Node, ...] = ()
    added: tuple[Node, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.where or self.unless or self.added)

    def visible(self, evaluator: Evaluator, index: ix.Index) -> Expr:
        """Whether the element at an index of the score is not hidden."""
        tests = [ix.negate(evaluator.value(n, index)) for n in self.where]
        tests += [evaluator.value(n, index) for n in self.unless]
        for n in self.added:
            lowest = Const(n.dtype, -math.inf)
            tests.append(binary("ne", evaluator.value(n, index), lowest))
        result = tests[0]
        for test in tests[1:]:
            result = binary("and", result, test)
        return result


def hidden_in(score: Node, dependent: frozenset[Node]) -> Hidden:
    """What hides elements of `score`; `dependent` are the values that follow from products.

    The chain of selects, additions and positive factors is followed from the score down to the product.
    """
    where: list[Node] = []
    unless: list[Node] = []
    added: list[Node] = []
    node = score
    while True:
        step = _selected(node, dependent, where, unless)
        step = _added(node, dependent, added) if step is None else step
        step = _scaled(node, dependent) if step is None else step
        if step is None:
            return Hidden(tuple(where), tuple(unless), tuple(added))
        node = step


def _selected(node: Node, dependent: frozenset[Node], where: list[Node], unless: list[Node]) -> Node | None:
    if node.op.name != "select" or node.inputs[0] in dependent:
        return None
    condition, yes, no = node.inputs
    if is_minus_infinity(yes) and no in dependent:
        where.append(condition)
        return no
    if is_minus_infinity(no) and yes in dependent:
        unless.append(condition)
        return yes
    return None


def _added(node: Node, dependent: frozenset[Node], added: list[Node]) -> Node | None:
    if node.op.name != "add":
        return None
    for mask, rest in (node.inputs, node.inputs[::-1]):
        if rest in dependent and mask not in dependent:
            added.append(mask)
            return rest
    return None


def _scaled(node: Node, dependent: frozenset[Node]) -> Node | None:
    """A product with a positive number leaves minus infinity what it is."""
    if node.op.name not in ("mul", "div"):
        return None
    pairs = (node.inputs, node.inputs[::-1]) if node.op.name == "mul" else (node.inputs,)
    for rest, by in pairs:
        value = constant_value(by)
        if rest in dependent and value is not None and 0 < value < math.inf:
            return rest
    return None


def vanishes(node: Node, weight: Node, inside: frozenset[Node]) -> bool:
    """Whether `node` is surely zero wherever `weight` is, given that other values are finite.

    Nothing is known of values that are not `inside`.
    """
    known: dict[Node, bool] = {weight: True}
    stack = [node]
    while stack:
        n = stack[-1]
        if n in known:
            stack.pop()
            continue
        waiting = [x for x in n.inputs if x not in known]
        if waiting and n in inside and n.kind in (Kind.ELEMENTWISE, Kind.VIEW):
            stack.extend(waiting)
            continue
        known[n] = not waiting and _vanishes(n, known)
        stack.pop()
    return known[node]


def _vanishes(node: Node, known: dict[Node, bool]) -> bool:
    match node.op.name:
        case "mul":
            return any(known[x] for x in node.inputs)
        case "div" | "neg" | "reshape":
            return known[node.inputs[0]]
        case "add" | "sub":
            return all(known[x] for x in node.inputs)
        case "select":
            return all(known[x] for x in node.inputs[1:])
        case "broadcast" | "constant":
            return is_zero(node)
    return False
