"""What a forward loop saves for the reverse loop."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node
from graphc.ops.scan import Loop, takes_work


def choose(
    roots: Sequence[Node], late: AbstractSet[Node], varying: AbstractSet[Node], loop: Loop
) -> list[Node]:
    """The values of the forward loop to be saved, so that `roots` follow from them, xs and consts.

    late     nodes that depend on cotangents: the reverse loop's own
    varying  nodes that differ from step to step; all others are the same in both loops

    Contractions, reductions, transcendental functions and carries are saved where they are read. A cheap
    function of them is computed again, unless saving it takes less memory than saving what it is made of.
    """
    order = toposort(roots)
    read = {x for node in order if node in late for x in node.inputs} | set(roots)
    wanted = [node for node in order if node in read and node not in late and node in varying]
    given = set(loop.xs)
    wanted = [node for node in wanted if node not in given]
    saved = {node: None for node in wanted if _is_dear(node)}
    for node in wanted:
        if node in saved:
            continue
        missing = _missing(node, saved.keys(), given, varying)
        if sum(n.type.nbytes for n in missing) <= node.type.nbytes:
            saved.update(dict.fromkeys(missing))
        else:
            saved[node] = None
    return [node for node in order if node in saved]


def _is_dear(node: Node) -> bool:
    """Whether a value is never computed twice (a parameter that is not an x is a carry: it is gone)."""
    return node.kind is Kind.INPUT or takes_work(node)


def _missing(
    node: Node, saved: AbstractSet[Node], given: AbstractSet[Node], varying: AbstractSet[Node]
) -> list[Node]:
    """The dear values that `node` is made of and that are not saved yet."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if n in seen or n in saved or n in given or n not in varying:
            continue
        seen.add(n)
        if _is_dear(n):
            found[n] = None
        else:
            stack.extend(n.inputs)
    return list(found)
