"""Values that a backward pass needs and that are changed in place before it.

PyTorch refuses such programs (or, through `.data`, differentiates with the new value). Values are never
overwritten here before they have been used, so gradients are those of the values that were used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.nn import functional as F

Case = Callable[[gc.Tensor, gc.Tensor, bool], gc.Tensor]  # (x, w, whether to change what was used): loss
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@case
def result_of_exp(x: gc.Tensor, w: gc.Tensor, change: bool) -> gc.Tensor:
    y = x.exp()
    z = y * w.detach()
    if change:
        y.mul_(3)
    return z.sum()


@case
def factor(x: gc.Tensor, w: gc.Tensor, change: bool) -> gc.Tensor:
    a = x * 2
    loss = (a * a * w).sum()
    if change:
        a += 1
    return loss


@case
def parameter(x: gc.Tensor, w: gc.Tensor, change: bool) -> gc.Tensor:
    loss = (w * x * w).sum()
    if change:
        with gc.no_grad():
            w.add_(1)
    return loss


@case
def parameter_through_data(x: gc.Tensor, w: gc.Tensor, change: bool) -> gc.Tensor:
    loss = (w * x * w).sum()
    if change:
        w.data.mul_(2)
        x.data = gc.zeros(4)
    return loss


@case
def part_of_a_view(x: gc.Tensor, w: gc.Tensor, change: bool) -> gc.Tensor:
    y = x * w
    part = y[:2]
    loss = (part * part).sum()
    if change:
        y[0] = 5.0
    return loss


@case
def constant_operands(x: gc.Tensor, w: gc.Tensor, change: bool) -> gc.Tensor:
    scale, target, index = gc.full((4,), 3.0), gc.ones(4), gc.tensor([0, 1, 1])
    loss = F.mse_loss(x * scale, target) + (w[index] * scale[:3]).sum()
    if change:
        scale.zero_()
        target.fill_(9)
        index.fill_(3)
    return loss


def gradients(case: Case, change: bool, read: bool) -> list[np.ndarray]:
    x = gc.tensor([0.5, -1.0, 2.0, 0.25], requires_grad=True)
    w = gc.tensor([1.5, 2.0, -0.5, 3.0], requires_grad=True)
    loss = case(x, w, change)
    found = [loss.detach().numpy()] if read else []
    loss.backward()
    found += [np.zeros(4) if t.grad is None else t.grad.numpy() for t in (x, w)]
    return found


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_values_that_were_used(name: str, read: bool) -> None:
    for a, b in zip(*(gradients(CASES[name], change, read) for change in (False, True)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_the_same_in_a_compiled_step(name: str) -> None:
    found = []
    for change in (False, True):
        x = gc.tensor([0.5, -1.0, 2.0, 0.25], requires_grad=True)
        w = gc.tensor([1.5, 2.0, -0.5, 3.0], requires_grad=True)
        step = gc.compile(
            lambda x, w, change=change: gc.autograd.grad(CASES[name](x, w, change), [x, w], allow_unused=True)
        )
        found.append([np.zeros(4) if g is None else g.numpy() for g in step(x, w)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.native
def test_a_value_whose_memory_an_optimizer_has_taken_over_is_refused() -> None:
    def gradient(step: bool) -> np.ndarray:
        gc.manual_seed(0)
        layer = gc.nn.Linear(2, 2)
        optimizer = gc.optim.SGD(layer.parameters(), lr=0.1)
        h = layer(gc.ones(1, 2))
        first, second = layer(h).sum(), layer(h).pow(2).sum()
        first.backward(retain_graph=True)
        if step:
            optimizer.step()
        second.backward()
        return layer.weight.grad.numpy()

    assert np.isfinite(gradient(False)).all()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(True)
