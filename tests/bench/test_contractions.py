"""The sweep of contractions: shapes as they are stored, NumPy's numbers, a row for each shape."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.contractions import SHAPES, Shape, graphc_run, table


@pytest.mark.parametrize(
    "shape",
    [
        Shape(5, 7, 3),
        Shape(5, 7, 3, left=True, right=True),
        Shape(6, 16, 4, right=True, batch=3),
        Shape(9, 8, 5, left=True, double=True),
    ],
)
def test_shapes_are_what_they_say(shape: Shape) -> None:
    rng = np.random.default_rng(0)
    dtype = np.float64 if shape.double else np.float32
    x, y = (rng.standard_normal(s).astype(dtype) for s in shape.operands())
    run, out = graphc_run(shape, [x, y])
    run()
    a = np.swapaxes(x, -1, -2) if shape.left else x
    b = np.swapaxes(y, -1, -2) if shape.right else y
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)
    assert shape.flops == 2.0 * out.size * shape.k


def test_a_row_for_each_shape() -> None:
    names = ["square4", "double16"]
    assert set(names) <= set(SHAPES)
    text = table(names, 0.001).splitlines()
    assert len(text) == 2 + len(names)
    assert [line.split("|")[1].strip() for line in text[2:]] == names
