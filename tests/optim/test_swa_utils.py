"""Averages of weights, beside torch's: values after every update, batch norm's statistics, learning rates."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.optim import swa_utils

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
BATCHES = [RNG.standard_normal((4, 3, 5, 5)).astype(np.float32) for _ in range(6)]

RULES = {
    "mean": lambda u: {},
    "mean of tensors": lambda u: {"avg_fn": u.get_swa_avg_fn()},
    "mean of lists": lambda u: {"multi_avg_fn": u.get_swa_multi_avg_fn()},
    "moving": lambda u: {"avg_fn": u.get_ema_avg_fn(0.9)},
    "moving, lists": lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn(0.9)},
    "own": lambda u: {"avg_fn": lambda average, value, count: 0.75 * average + 0.25 * value},
    "moving with buffers": lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn(0.5), "use_buffers": True},
}


def network(T: Any, dtype: Any = None) -> Any:
    return T.nn.Sequential(T.nn.Conv2d(3, 4, 3), T.nn.BatchNorm2d(4), T.nn.Flatten(), T.nn.Linear(36, 2))


def pair() -> tuple[Any, Any]:
    torch.manual_seed(0)
    theirs, ours = network(torch), network(graphc)
    ours.load_state_dict({k: graphc.from_numpy(v.numpy().copy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


def train(T: Any, model: Any, averaged: Any, compiled: bool = False) -> None:
    optimizer = T.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(model)
        return loss

    run = T.compile(step) if compiled else step
    for batch in BATCHES:
        run(T.from_numpy(batch)).item()


def same_state(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), tolerance, tolerance, err_msg=name)


@pytest.mark.parametrize("compiled", [False, True], ids=["lazy", "compiled"])
@pytest.mark.parametrize("rule", RULES)
def test_averages_equal_torch(rule: str, compiled: bool) -> None:
    ours, theirs = pair()
    a = swa_utils.AveragedModel(ours, **RULES[rule](swa_utils))
    b = torch.optim.swa_utils.AveragedModel(theirs, **RULES[rule](torch.optim.swa_utils))
    train(graphc, ours, a, compiled)
    train(torch, theirs, b)
    same_state(a, b)
    x = BATCHES[0]
    a.eval()
    b.eval()
    np.testing.assert_allclose(
        a(graphc.from_numpy(x)).detach().numpy(), b(torch.from_numpy(x)).detach().numpy(), 1e-4, 1e-5
    )


@pytest.mark.parametrize("pairs", [False, True])
def test_update_bn_equals_torch(pairs: bool) -> None:
    ours, theirs = pair()
    ours.eval()
    theirs.eval()
    for T, model, utils in ((graphc, ours, swa_utils), (torch, theirs, torch.optim.swa_utils)):
        loader = [T.from_numpy(x) for x in BATCHES]
        utils.update_bn([(x, 0) for x in loader] if pairs else loader, model)
    same_state(ours, theirs)
    assert not ours.training
    assert ours[1].momentum == 0.1


def test_update_bn_without_batch_norm_reads_nothing() -> None:
    swa_utils.update_bn(iter(()), graphc.nn.Linear(2, 2))


@pytest.mark.parametrize("epochs", [0, 1, 4])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("rate", [0.05, [0.05, 0.2]])
def test_rates_equal_torch(epochs: int, strategy: str, rate: Any) -> None:
    seen = []
    for T in (graphc, torch):
        groups = [{"params": [T.nn.Parameter(T.zeros(2))], "lr": lr} for lr in (0.1, 0.3)]
        optimizer = T.optim.SGD(groups)
        schedule = T.optim.swa_utils.SWALR(optimizer, rate, anneal_epochs=epochs, anneal_strategy=strategy)
        rates = []
        for i in range(8):
            optimizer.step()
            schedule.step()
            rates.append(schedule.get_last_lr())
            if i == 3:
                schedule.load_state_dict(copy.deepcopy(schedule.state_dict()))
        seen.append(rates)
    np.testing.assert_allclose(*seen, rtol=1e-12)


def test_mistakes() -> None:
    model = graphc.nn.Linear(2, 2)
    rule = swa_utils.get_swa_avg_fn()
    with pytest.raises(AssertionError, match="Only one of avg_fn and multi_avg_fn"):
        swa_utils.AveragedModel(model, avg_fn=rule, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ValueError, match=r"Invalid decay value 1\.5"):
            make(1.5)
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="'cos' or 'linear'"):
        swa_utils.SWALR(optimizer, 0.1, anneal_strategy="steps")
    with pytest.raises(ValueError, match="equal or greater than 0, got -1"):
        swa_utils.SWALR(optimizer, 0.1, anneal_epochs=-1)
