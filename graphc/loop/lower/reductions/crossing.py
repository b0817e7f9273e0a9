"""Groups that reduce along their rows and across them: the gradient of a norm's input and of its weights.

The rows are swept as in any group of rows (rows.py); the sweep in which the terms of a sum *across* the rows
are known adds them, element by element, to sums that stay in cache. Each task leaves its sums as parts, which
a second kernel combines in order: memory is read once for both, and the cut into tasks depends on shapes
only, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import depending
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ops.op import Reduction


def across_rows(rules: dict[Node, Reduction]) -> tuple[Node, ...]:
    """The reductions over the leading axes, if there are also some over the trailing ones, of as many rows of
    as many elements; none if all reductions are of one kind, or some of another."""
    shapes: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    across = []
    for node, rule in rules.items():
        if rule.axes is None:
            return ()
        x = node.inputs[0]
        axes = [a for a in range(x.type.rank) if x.shape[a] != 1]
        reduced = [a for a in axes if a in rule.axes]
        kept = [a for a in axes if a not in rule.axes]
        if not reduced or not kept or axes not in (kept + reduced, reduced + kept):
            return ()
        over_rows = axes == reduced + kept
        sizes = node.type.size, x.type.size // node.type.size
        shapes[over_rows].add(sizes[::-1] if over_rows else sizes)
        if over_rows:
            across.append(node)
    return tuple(across) if len(shapes[True]) == 1 and shapes[True] == shapes[False] else ()


def finishing(group: Group, across: Sequence[Node]) -> Group:
    """The part of a group that has the reductions across the rows and what follows from them; the reductions
    along the rows are inputs."""
    after = depending(group.nodes, across)
    along = [n for n in group.nodes if n.kind is Kind.REDUCE and n not in after]
    return Group.between({*group.inputs, *along}, [n for n in group.outputs if n in after])
