"""nn.utils.spectral_norm against PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

torch = pytest.importorskip("torch")

CASES = {
    "linear": lambda T: T.nn.utils.spectral_norm(T.nn.Linear(4, 3)),
    "conv": lambda T: T.nn.utils.spectral_norm(T.nn.Conv2d(4, 3, 2), n_power_iterations=3),
    "transposed": lambda T: T.nn.utils.spectral_norm(T.nn.ConvTranspose2d(4, 3, 2)),
    "dim": lambda T: T.nn.utils.spectral_norm(T.nn.Linear(4, 3), dim=1, eps=1e-3),
}


def train(T: Any, layer: Any, state: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    layer.load_state_dict({k: T.tensor(v) for k, v in state.items()})
    optimizer = T.optim.SGD(layer.parameters(), lr=0.1)
    seen = []
    for i in range(5):
        layer.train(i != 3)
        out = layer(T.tensor(x)) - 0.5 * layer(T.tensor(x * 2))  # two calls before a backward pass
        optimizer.zero_grad()
        out.pow(2).mean().backward()
        optimizer.step()
        seen.append(out.detach().numpy())
    return [*seen, *[v.numpy() for v in layer.state_dict().values()]]


@pytest.mark.parametrize("case", CASES)
def test_training(case: str) -> None:
    ours, theirs = CASES[case](graphc), CASES[case](torch)
    state = {k: v.numpy().copy() for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4) if case in ("linear", "dim") else (2, 4, 3, 3)).astype(np.float32)
    for a, b in zip(train(graphc, ours, state, x), train(torch, theirs, state, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_removal_keeps_the_weight() -> None:
    layer = nn.utils.spectral_norm(nn.Linear(3, 3))
    x = graphc.ones(2, 3)
    for _ in range(30):
        layer(x)
    layer.eval()
    expected = layer(x).detach().numpy()
    assert nn.utils.remove_spectral_norm(layer) is layer
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(layer.weight.detach().numpy(), 2), 1, rtol=1e-3)
    with pytest.raises(ValueError, match="not found"):
        nn.utils.remove_spectral_norm(layer)
    with pytest.raises(RuntimeError, match="Cannot register two"):
        nn.utils.spectral_norm(nn.utils.spectral_norm(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="to be positive"):
        nn.utils.spectral_norm(layer, n_power_iterations=0)


def test_inside_a_compiled_step() -> None:
    layer = nn.utils.spectral_norm(nn.Linear(3, 2))
    twin = copy.deepcopy(layer)
    x = graphc.randn(4, 3)
    step = graphc.compile(layer)
    for _ in range(3):
        np.testing.assert_allclose(step(x).detach().numpy(), twin(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.weight_u.numpy(), twin.weight_u.numpy(), rtol=1e-5)
