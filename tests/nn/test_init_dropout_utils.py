"""Initialisation (distributions and constants), dropout statistics, clipping and vectors."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
from graphc import nn  # noqa: E402

from .against_torch import inputs  # noqa: E402

init = nn.init


def test_gains_and_fans():
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)
    assert init._calculate_fan_in_and_fan_out(graphc.empty(3, 4, 5)) == (20, 15)
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        init.calculate_gain("what")
    with pytest.raises(ValueError, match="fewer than 2"):
        init.xavier_normal_(graphc.empty(3))


RANDOM = [
    ("uniform_", (-1.0, 3.0)),
    ("normal_", (0.5, 2.0)),
    ("trunc_normal_", (0.1, 1.0, -0.5, 1.5)),
    ("xavier_uniform_", (2.0,)),
    ("xavier_normal_", ()),
    ("kaiming_uniform_", (0.2, "fan_out")),
    ("kaiming_normal_", (0, "fan_in", "relu")),
    ("orthogonal_", (1.5,)),
    ("sparse_", (0.3, 0.5)),
]


@pytest.mark.parametrize("name, args", RANDOM)
def test_random_values_have_torchs_distribution(name, args):
    torch.manual_seed(0)
    graphc.manual_seed(0)
    ours, theirs = graphc.empty(200, 150), torch.empty(200, 150)
    assert getattr(init, name)(ours, *args) is ours
    getattr(torch.nn.init, name)(theirs, *args)
    a, b = np.sort(ours.numpy().ravel()), np.sort(theirs.numpy().ravel())
    spread = b.std()
    inner = slice(len(b) // 1000, -(len(b) // 1000))
    assert np.abs(a - b)[inner].max() < 0.25 * spread
    assert abs(a.mean() - b.mean()) < 0.03 * spread
    assert abs(a.std() - b.std()) < 0.02 * spread
    assert abs(a.min() - b.min()) < 0.6 * spread
    if name == "orthogonal_":
        np.testing.assert_allclose(ours.numpy().T @ ours.numpy(), 1.5**2 * np.eye(150), atol=1e-4)
    if name == "sparse_":
        assert (ours.numpy() == 0).sum(0).tolist() == [60] * 150


@pytest.mark.parametrize("name, shape, args", [
    ("constant_", (3, 2), (0.3,)), ("ones_", (3,), ()), ("zeros_", (3,), ()), ("eye_", (3, 4), ()),
    ("dirac_", (4, 2, 3), (2,)), ("dirac_", (3, 4, 3, 2), ()), ("dirac_", (2, 2, 3, 3, 3), ()),
])  # fmt: skip
def test_constant_values(name, shape, args):
    ours, theirs = graphc.empty(*shape), torch.empty(*shape)
    getattr(init, name)(ours, *args)
    getattr(torch.nn.init, name)(theirs, *args)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_layers_start_as_torchs_do():
    graphc.manual_seed(1)
    a, b = nn.Linear(400, 300), torch.nn.Linear(400, 300)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert abs(np.abs(p.detach().numpy()).max() - 1 / 20) < 1e-3
        assert abs(p.detach().numpy().std() - q.detach().numpy().std()) < 2e-3
    assert nn.Embedding(5, 3, padding_idx=1).weight[1].abs().sum().item() == 0
    graphc.manual_seed(1)
    np.testing.assert_array_equal(nn.Linear(400, 300).weight.detach().numpy(), a.weight.detach().numpy())


@pytest.mark.parametrize("name", [n for n in dir(init) if n.endswith("_") and not n.startswith("_")])
def test_signature(name):
    ours, theirs = (inspect.signature(getattr(T.nn.init, name)) for T in (graphc, torch))
    assert [(p.name, p.default) for p in ours.parameters.values()] == [
        (p.name, p.default) for p in theirs.parameters.values()
    ]


def test_dropout():
    graphc.manual_seed(3)
    x = graphc.ones(100, 200).requires_grad_(True)
    layer = nn.Dropout(0.3)
    out = layer(x)
    values = out.detach().numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((values == 0).mean() - 0.3) < 0.01
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), values)
    assert (layer(x).detach().numpy() != values).any()
    assert layer.eval()(x) is x
    assert nn.functional.dropout(x, 1.0).abs().sum().item() == 0
    channels = nn.Dropout2d(0.5)(graphc.ones(20, 10, 3, 3)).numpy()
    assert (channels.reshape(200, 9).min(1) == channels.reshape(200, 9).max(1)).all()
    wide = nn.AlphaDropout(0.2)(graphc.randn(300, 300)).numpy()
    assert abs(wide.mean()) < 0.02
    assert abs(wide.std() - 1) < 0.02


def test_dropout_compiled_equals_lazy():
    def run(f):
        graphc.manual_seed(5)
        return [f(graphc.ones(50)).numpy() for _ in range(3)]

    def twice(x):
        return nn.functional.dropout(nn.functional.dropout(x, 0.2), 0.5)

    lazy, compiled = run(twice), run(graphc.compile(twice))
    for a, b in zip(lazy, compiled, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (lazy[0] != lazy[1]).any()


@pytest.mark.parametrize("norm", [2.0, 1.0, 3.0, math.inf])
def test_clip_grad_norm(norm):
    results = []
    for T in (graphc, torch):
        ps = [T.from_numpy(a.copy()).requires_grad_(True) for a in inputs((3, 4), (5,))]
        for p, g in zip(ps, inputs((3, 4), (5,), seed=1), strict=True):
            p.grad = T.from_numpy(g.copy())
        total = T.nn.utils.clip_grad_norm_(ps, 0.8, norm_type=norm)
        results.append([total.numpy(), *[p.grad.numpy().copy() for p in ps]])
        T.nn.utils.clip_grad_value_(ps, 0.05)
        results[-1] += [p.grad.numpy() for p in ps]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_parameters_and_vectors():
    layer = nn.Linear(2, 3)
    vector = nn.utils.parameters_to_vector(layer.parameters())
    assert vector.shape == (9,)
    nn.utils.vector_to_parameters(graphc.arange(9).float(), layer.parameters())
    assert layer.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layer.bias.tolist() == [6, 7, 8]
    assert layer.bias.requires_grad
