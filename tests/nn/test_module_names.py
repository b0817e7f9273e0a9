"""Small promises of Module: children, register_module, extra_repr."""

from __future__ import annotations

import pytest

import graphc
from graphc import nn


class Doubled(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.inner = nn.Linear(2, 2, bias=False)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.inner(x) * self.times

    def extra_repr(self) -> str:
        return f"times={self.times}"


def test_children_are_the_direct_submodules_in_order() -> None:
    net = nn.Sequential(Doubled(2), nn.ReLU())
    assert [type(m) for m in net.children()] == [Doubled, nn.ReLU]
    assert [name for name, _ in net.named_children()] == ["0", "1"]
    assert len(list(net.modules())) == 4


def test_register_module_is_add_module() -> None:
    net = nn.Module()
    net.register_module("first", nn.Linear(1, 1))
    assert list(net.state_dict()) == ["first.weight", "first.bias"]
    with pytest.raises(KeyError, match=r"a\.b"):
        net.register_module("a.b", nn.Linear(1, 1))


def test_extra_repr_stands_in_the_text() -> None:
    assert repr(Doubled(3)) == (
        "Doubled(\n  times=3\n  (inner): Linear(in_features=2, out_features=2, bias=False)\n)"
    )
