"""Algebra on the graph: identities that keep every bit, and canonical forms of views.

Needs: any graph of which autodiff is done (stop_gradient is dropped). Leaves: an equal graph.
"""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.passes import rules_scalar, rules_view
from graphc.passes.rules import apply_rules, merge

RULES = merge(rules_scalar.RULES, rules_view.RULES)


def run(graph: Graph) -> Graph:
    """Apply the rules until none applies."""
    return apply_rules(graph, RULES, always=(rules_view.nothing,))
