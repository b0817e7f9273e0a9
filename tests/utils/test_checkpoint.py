"""Activation checkpointing: values and gradients are those without it."""

from __future__ import annotations

import pytest

import graphc
from graphc import nn
from graphc.utils.checkpoint import checkpoint, checkpoint_sequential


def gradients(model: nn.Sequential, out: graphc.Tensor) -> list[list]:
    model.zero_grad()
    out.square().sum().backward()
    return [p.grad.tolist() for p in model.parameters()]


def test_values_and_gradients_are_the_same() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = graphc.rand(5, 3)
    plain = gradients(model, model(x))
    assert gradients(model, checkpoint(model, x, use_reentrant=False)) == plain
    assert gradients(model, checkpoint_sequential(model, 2, x)) == plain
    assert gradients(model, checkpoint_sequential(list(model), 3, x, use_reentrant=False)) == plain


def test_dropout_is_drawn_once() -> None:
    x = graphc.ones(1000, requires_grad=True)
    out = checkpoint(nn.functional.dropout, x, p=0.5, preserve_rng_state=True)
    out.sum().backward()
    assert x.grad.tolist() == out.tolist()


@pytest.mark.parametrize("segments", [0, 3])
def test_number_of_segments(segments: int) -> None:
    with pytest.raises(ValueError, match=f"segments must be from 1 to 2, got {segments}"):
        checkpoint_sequential([nn.ReLU(), nn.ReLU()], segments, graphc.ones(2))
