"""Second forms of functions: in place, and with indices, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
IN_PLACE = {
    "threshold_": (0.5, -2.0),
    "selu_": (),
    "celu_": (1.3,),
    "rrelu_": (0.1, 0.3),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name):
    """The argument itself is changed and given back; its history goes on."""
    found = []
    for T in (graphc, torch):
        leaf = T.from_numpy(X.copy()).requires_grad_()
        x = leaf * 1.5
        out = getattr(T.nn.functional, name)(x, *IN_PLACE[name])
        assert out is x
        (x * x).sum().backward()
        found.append((x.detach().numpy(), leaf.grad.numpy()))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        getattr(graphc.nn.functional, name)(graphc.ones(2, requires_grad=True), *IN_PLACE[name])


def test_random_slopes_in_place():
    x = graphc.from_numpy(X.copy())
    graphc.nn.functional.rrelu_(x, 0.2, 0.4, training=True)
    slopes = x.numpy()[X < 0] / X[X < 0]
    assert ((slopes >= 0.2 - 1e-6) & (slopes <= 0.4 + 1e-6)).all()
    assert len(np.unique(slopes)) > 1


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("adaptive_max_pool1d_with_indices", (2, 3, 7)),
        ("adaptive_max_pool2d_with_indices", (2, 3, 5, 7)),
        ("adaptive_max_pool3d_with_indices", (2, 3, 5, 4, 7)),
    ],
)
def test_with_indices(name, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = [getattr(T.nn.functional, name)(T.from_numpy(x), 3) for T in (graphc, torch)]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
