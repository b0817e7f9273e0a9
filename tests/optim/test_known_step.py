"""Steps on gradients that are known already run as a recorded program, with the same result."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.evaluation import lazy
from graphc.frontend.steps import known_step
from graphc.frontend.tracing import deferred

RNG = np.random.default_rng(5)
X = gc.from_numpy(RNG.standard_normal((12, 6)).astype(np.float32))
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "RMSprop": {"centered": True},
    "Adagrad": {},
    "NAdam": {},
    "RAdam": {},
    "Rprop": {},
}


class Run:
    """A network whose gradients are read before each step."""

    def __init__(self, optimizer: str) -> None:
        gc.manual_seed(2)
        self.net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
        kwargs = OPTIMIZERS.get(optimizer, {})
        self.optimizer = getattr(gc.optim, optimizer)(self.net.parameters(), lr=0.02, **kwargs)
        self.seen: list[Any] = []

    def step(self, scale: float = 1.0) -> None:
        self.optimizer.zero_grad()
        (self.net(X) ** 2).mean().mul(scale).backward()
        self.seen += [p.grad.norm().item() for p in self.net.parameters() if p.grad is not None]
        self.optimizer.step()

    def state(self) -> list[np.ndarray]:
        tensors = list(self.net.parameters())
        for p in self.net.parameters():
            tensors += [t for t in self.optimizer.state.get(p, {}).values() if isinstance(t, gc.Tensor)]
        return [*self.seen, *[t.detach().numpy().copy() for t in tensors]]


def both(optimizer: str, play: Any) -> None:
    """`play(run)` with recorded steps, and with steps that are not."""
    found = Run(optimizer)
    play(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_step, "step", lambda optimizer: False)
        patch.setattr(deferred, "LONGEST", 0)
        expected = Run(optimizer)
        play(expected)
    for a, b in zip(found.state(), expected.state(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer(optimizer: str) -> None:
    both(optimizer, lambda run: [run.step() for _ in range(4)])


def test_a_recorded_step_compiles_nothing_and_runs_one_program() -> None:
    run = Run("Adam")
    for _ in range(3):
        run.step()
    run.optimizer.zero_grad()
    (run.net(X) ** 2).mean().backward()
    [p.grad.numpy() for p in run.net.parameters()]
    before = lazy.native_calls(), lazy.compilations()
    run.optimizer.step()
    assert (lazy.native_calls() - before[0], lazy.compilations() - before[1]) == (1, 0)


def test_options_rates_and_missing_gradients_change_from_step_to_step() -> None:
    def play(run: Run) -> None:
        group = run.optimizer.param_groups[0]
        for i in range(8):
            group["lr"] = 0.02 / (i + 1)
            group["weight_decay"] = 0.1 if i in (3, 4) else 0.0
            run.net[0].requires_grad_(i not in (2, 5))
            run.step(scale=1.0 + i)

    both("Adam", play)


def test_state_is_loaded_between_steps_and_the_optimizer_copied() -> None:
    def play(run: Run) -> None:
        run.step()
        saved = copy.deepcopy(run.optimizer.state_dict())
        run.step()
        run.step()
        run.optimizer.load_state_dict(saved)
        run.step()
        run.net, run.optimizer = copy.deepcopy((run.net, run.optimizer))
        run.step()
        run.step()

    both("Adam", play)


def test_gradients_set_by_hand_may_be_the_parameters_themselves() -> None:
    def play(run: Run) -> None:
        for _ in range(3):
            for p in run.net.parameters():
                p.grad = p.detach()
            run.optimizer.step()

    both("SGD", play)


def test_pending_values_see_the_state_before_the_step() -> None:
    run = Run("SGD")
    run.step()
    weight = run.net[0].weight
    run.optimizer.zero_grad()
    (run.net(X) ** 2).mean().backward()
    [p.grad.numpy() for p in run.net.parameters()]
    before = weight.detach().numpy().copy()
    pending = weight.detach() * 2
    run.optimizer.step()
    np.testing.assert_array_equal(pending.numpy(), before * 2)
    assert (weight.detach().numpy() != before).any()


def test_history_over_changed_parameters_is_refused() -> None:
    run = Run("SGD")
    run.step()
    run.optimizer.zero_grad()
    kept = (run.net(X) ** 3).mean()
    (run.net(X) ** 2).mean().backward()
    [p.grad.numpy() for p in run.net.parameters()]
    run.optimizer.step()
    kept.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        run.net[0].weight.grad.numpy()
