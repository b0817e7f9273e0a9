"""What an optimizer's rule sees of its options: a change of that means another program, no other one does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.frontend.evaluation import lazy

CROSSED = {
    "Adam": {"betas": (0.3, 0.9)},
    "Adamax": {"betas": (0.3, 0.9)},
    "NAdam": {"betas": (0.3, 0.9)},
    "RAdam": {"betas": (0.3, 0.9)},
    "RMSprop": {"alpha": 0.3, "centered": True},
    "Muon": {"momentum": 0.3},
}
BEYOND = {"betas": (0.9, 0.9), "alpha": 0.8, "momentum": 0.7}


def parameter(seed: int) -> Any:
    values = np.random.default_rng(seed).standard_normal((37, 19)).astype(np.float32)
    return graphc.tensor(values, requires_grad=True)


def step(p: Any, opt: Any, seed: int) -> None:
    p.grad = parameter(seed).detach()
    opt.step()


def bits(p: Any, opt: Any) -> list[bytes]:
    return [p.detach().numpy().tobytes(), *[t.numpy().tobytes() for t in opt.state[p].values()]]


@pytest.mark.parametrize("compiled", [False, True], ids=["lazily", "compiled"])
@pytest.mark.parametrize("name", CROSSED)
def test_a_number_that_crosses_a_half_is_seen(name: str, compiled: bool) -> None:
    """Averages are taken from the nearer end, so the same numbers have the same bits whatever was before."""
    options = CROSSED[name]
    crossing = {key: value for key, value in BEYOND.items() if key in options}
    p = parameter(0)
    changed = getattr(graphc.optim, name)([p], **options)
    run = graphc.compile(lambda: changed.step()) if compiled else changed.step
    p.grad = parameter(1).detach()
    run()
    q = p.detach().clone().requires_grad_()
    other = getattr(graphc.optim, name)([q], **{**options, **crossing})
    state = copy.deepcopy(changed.state_dict())
    state["param_groups"][0].update(crossing)
    other.load_state_dict(state)
    changed.param_groups[0].update(crossing)
    p.grad = parameter(2).detach()
    run()
    step(q, other, 2)
    assert bits(p, changed) == bits(q, other)


def test_numbers_on_one_side_share_a_program() -> None:
    p = parameter(0)
    opt = graphc.optim.Adam([p], betas=(0.9, 0.99), weight_decay=0.1)
    step(p, opt, 1)
    step(p, opt, 2)
    before = lazy.compilations()
    opt.param_groups[0].update(betas=(0.8, 0.95), weight_decay=0.2, eps=1e-7, lr=0.1)
    step(p, opt, 3)
    assert lazy.compilations() == before


def test_muon_with_momentum_of_one_half_takes_the_average_from_the_gradient() -> None:
    """PyTorch's `lerp` counts from the end from a weight of a half on."""
    p = parameter(0)
    opt = graphc.optim.Muon([p], momentum=0.5)
    step(p, opt, 1)
    before = opt.state[p]["momentum_buffer"].numpy().copy()
    step(p, opt, 2)
    grad = parameter(2).detach().numpy()
    expected = grad - (grad - before) * np.float32(0.5)
    np.testing.assert_array_equal(opt.state[p]["momentum_buffer"].numpy(), expected)
    assert (before + (grad - before) * np.float32(0.5) != expected).any(), "the two ends agree"
