"""Modules that are compiled one by one stay modules: parts of others, with parameters, settings and names."""

from __future__ import annotations

import copy

import pytest

import graphc as gc
from graphc import nn


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = gc.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
        self.last = nn.Linear(4, 2)

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        return self.last(self.body(x))


def plain_twin(model: Head) -> nn.Sequential:
    twin = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2))
    values = model.state_dict().values()
    twin.load_state_dict(dict(zip(twin.state_dict(), values, strict=True)))
    return twin


def losses(model: nn.Module, steps: int = 4) -> list[float]:
    gc.manual_seed(1)
    x = gc.randn(8, 3)
    optimizer = gc.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_a_compiled_part_is_trained_and_saved() -> None:
    model = Head()
    assert list(model.state_dict()) == ["body.0.weight", "body.0.bias", "last.weight", "last.bias"]
    expected = losses(plain_twin(model))
    assert losses(model) == expected
    assert model.body.compilations == 1


def test_a_compiled_module_is_one() -> None:
    compiled = gc.compile(nn.Linear(3, 4))
    assert isinstance(compiled, nn.Module)
    assert isinstance(compiled, nn.Linear)
    assert not isinstance(gc.compile(gc.relu), nn.Module)
    net = nn.Sequential(compiled, nn.ReLU())
    assert len(list(net.parameters())) == 2
    gc.manual_seed(0)
    x = gc.randn(5, 3)
    assert gc.equal(net(x), compiled._orig_mod(x).relu())


def test_what_is_set_on_a_compiled_module_is_set_on_the_original() -> None:
    norm = nn.BatchNorm1d(3)
    compiled = gc.compile(norm)
    x = gc.randn(6, 3)
    before = compiled(x)
    compiled.weight = nn.Parameter(gc.full((3,), 2.0))
    compiled.momentum = 0.5
    assert norm.weight[0].item() == 2.0
    assert norm.momentum == 0.5
    assert gc.allclose(compiled(x), 2 * before, atol=1e-6)


def test_copies_of_a_model_have_compiled_parts_of_their_own() -> None:
    model = Head()
    twin = copy.deepcopy(model)
    with gc.no_grad():
        twin.body._orig_mod[0].weight.zero_()
    x = gc.ones(1, 3)
    assert not gc.equal(model(x), twin(x))


def test_modes_and_dtypes_reach_compiled_parts() -> None:
    model = Head()
    assert not model.eval().body.training
    assert model.double().body._orig_mod[0].weight.dtype is gc.float64
    assert model(gc.ones(2, 3, dtype=gc.float64)).dtype is gc.float64


def test_an_error_names_the_path_through_a_compiled_part() -> None:
    model = Head()
    with pytest.raises(RuntimeError, match=r"Head\.body\.0"):
        model(gc.ones(2, 5))
