"""The sweep of convolutions: layers are what they say, a row for each layer and part."""

from __future__ import annotations

import pytest

from tests.bench.convolutions import LAYERS, PARTS, Layer, table


@pytest.mark.parametrize(
    "layer",
    [
        Layer(3, 4, 3, (8, 9), 2, batch=2),
        Layer(6, 6, 5, (7, 7), groups=6, batch=1),
        Layer(2, 3, 3, (9, 9), pad=0, dilation=2),
        Layer(2, 3, 3, (4, 5, 6), batch=1),
    ],
)
def test_parts_agree_on_shapes_and_work(layer: Layer) -> None:
    shapes = layer.shapes()
    for part, name in zip(PARTS, ("y", "x", "w"), strict=True):
        (result,) = layer.graph(part).outputs
        assert result.shape == shapes[name]
    per_result = shapes["w"][1]
    for extent in shapes["w"][2:]:
        per_result *= extent
    count = 1
    for extent in shapes["y"]:
        count *= extent
    assert layer.flops == 2 * count * per_result


def test_a_row_for_each_layer_and_part() -> None:
    names = ["1d_16_64", "stem5x5_28"]
    assert set(names) <= set(LAYERS)
    text = table(names, ("y", "dw"), 0.001).splitlines()
    assert [line.split("|")[1].strip() for line in text[2:]] == [n for n in names for _ in range(2)]
    assert [line.split("|")[2].strip() for line in text[2:]] == ["y", "dw"] * 2
