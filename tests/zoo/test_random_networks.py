"""Random networks train as in PyTorch: in plain loops, with the model compiled, or the whole step."""

from __future__ import annotations

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

from .random_networks import build, random_recipe, train  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_training(seed: int) -> None:
    """Losses, a prediction, parameters and buffers after three steps in float64."""
    torch.manual_seed(seed)
    recipe = random_recipe(seed, steps=6)
    state = {k: v.detach().numpy().copy() for k, v in build(torch, recipe.plan).double().state_dict().items()}
    expected = train(torch, recipe, state)
    assert all(np.isfinite(value).all() for value in expected.values())
    found = train(graphc, recipe, state, ("plain", "model", "step")[seed % 3])
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
