"""The quotient graph of fusion, against reachability computed anew after every merge."""

from __future__ import annotations

import random

import networkx as nx
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32
from graphc.passes.clusters import Quotient, bits


def contracted(edges: list[tuple[Node, Node]], quotient: Quotient) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(quotient.members)
    home = quotient.home
    graph.add_edges_from((home[a], home[b]) for a, b in edges if home[a] != home[b])
    return graph


def check(edges: list[tuple[Node, Node]], quotient: Quotient) -> None:
    graph = contracted(edges, quotient)
    for c in graph:
        assert set(bits(quotient.direct[c])) == set(graph.predecessors(c))
        assert quotient.after[c] == set(graph.successors(c))
        assert set(bits(quotient.above[c])) == nx.ancestors(graph, c)
    order = quotient.order()
    assert sorted(order) == sorted(graph)
    rank = {c: i for i, c in enumerate(order)}
    assert all(rank[a] < rank[b] for a, b in graph.edges)


@pytest.mark.parametrize("seed", range(12))
def test_random_merges(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [ops.input_(f"n{i}", TensorType((), float32)) for i in range(24)]
    edges: list[tuple[Node, Node]] = []
    quotient = Quotient()
    refused = 0
    for i, node in enumerate(nodes):
        sources = rng.sample(nodes[:i], min(i, rng.randint(0, 3)))
        edges += [(s, node) for s in sources]
        quotient.add(node, sources)
        for _ in range(rng.randint(0, 2)):
            a, b = (rng.choice(list(quotient.members)) for _ in range(2))
            if a == b:
                continue
            graph = contracted(edges, quotient)
            merged = nx.contracted_nodes(graph, b, a, self_loops=False)
            legal = nx.is_directed_acyclic_graph(merged)
            assert quotient.can_merge(a, b) == legal
            refused += not legal
            if legal:
                assert quotient.merge(a, b) == b
        check(edges, quotient)
    assert len(quotient.members) < len(nodes)
