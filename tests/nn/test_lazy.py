"""Lazy layers: sizes from the first call, then ordinary layers; against torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn

CASES: dict[str, tuple[str, tuple[Any, ...], tuple[int, ...]]] = {
    "LazyLinear": ("Linear", (3,), (2, 5)),
    "LazyConv1d": ("Conv1d", (4, 3), (2, 6, 9)),
    "LazyConv2d": ("Conv2d", (4, 3, 2, 1), (6, 9, 8)),  # (unbatched)
    "LazyConv3d": ("Conv3d", (4, 3), (2, 6, 5, 4, 3)),
    "LazyConvTranspose1d": ("ConvTranspose1d", (4, 3), (2, 6, 9)),
    "LazyConvTranspose2d": ("ConvTranspose2d", (4, 3, 2), (2, 6, 9, 8)),
    "LazyConvTranspose3d": ("ConvTranspose3d", (4, 3), (2, 6, 5, 4, 3)),
    "LazyBatchNorm1d": ("BatchNorm1d", (), (4, 6)),
    "LazyBatchNorm2d": ("BatchNorm2d", (1e-3,), (2, 6, 3, 4)),
    "LazyBatchNorm3d": ("BatchNorm3d", (), (2, 6, 3, 4, 2)),
    "LazyInstanceNorm1d": ("InstanceNorm1d", (), (2, 6, 5)),
    "LazyInstanceNorm2d": ("InstanceNorm2d", (), (2, 6, 5, 4)),
    "LazyInstanceNorm3d": ("InstanceNorm3d", (), (2, 6, 3, 4, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    torch = pytest.importorskip("torch")
    ordinary, options, shape = CASES[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    mine, theirs = getattr(nn, name)(*options), getattr(torch.nn, name)(*options)
    assert repr(mine) == repr(theirs)
    held = list(mine.parameters())
    assert all(type(p) is nn.UninitializedParameter for p in held)
    assert mine.has_uninitialized_params()
    mine(gc.tensor(x))
    theirs(torch.tensor(x))
    assert type(mine) is getattr(nn, ordinary)
    assert repr(mine) == repr(theirs)
    assert all(a is b for a, b in zip(mine.parameters(), held, strict=True))
    assert all(type(p) is nn.Parameter and p.requires_grad for p in held)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict({k: gc.tensor(v.detach().numpy()) for k, v in theirs.state_dict().items()})
    out = mine(gc.tensor(x))
    out.square().sum().backward()
    expected = theirs(torch.tensor(x))
    expected.square().sum().backward()
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-3, atol=1e-3)


def network() -> nn.Sequential:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


def test_a_model_trains_after_a_dry_run() -> None:
    model, x = network(), gc.rand(3, 2, 6, 6)
    model(gc.zeros(1, 2, 6, 6))
    assert [tuple(p.shape) for p in model.parameters()] == [(4, 2, 3, 3), (4,), (4,), (4,), (2, 64), (2,)]
    optimizer = gc.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[3] < losses[0]
    assert gc.compile(model)(x).shape == (3, 2)


def test_what_holds_before_holds_after() -> None:
    """Hooks, mode, dtype and copies."""
    seen: list[tuple[int, ...]] = []
    layer = nn.LazyLinear(3, bias=False).double().eval()
    layer.register_forward_hook(lambda module, inputs, out: seen.append(tuple(out.shape)))
    other = copy.deepcopy(layer)
    layer(gc.ones(2, 5, dtype=gc.float64))
    assert layer.weight.dtype is gc.float64
    assert not layer.training
    assert seen == [(2, 3)]
    assert other.has_uninitialized_params()
    assert other(gc.ones(1, 7, dtype=gc.float64)).shape == (1, 3)
    assert nn.LazyLinear(3).to("cpu")(gc.ones(2, 5)).shape == (2, 3)


def test_mistakes() -> None:
    layer = nn.LazyLinear(3)
    assert repr(layer.weight) == "<UninitializedParameter>"
    for use in (lambda: layer.weight + 1, lambda: layer.weight.shape, lambda: nn.init.zeros_(layer.weight)):
        with pytest.raises(ValueError, match="call the model once"):
            use()
    with pytest.raises(ValueError, match="call the model once"):
        gc.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="call the model once"):
        layer.load_state_dict(nn.Linear(2, 3).state_dict())
    with pytest.raises(RuntimeError, match=r"LazyLinear: .* call the model once before"):
        gc.compile(layer)(gc.ones(2, 5))
    assert layer.has_uninitialized_params()
    with pytest.raises(RuntimeError, match=r"Expected 3D .* or 4D .* input to LazyConv2d, .*\[5, 5\]"):
        nn.LazyConv2d(4, 3)(gc.ones(5, 5))
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.LazyBatchNorm2d()(gc.ones(2, 3))
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        nn.LazyConv1d(4, 3, groups=2)(gc.ones(1, 3, 5))
