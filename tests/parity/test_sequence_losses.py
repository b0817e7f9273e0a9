"""Twenty training losses of networks on sequences equal torch's, lazily and compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import graphc

from . import models
from .test_training_losses import STEPS, state_as_numpy

torch = pytest.importorskip("torch")

SMALL = {"vocab": 32, "length": 24, "width": 32, "heads": 4, "depth": 2}
BENCHED = {"vocab": 128, "length": 128, "width": 256, "heads": 8, "depth": 4}


@dataclass(frozen=True)
class Case:
    net: Callable[..., Any]
    sizes: dict[str, int]
    batch: int = 8
    options: dict[str, float] = field(default_factory=lambda: {"lr": 1e-3})


CASES = {
    "gpt": Case(models.gpt, SMALL),
    "encoder": Case(models.encoder, SMALL),
    "translator": Case(models.translator, {**SMALL, "depth": 1}),
    "char_transformer": Case(models.gpt, BENCHED, 16, {"lr": 3e-4}),
}


def sequences(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each step tokens [N, L] and what follows each: the next number, or one time in four any."""
    vocab, length = case.sizes["vocab"], case.sizes["length"]
    rng = np.random.default_rng(0)
    steps = np.where(rng.random((STEPS, case.batch, length + 1)) < 0.75, 1, rng.integers(0, vocab, 1))
    tokens = np.cumsum(steps, axis=2) % vocab
    return [(t[:, :-1].copy(), t[:, 1:].reshape(-1)) for t in tokens]


def train(T: Any, case: Case, state: dict[str, np.ndarray], compile: bool = False) -> tuple[list[float], Any]:
    model = case.net(T, **case.sizes)
    model.load_state_dict({k: T.from_numpy(v.copy()) for k, v in state.items()})
    optimizer = T.optim.Adam(model.parameters(), **case.options)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = T.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = T.compile(step) if compile else step
    return [run(T.from_numpy(x), T.from_numpy(y)).item() for x, y in sequences(case)], model


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "char_transformer" else ()) for n in CASES]
)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_losses_equal_torch(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    state = state_as_numpy(case.net(torch, **case.sizes))
    expected, reference = train(torch, case, state)
    assert expected[-1] < 0.9 * expected[0]
    for compile in (False, True):
        losses, model = train(graphc, case, state, compile)
        np.testing.assert_allclose(losses, expected, rtol=1e-3, err_msg=f"compile={compile}")
        for key, value in state_as_numpy(reference).items():
            np.testing.assert_allclose(
                model.state_dict()[key].numpy(), value, rtol=2e-2, atol=2e-3, err_msg=key
            )
