"""Random tensors: distributions and reproducibility. repr: PyTorch's text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc

torch = pytest.importorskip("torch")


def test_same_seed_same_numbers() -> None:
    def draw() -> list[Any]:
        return [
            gc.rand(5),
            gc.randn(2, 3),
            gc.randint(0, 100, (4,)),
            gc.randperm(10),
            gc.bernoulli(gc.full((6,), 0.5)),
            gc.zeros(3).normal_(),
            gc.empty(3).uniform_(-1, 1),
            gc.multinomial(gc.ones(5), 3),
        ]

    gc.manual_seed(7)
    first = [t.tolist() for t in draw()]
    gc.manual_seed(7)
    assert [t.tolist() for t in draw()] == first
    assert [t.tolist() for t in draw()] != first


def test_generators_are_separate_and_have_state() -> None:
    g = gc.Generator().manual_seed(3)
    state = g.get_state()
    a = gc.rand(4, generator=g).tolist()
    gc.rand(4)
    b = gc.rand(4, generator=g).tolist()
    g.set_state(state)
    assert gc.rand(4, generator=g).tolist() == a
    assert gc.rand(4, generator=g).tolist() == b
    assert g.initial_seed() == 3


def test_distributions() -> None:
    n = 20_000
    assert abs(gc.rand(n).mean().item() - 0.5) < 0.01
    x = gc.randn(n).numpy()
    assert abs(x.mean()) < 0.03
    assert abs(x.std() - 1) < 0.03
    counts = np.bincount(gc.randint(2, 7, (n,)).numpy(), minlength=7)
    assert counts[:2].sum() == 0
    assert (abs(counts[2:] - n / 5) < 400).all()
    assert sorted(gc.randperm(50).tolist()) == list(range(50))
    assert abs(gc.bernoulli(gc.full((n,), 0.3)).mean().item() - 0.3) < 0.02
    y = gc.normal(gc.full((n,), 5.0), 2.0)
    assert abs(y.mean().item() - 5) < 0.1
    assert abs(y.std().item() - 2) < 0.1
    picks = gc.multinomial(gc.tensor([0.0, 1.0, 3.0]), 4000, replacement=True)
    assert abs((picks == 2).float().mean().item() - 0.75) < 0.05
    assert not (picks == 0).any()
    e = gc.zeros(n).exponential_(2.0)
    assert abs(e.mean().item() - 0.5) < 0.02


@pytest.mark.parametrize("compiled", [False, True])
def test_filled_with_numbers_of_a_distribution(compiled: bool) -> None:
    """Quantiles of what is drawn, where the distribution functions are known."""

    def draw(x: gc.Tensor) -> tuple[gc.Tensor, ...]:
        logs = gc.empty_like(x).log_normal_(0.5, 0.3)
        return logs, gc.empty_like(x).cauchy_(1.0, 2.0), gc.empty_like(x, dtype=gc.int64).geometric_(0.3)

    gc.manual_seed(1)
    logs, cauchy, trials = (gc.compile(draw) if compiled else draw)(gc.zeros(20_000))
    assert abs(logs.log().mean().item() - 0.5) < 0.01
    assert abs(logs.log().std().item() - 0.3) < 0.01
    for level, at in ((0.25, -1.0), (0.5, 1.0), (0.75, 3.0)):
        assert abs((cauchy < at).float().mean().item() - level) < 0.015
    for count in (1, 2, 5):
        assert abs((trials <= count).float().mean().item() - (1 - 0.7**count)) < 0.015
    assert trials.min().item() == 1


def test_refused_parameters_of_fills() -> None:
    x = gc.zeros(3)
    with pytest.raises(RuntimeError, match="std > 0"):
        x.log_normal_(std=0.0)
    with pytest.raises(RuntimeError, match="sigma > 0"):
        x.cauchy_(sigma=-1.0)
    with pytest.raises(RuntimeError, match="to be in"):
        x.geometric_(1.0)
    with pytest.raises(RuntimeError):
        gc.zeros(3, dtype=gc.int64).cauchy_()


@pytest.mark.parametrize(
    "data",
    [
        [1.0, 2.0, 3.0],
        3,
        2.5,
        [[1.5, float("nan"), float("inf")]],
        [1e10, 1.0],
        list(range(2000)),
        [True, False],
        [],
        [[], []],
        [-1.5, 2.0],
        [1e-5, 1.0],
        [[1, -20], [300, 4]],
        [0.0, -0.0],
        [1e-9],
        [100000.5, 2.25],
        np.arange(20000.0, dtype=np.float32).reshape(2, 100, 100),
        np.ones((2, 2)),
        np.ones(3, np.int32),
        np.linspace(0, 1, 1200, dtype=np.float32).reshape(2, 600),
        np.ones((1, 2, 3), np.uint8),
        np.arange(40) * 1000,
    ],
)
def test_repr(data: Any) -> None:
    assert repr(gc.tensor(data)).replace("graphc.", "torch.") == repr(torch.tensor(data))


def test_repr_of_history_and_options() -> None:
    for T in (gc, torch):
        x = T.ones(2, requires_grad=True)
        assert repr(x) == "tensor([1., 1.], requires_grad=True)"
        assert repr(x * 2) == "tensor([2., 2.], grad_fn=<MulBackward0>)"
        assert f"{T.tensor(1.23456):.2f} {T.tensor(3)}" == "1.23 3"
        T.set_printoptions(precision=2, sci_mode=False)
        assert repr(T.tensor([1.23456, 1e6])).endswith("1.23, 1000000.00])")
        T.set_printoptions(profile="default")
