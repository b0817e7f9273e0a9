"""Twenty training losses of recurrent networks equal torch's, lazily and compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc

from . import sequences
from .models import training_step

torch = pytest.importorskip("torch")
STEPS = 20


@dataclass(frozen=True)
class Case:
    """A network, the shape and the number of kinds (0: floats) of its inputs and of its targets."""

    net: Callable[[Any], Any]
    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    kinds: tuple[int, int]
    loss: str
    optimizer: str
    lr: float


CASES = {
    "lstm_lm": Case(sequences.lstm_lm, (32, 64), (32 * 64,), (128, 128), "CrossEntropyLoss", "Adam", 1e-3),
    "gru_seq": Case(sequences.gru_seq, (8, 200, 64), (8, 200, 1), (0, 0), "MSELoss", "Adam", 1e-3),
    "lstm_tagger": Case(sequences.lstm_tagger, (5,), (5,), (9, 3), "NLLLoss", "SGD", 0.1),
}


def arrays(shape: tuple[int, ...], kinds: int, seed: int) -> list[np.ndarray]:
    """One array for each step."""
    rng = np.random.default_rng(seed)
    if kinds:
        return list(rng.integers(0, kinds, (STEPS, *shape)))
    return list(rng.standard_normal((STEPS, *shape), dtype=np.float32))


def train(T: Any, case: Case, state: dict[str, np.ndarray], compile: bool = False) -> tuple[list[float], Any]:
    model = case.net(T)
    model.load_state_dict({k: T.from_numpy(v.copy()) for k, v in state.items()})
    criterion = getattr(T.nn, case.loss)()
    optimizer = getattr(T.optim, case.optimizer)(model.parameters(), lr=case.lr)

    run = training_step(T, model, criterion, optimizer, compile)
    data = zip(arrays(case.inputs, case.kinds[0], 0), arrays(case.targets, case.kinds[1], 1), strict=True)
    return [run(T.from_numpy(x), T.from_numpy(y)).item() for x, y in data], model


def numbers(model: Any) -> dict[str, np.ndarray]:
    return {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}


@functools.cache
def reference(name: str) -> tuple[dict[str, np.ndarray], list[float], dict[str, np.ndarray]]:
    """torch's initial parameters, losses and last parameters."""
    torch.manual_seed(0)
    state = numbers(CASES[name].net(torch))
    losses, model = train(torch, CASES[name], state)
    return state, losses, numbers(model)


@pytest.mark.parametrize("compile", [False, True], ids=["lazy", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_losses_equal_torch(name: str, compile: bool) -> None:
    state, expected, last = reference(name)
    before = graphc.compilations()
    losses, model = train(graphc, CASES[name], state, compile)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for key, value in numbers(model).items():
        np.testing.assert_allclose(value, last[key], rtol=2e-2, atol=2e-3, err_msg=key)
    assert graphc.compilations() - before <= 3  # none after the second step
