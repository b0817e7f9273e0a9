"""The one door to networkx: graphs as integers and edges, for its algorithms; never for storage.

networkx takes a tenth of a second to import, so that happens when an algorithm is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphc.ir.graph import Graph

Edge = tuple[int, int]
INFINITE = float("inf")


def digraph(nodes: Iterable[int], edges: Iterable[Edge]) -> Any:
    """A networkx DiGraph over integers."""
    import networkx as nx

    view = nx.DiGraph()
    view.add_nodes_from(nodes)
    view.add_edges_from(edges)
    return view


def graph_view(graph: Graph) -> Any:
    """Data flow between the positions of `graph.nodes`."""
    index = graph.index
    edges = [(index[operand], index[node]) for node in graph.nodes for operand in node.inputs]
    return digraph(range(len(graph.nodes)), edges)


def minimum_cut(edges: Sequence[tuple[int, int, float]], source: int, sink: int) -> tuple[float, set[int]]:
    """The capacity of a minimum cut, and the vertices on the source's side.

    Edges are (from, to, capacity); parallel edges add up; INFINITE edges are never cut. Of several
    minimum cuts the one closest to the source is taken, so the answer is unique. Raises ValueError
    if every cut has an infinite edge.
    """
    import networkx as nx
    from networkx.algorithms.flow import boykov_kolmogorov

    view = nx.DiGraph()
    view.add_nodes_from((source, sink))
    for a, b, capacity in edges:
        old = view.get_edge_data(a, b, {"capacity": 0.0})
        total = old.get("capacity", INFINITE) + capacity
        view.add_edge(a, b, **({} if total == INFINITE else {"capacity": total}))
    try:
        residual = boykov_kolmogorov(view, source, sink)
    except nx.NetworkXUnbounded as error:
        raise ValueError("no finite cut separates source and sink") from error
    return residual.graph["flow_value"], _reachable(residual, source)


def _reachable(residual: Any, source: int) -> set[int]:
    """Vertices that the source reaches by edges with room left: its side of the nearest minimum cut."""
    seen, stack = {source}, [source]
    while stack:
        for target, edge in residual[stack.pop()].items():
            if target not in seen and edge["flow"] < edge["capacity"]:
                seen.add(target)
                stack.append(target)
    return seen
