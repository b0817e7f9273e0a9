"""Layered drawings of graphs as SVG, with no program to install.

The layout is Sugiyama's ("Methods for Visual Understanding of Hierarchical System Structures", 1981):
layers by longest path, order within a layer by a few barycentre sweeps, boxes centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

LINE_HEIGHT, CHAR_WIDTH, PADDING = 15, 6.7, 8
GAP_X, GAP_Y, MARGIN = 18, 42, 20


@dataclass(frozen=True)
class Box:
    """One node of a drawing: lines of text, a fill colour and a tooltip."""

    lines: tuple[str, ...]
    fill: str = "#ffffff"
    tooltip: str = ""

    @property
    def width(self) -> float:
        return max(map(len, self.lines), default=1) * CHAR_WIDTH + 2 * PADDING

    @property
    def height(self) -> float:
        return len(self.lines) * LINE_HEIGHT + 2 * PADDING


@dataclass
class Drawing:
    """Boxes and directed edges (pairs of box numbers); edges must not form a cycle."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, box: Box) -> int:
        self.boxes.append(box)
        return len(self.boxes) - 1

    def to_svg(self, title: str = "graph") -> str:
        """A complete SVG document."""
        layers = _order_layers(_assign_layers(len(self.boxes), self.edges), self.edges)
        positions, width, height = _place(layers, self.boxes)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="11">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 8 4 0 8z" fill="#666"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        ]
        parts += [_edge_svg(positions[a], positions[b], self.boxes[a], self.boxes[b]) for a, b in self.edges]
        parts += [_box_svg(positions[i], box) for i, box in enumerate(self.boxes)]
        return "\n".join([*parts, "</svg>\n"])


def _assign_layers(count: int, edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Layer of a box: the longest path that leads to it."""
    users: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in edges:
        users[a].append(b)
        waiting[b] += 1
    depth = [0] * count
    ready = [i for i in range(count) if waiting[i] == 0]
    for i in ready:  # grows while it is walked
        for j in users[i]:
            depth[j] = max(depth[j], depth[i] + 1)
            waiting[j] -= 1
            if waiting[j] == 0:
                ready.append(j)
    if len(ready) != count:
        raise ValueError("the edges of a drawing must not form a cycle")
    layers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for i in range(count):
        layers[depth[i]].append(i)
    return layers


def _order_layers(
    layers: list[list[int]], edges: Sequence[tuple[int, int]], sweeps: int = 4
) -> list[list[int]]:
    """Reorder each layer by the mean position of its neighbours, downwards and upwards in turn."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for a, b in edges:
        above.setdefault(b, []).append(a)
        below.setdefault(a, []).append(b)
    place = {i: x / max(len(layer), 1) for layer in layers for x, i in enumerate(layer)}
    for sweep in range(sweeps):
        neighbours = above if sweep % 2 == 0 else below
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            means = {
                i: sum(place[j] for j in neighbours[i]) / len(neighbours[i]) if i in neighbours else place[i]
                for i in layer
            }
            layer.sort(key=means.__getitem__)
            place.update((i, (x + 0.5) / len(layer)) for x, i in enumerate(layer))
    return layers


def _place(layers: list[list[int]], boxes: Sequence[Box]) -> tuple[list[tuple[float, float]], float, float]:
    """Top-left corners of all boxes, and the size of the drawing."""
    widths = [sum(boxes[i].width for i in layer) + GAP_X * (len(layer) - 1) for layer in layers]
    total = max(widths, default=0.0)
    corners = [(0.0, 0.0)] * len(boxes)
    y = float(MARGIN)
    for layer, width in zip(layers, widths, strict=True):
        x = MARGIN + (total - width) / 2
        for i in layer:
            corners[i] = (x, y)
            x += boxes[i].width + GAP_X
        y += max(boxes[i].height for i in layer) + GAP_Y
    return corners, total + 2 * MARGIN, y + MARGIN


def _edge_svg(start: tuple[float, float], end: tuple[float, float], a: Box, b: Box) -> str:
    x1, y1 = start[0] + a.width / 2, start[1] + a.height
    x2, y2 = end[0] + b.width / 2, end[1]
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}" '
        'fill="none" stroke="#666" marker-end="url(#arrow)"/>'
    )


def _box_svg(corner: tuple[float, float], box: Box) -> str:
    x, y = corner
    text = "".join(
        f'<text x="{x + box.width / 2:.1f}" y="{y + PADDING + LINE_HEIGHT * (n + 0.75):.1f}" '
        f'text-anchor="middle">{escape(line)}</text>'
        for n, line in enumerate(box.lines)
    )
    return (
        f'<g><title>{escape(box.tooltip)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="4" fill="{box.fill}" stroke="#333"/>{text}</g>'
    )
