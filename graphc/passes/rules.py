"""Local rewriting: rules by op name, applied bottom-up until nothing changes.

A rule looks at one node and returns an equal, better one, or None. Rules must shrink something
(nodes, work or distance to a canonical form), so that rewriting ends; a budget catches those that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.graph import Graph, rebuild, rewrite
from graphc.ir.node import Node

Rule = Callable[[Node], Node | None]
RuleTable = dict[str, list[Rule]]

ROUNDS = 16  # whole-graph sweeps; graphs settle in two or three
STEPS = 64  # rules applied to one node in one sweep


def on(table: RuleTable, *names: str) -> Callable[[Rule], Rule]:
    """Enter a rule in `table` for the ops of these names."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            table.setdefault(name, []).append(rule)
        return rule

    return enter


def merge(*tables: RuleTable) -> RuleTable:
    """One table with the rules of several, in order."""
    merged: RuleTable = {}
    for table in tables:
        for name, rules in table.items():
            merged.setdefault(name, []).extend(rules)
    return merged


def apply_rules(graph: Graph, table: RuleTable, always: Sequence[Rule] = ()) -> Graph:
    """Rewrite with the rules of `table` and those of `always`, which apply to every op.

    Returns the same graph if no rule applies. Raises RuntimeError if the rules do not come to an end.
    """

    def step(node: Node, inputs: tuple[Node, ...]) -> Node:
        return _settle(rebuild(node, inputs), table, always)

    for _ in range(ROUNDS):
        new = rewrite(graph, step)
        if new is graph:
            return graph
        graph = new
    raise RuntimeError(f"simplification of {graph.name!r} does not settle in {ROUNDS} rounds")


def _settle(node: Node, table: RuleTable, always: Sequence[Rule]) -> Node:
    for _ in range(STEPS):
        for rule in (*always, *table.get(node.op.name, ())):
            new = rule(node)
            if new is not None and new is not node:
                node = new
                break
        else:
            return node
    raise RuntimeError(f"simplification of a {node.op.name} node does not settle")
