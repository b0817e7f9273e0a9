"""SVG drawings: well-formed, complete, layered."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from graphc.analysis.drawing import Box, Drawing, _assign_layers

SVG = "{http://www.w3.org/2000/svg}"


def diamond() -> Drawing:
    drawing = Drawing()
    for label in ("in", "left <&>", "right", "out"):
        drawing.add(Box((label, "f32[2]"), tooltip=f"about {label}"))
    drawing.edges += [(0, 1), (0, 2), (1, 3), (2, 3)]
    return drawing


def test_layers_follow_the_longest_path() -> None:
    assert _assign_layers(4, [(0, 1), (1, 2), (0, 2), (2, 3)]) == [[0], [1], [2], [3]]


def test_svg_is_well_formed_and_complete() -> None:
    root = ElementTree.fromstring(diamond().to_svg("a & b"))
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert "left <&>" in texts
    assert len(list(root.iter(f"{SVG}rect"))) == 5  # four boxes and the background
    assert len(root.findall(f"{SVG}path")) == 4


def test_boxes_of_one_layer_do_not_overlap() -> None:
    drawing = diamond()
    root = ElementTree.fromstring(drawing.to_svg())
    rects = [
        tuple(float(r.get(k, "0")) for k in ("x", "y", "width")) for r in root.findall(f"{SVG}g/{SVG}rect")
    ]
    left, right = sorted(r for r in rects if r[1] == rects[1][1])
    assert left[0] + left[2] < right[0]


def test_a_cycle_is_an_error() -> None:
    drawing = Drawing([Box(("a",)), Box(("b",))], [(0, 1), (1, 0)])
    with pytest.raises(ValueError, match="cycle"):
        drawing.to_svg()


def test_an_empty_drawing() -> None:
    assert Drawing().to_svg().startswith("<svg")
