"""Checks of indices that are carried, as the token of a decoder is.

A check inside a loop could fail only after state has changed. But where the next value of a carry is in range
by construction (an argmax, a remainder, a clamp), only the first needs a test, and that is before the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import rebuild, toposort
from graphc.ir.node import Kind, Node, set_site, site_of
from graphc.ops.control import CheckAttrs, check_index
from graphc.ops.op import fail
from graphc.ops.ranges import interval
from graphc.ops.scan.fission import Body


def settle_checks(
    body: Body, needed: Sequence[Node], init: Sequence[Node]
) -> tuple[Body, list[Node], Sequence[Node]]:
    """Body, emits and initial carries of a loop without checks: what is left to check is in the initial ones.

    Raises ValueError for checks of values that a step computes and that may be out of range.
    """
    checks = [n for n in toposort((*body.nexts, *needed)) if n.kind is Kind.CHECK and n in body.varying]
    if not checks:
        return body, list(needed), init
    init = list(init)
    for check in checks:
        attrs: CheckAttrs = check.attrs
        number = _checked_carry(body, check)
        low, high = interval(body.nexts[number])
        if low < attrs.low or high >= attrs.high:
            raise _unsettled(check)
        init[number] = check_index(init[number], attrs.low, attrs.high, attrs.message)
        set_site(init[number], site_of(check))
    new: dict[Node, Node] = {}
    for node in body.order:
        inputs = tuple([new[x] for x in node.inputs])
        new[node] = inputs[0] if node in checks else rebuild(node, inputs)
        set_site(new[node], site_of(node))
    nexts, emits = [[new[n] for n in nodes] for nodes in (body.nexts, body.emits)]
    bare = Body(body.carries, body.xs, body.stacks, nexts, emits, body.length)
    return bare, [new[n] for n in needed], init


def _checked_carry(body: Body, check: Node) -> int:
    """The number of the carry that a check looks at."""
    node = check.inputs[0]
    while node.op.name == "cast" or node.kind is Kind.CHECK:
        node = node.inputs[0]
    if node not in body.carries or node.type.dtype.is_float:
        raise _unsettled(check)
    return list(body.carries).index(node)


def _unsettled(check: Node) -> Exception:
    """The error for an index that is only known inside the loop."""
    site = site_of(check)
    place = f" ({site})" if site else ""
    return fail(
        "scan",
        f"an index that depends on the carry cannot be checked inside a loop{place}; carry the index itself, "
        "and make the next one so that it is in range (argmax, %, clamp), or pass indices as xs",
    )
