"""The operands' cotangents by an op's rule, remembered.

What a rule (`Op.vjp`) makes depends on the op, its attributes and the operands' types. A backward pass asks
the same rules at every step of a training loop, so what one makes for operands that matter (those derivatives
flow through) is recorded when it is asked for the second time.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.node import Node, Op, make
from graphc.ir.recipe import Recipe
from graphc.ops.constant import input_

MANY = 4096  # recorded rules, before all are forgotten

# By op, attributes, operands' types and which of them matter; None at first. The numbers are the operands
# that a recipe gives cotangents of.
_known: dict[tuple, tuple[Recipe, list[int]] | None] = {}


def cotangents(node: Node, ct: Node, active: set[Node]) -> list[tuple[Node, Node]]:
    """(operand, what `node`'s cotangent `ct` sends it) for the operands in `active`.

    NotImplementedError for an op without a gradient.
    """
    op, inputs = node.op, node.inputs
    if op.vjp is None:
        raise NotImplementedError(f"{op.name} has no gradient; put stop_gradient on its operands")
    if not op.typed_vjp:
        return _ask(node, ct, active)
    key: list = [op, node.attrs.__dict__.get("_key") or node.attrs.key]
    for operand in inputs:
        type_ = operand.type
        key += (type_.shape, type_.dtype, operand in active)
    found = tuple(key)
    known = _known.get(found)
    if known is not None:
        recipe, wanted = known
        return list(zip([inputs[i] for i in wanted], recipe([*inputs, node, ct]), strict=True))
    if found not in _known:
        if len(_known) >= MANY:
            _known.clear()
        _known[found] = None
    else:
        _known[found] = _record(node, [operand in active for operand in inputs])
    return _ask(node, ct, active)


def _ask(node: Node, ct: Node, active: set[Node]) -> list[tuple[Node, Node]]:
    parts = _rule(node.op, ct, node)
    return [(n, part) for n, part in zip(node.inputs, parts, strict=True) if part is not None and n in active]


def _rule(op: Op, ct: Node, node: Node) -> Sequence[Node | None]:
    assert op.vjp is not None
    return op.vjp(ct, node)


def _record(node: Node, matter: Sequence[bool]) -> tuple[Recipe, list[int]]:
    """The rule for an op on any operands of these types."""
    operands = [input_(f"vjp.{i}", operand.type) for i, operand in enumerate(node.inputs)]
    result = make(node.op, operands, node.attrs)
    ct = input_("vjp.ct", node.type)
    parts = list(zip(matter, _rule(node.op, ct, result), strict=True))
    wanted = [i for i, (matters, part) in enumerate(parts) if matters and part is not None]
    return Recipe([*operands, result, ct], [parts[i][1] for i in wanted]), wanted  # type: ignore[misc]
