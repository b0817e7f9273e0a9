"""Stages of a compilation as text, DOT, SVG or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields

from graphc.analysis.drawing import Box, Drawing
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node, site_of
from graphc.ir.partition import Partition

FILLS = {
    Kind.INPUT: "#d9ead3",
    Kind.CONSTANT: "#eeeeee",
    Kind.CONTRACT: "#f9cb9c",
    Kind.CONV: "#f9cb9c",
    Kind.REDUCE: "#cfe2f3",
    Kind.VIEW: "#f3f3f3",
}


def drawing_of(graph: Graph) -> Drawing:
    """One box a node: its op, its type, and as a tooltip where it comes from. Constants are left out."""
    drawing = Drawing()
    number: dict[Node, int] = {}
    names = dict(zip(graph.inputs, graph.input_names, strict=False))
    for node in graph.nodes:
        if node.kind is Kind.CONSTANT:
            continue
        title = names.get(node, node.op.name) if node.kind is Kind.INPUT else node.op.name
        box = Box((title, str(node.type)), FILLS.get(node.kind, "#ffffff"), str(site_of(node) or ""))
        number[node] = drawing.add(box)
        drawing.edges += [(number[n], number[node]) for n in dict.fromkeys(node.inputs) if n in number]
    for i, node in enumerate(graph.outputs):
        name = graph.output_names[i] if i < len(graph.output_names) else f"out{i}"
        end = drawing.add(Box((name,), "#ead1dc"))
        if node in number:
            drawing.edges.append((number[node], end))
    return drawing


def drawing_of_partition(partition: Partition) -> Drawing:
    """One box a group: the ops it holds; an edge where one group reads what another wrote."""
    drawing = Drawing()
    writer: dict[Node, int] = {}
    for position, group in enumerate(partition.groups):
        counts: dict[str, int] = {}
        for node in group.nodes:
            counts[node.op.name] = counts.get(node.op.name, 0) + 1
        parts = [name if n == 1 else f"{n} {name}" for name, n in counts.items() if name != "constant"]
        lines = [", ".join(parts[i : i + 4]) for i in range(0, len(parts), 4)]
        box = Box((f"group {position}", *lines, *(str(n.type) for n in group.outputs)), _fill(group.nodes))
        this = drawing.add(box)
        sources = {writer[n] for n in group.inputs if n in writer}
        drawing.edges += [(source, this) for source in sorted(sources)]
        writer.update((n, this) for n in group.outputs)
    return drawing


def _fill(nodes: Iterable[Node]) -> str:
    kinds = {n.kind for n in nodes}
    return next((FILLS[k] for k in (Kind.CONV, Kind.CONTRACT, Kind.REDUCE) if k in kinds), "#ffffff")


def dot(drawing: Drawing, title: str) -> str:
    """A drawing in Graphviz's language."""
    lines = [
        f"digraph {json.dumps(title)} {{",
        '  node [shape=box, style="rounded,filled", fontname=monospace];',
    ]
    for i, box in enumerate(drawing.boxes):
        label = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in box.lines)
        lines.append(f'  n{i} [label="{label}", fillcolor="{box.fill}", tooltip={json.dumps(box.tooltip)}];')
    lines += [f"  n{a} -> n{b};" for a, b in drawing.edges]
    return "\n".join([*lines, "}"]) + "\n"


def graph_json(graph: Graph) -> dict:
    """A graph as plain data, for other tools."""
    number = {n: i for i, n in enumerate(dict.fromkeys((*graph.inputs, *graph.nodes)))}
    return {
        "name": graph.name,
        "nodes": [
            {
                "id": i,
                "op": node.op.name,
                "shape": list(node.shape),
                "dtype": node.dtype.name,
                "inputs": [number[n] for n in node.inputs],
                "attrs": {f.name: repr(getattr(node.attrs, f.name)) for f in fields(node.attrs)},
                "site": str(site_of(node) or ""),
            }
            for node, i in number.items()
        ],
        "inputs": [number[n] for n in graph.inputs],
        "outputs": [number[n] for n in graph.outputs],
    }
