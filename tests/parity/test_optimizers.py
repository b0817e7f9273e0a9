"""Torch's optimizer database over five steps, and every scheduler over twenty epochs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc

from .convert import Outside, rebuild, to_graphc
from .databases import OPTIMIZERS, torch

STEPS, EPOCHS = 5, 20
OUTSIDE = {"Muon"}  # its iterations are in bfloat16 there: tests/optim/test_muon.py compares them in float32
SCHEDULERS: dict[str, list[dict[str, Any]]] = {
    "StepLR": [{"step_size": 3}, {"step_size": 4, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": [2, 5, 5, 12]}, {"milestones": [30], "gamma": 0.3}],
    "ExponentialLR": [{"gamma": 0.9}],
    "CosineAnnealingLR": [{"T_max": 7}, {"T_max": 20, "eta_min": 1e-3}],
    "CosineAnnealingWarmRestarts": [{"T_0": 5}, {"T_0": 3, "T_mult": 2, "eta_min": 1e-4}],
    "OneCycleLR": [
        {"max_lr": 0.5, "total_steps": 25},
        {"max_lr": [0.5, 0.2], "epochs": 5, "steps_per_epoch": 5, "anneal_strategy": "linear"},
        {"max_lr": 0.5, "total_steps": 30, "three_phase": True, "pct_start": 0.4, "cycle_momentum": False},
    ],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 4},
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 3, "step_size_down": 5, "mode": "triangular2"},
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9},
    ],
    "LinearLR": [{}, {"start_factor": 0.5, "end_factor": 0.8, "total_iters": 9}],
    "ConstantLR": [{}, {"factor": 0.5, "total_iters": 4}],
    "PolynomialLR": [{}, {"total_iters": 12, "power": 2.0}],
    "LambdaLR": [
        {"lr_lambda": lambda epoch: 0.9**epoch},
        {"lr_lambda": [lambda e: 1 / (1 + e), lambda e: 0.5]},
    ],
    "MultiplicativeLR": [{"lr_lambda": lambda epoch: 0.95}],
    "ReduceLROnPlateau": [
        {},
        {"patience": 2, "factor": 0.5, "cooldown": 1},
        {"mode": "max", "patience": 1, "threshold_mode": "abs", "min_lr": [0.01, 0.001]},
    ],
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def state_of(optimizer: Any) -> list[Any]:
    """The numbers of a state_dict in one order, tensors as arrays."""
    state = optimizer.state_dict()["state"]
    rows = []
    for key in sorted(state):
        for name, value in sorted(state[key].items()):
            if not isinstance(value, list) and value is not None:
                value = value.detach().numpy() if hasattr(value, "numpy") else value
                rows.append((key, name, np.asarray(value, np.float64)))
    return rows


def problem(T: Any, sparse: bool) -> tuple[list[Any], Callable[[], Any]]:
    """Parameters with fixed values and a loss of them."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    x, y = rng.standard_normal((5, 6)).astype(np.float32), rng.standard_normal((5, 4)).astype(np.float32)
    rows = np.array([[0, 2], [2, 3]])
    params = [T.nn.Parameter(T.tensor(weight.tolist()))]
    if sparse:
        index = T.tensor(rows.tolist())
        return params, lambda: (T.nn.functional.embedding(index, params[0], sparse=True) ** 2).sum()
    params.append(T.nn.Parameter(T.tensor(bias.tolist())))
    inputs, target = T.tensor(x.tolist()), T.tensor(y.tolist())
    return params, lambda: ((inputs @ params[0] + params[1] - target) ** 2).mean()


def train(T: Any, name: str, options: dict[str, Any], compile: bool = False) -> tuple[list[np.ndarray], Any]:
    """Every parameter after each step, and the optimizer."""
    params, loss = problem(T, name == "SparseAdam")
    optimizer = getattr(T.optim, name)(params, **options)

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    def step() -> Any:
        if name == "LBFGS":
            return optimizer.step(closure)
        value = closure()
        optimizer.step()
        return value

    run = T.compile(step) if compile else step
    history = []
    for _ in range(STEPS):
        run()
        history += [p.detach().numpy().copy() for p in params]
    return history, optimizer


def options_of(info: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The option sets of the database, in torch's and in our types."""
    for entry in info.optim_inputs_func(device="cpu"):
        try:
            yield entry.kwargs, rebuild(entry.kwargs, to_graphc)
        except Outside:
            continue


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - OUTSIDE))
def test_five_steps(name: str, record_property: Callable[[str, Any], None]) -> None:
    passed = count = 0
    problems = []
    for theirs, ours in options_of(OPTIMIZERS[name]):
        expected, reference = train(torch, name, dict(theirs))
        for compile in (False,) if name == "LBFGS" else (False, True):
            count += 1
            try:
                found, optimizer = train(graphc, name, dict(ours), compile)
                rtol = 5e-3 if name == "LBFGS" else 2e-4  # which magnifies rounding from step to step
                for a, b in zip(found, expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 100)
                if name != "LBFGS":  # torch's state holds a scratch list, and ours none
                    compare_states(optimizer, reference)
                passed += 1
            except Exception as error:
                text = " ".join(str(error).split())[:300]
                problems.append(f"{theirs} compile={compile}: {type(error).__name__}: {text}")
    record_property("parity", ["optimizer options", passed, count, 0, 0])
    assert not problems, "\n".join(problems)


def compare_states(ours: Any, theirs: Any) -> None:
    """The same groups, and the same state of the same parameters."""
    a, b = ours.state_dict(), theirs.state_dict()
    for group, wanted in zip(a["param_groups"], b["param_groups"], strict=True):
        assert list(group) == list(wanted)
    assert {k: sorted(v) for k, v in a["state"].items()} == {k: sorted(v) for k, v in b["state"].items()}
    for (*place, x), (*where, y) in zip(state_of(ours), state_of(theirs), strict=True):
        assert place == where
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6, err_msg=str(place))


# ------------------------------------------------------------------- schedulers


def rates(T: Any, name: str, options: dict[str, Any]) -> list[list[float]]:
    """Learning rates and momenta of two groups over the epochs."""
    groups = [{"params": [T.nn.Parameter(T.zeros(2))]}, {"params": [T.nn.Parameter(T.zeros(3))], "lr": 0.02}]
    optimizer = T.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = getattr(T.optim.lr_scheduler, name)(optimizer, **options)
    return follow(optimizer, scheduler, name == "ReduceLROnPlateau")


def follow(optimizer: Any, scheduler: Any, metric: bool) -> list[list[float]]:
    seen = []
    for epoch in range(EPOCHS):
        optimizer.step()
        if metric:
            scheduler.step(1.0 / (1 + min(epoch, 4)) + 0.01 * (epoch % 3))
        else:
            scheduler.step()
        seen.append([float(g[k]) for g in optimizer.param_groups for k in ("lr", "momentum")])
        seen.append([float(v) for v in scheduler.get_last_lr()])
    return seen


CASES = [(name, i) for name, cases in SCHEDULERS.items() for i in range(len(cases))]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_twenty_epochs(name: str, index: int, record_property: Callable[[str, Any], None]) -> None:
    options = SCHEDULERS[name][index]
    record_property("parity", ["schedules", 0, 1, 0, 0])
    for ours, theirs in zip(rates(graphc, name, options), rates(torch, name, options), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    record_property("parity", ["schedules", 1, 0, 0, 0])


def combined(T: Any, chained: bool) -> list[list[float]]:
    lr = T.optim.lr_scheduler
    optimizer = T.optim.SGD([T.nn.Parameter(T.zeros(2))], lr=0.1, momentum=0.9)
    parts = [lr.LinearLR(optimizer, 0.1, total_iters=4), lr.ExponentialLR(optimizer, 0.9)]
    if chained:
        return follow(optimizer, lr.ChainedScheduler(parts), False)
    return follow(optimizer, lr.SequentialLR(optimizer, parts, milestones=[6]), False)


@pytest.mark.parametrize("chained", [False, True])
def test_schedulers_combined(chained: bool) -> None:
    for ours, theirs in zip(combined(graphc, chained), combined(torch, chained), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_a_schedule_goes_on_from_its_state() -> None:
    """Half of a schedule, state_dict, and the other half elsewhere: the same rates."""
    for name, cases in SCHEDULERS.items():
        if name in ("LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau"):
            continue
        optimizer = graphc.optim.SGD([graphc.nn.Parameter(graphc.zeros(2))], lr=0.1, momentum=0.9)
        options = {k: v[0] if isinstance(v, list) and k == "max_lr" else v for k, v in cases[0].items()}
        scheduler = getattr(graphc.optim.lr_scheduler, name)(optimizer, **options)
        for _ in range(6):
            optimizer.step()
            scheduler.step()
        other = graphc.optim.SGD([graphc.nn.Parameter(graphc.zeros(2))], lr=0.1, momentum=0.9)
        again = getattr(graphc.optim.lr_scheduler, name)(other, **options)
        again.load_state_dict(scheduler.state_dict())
        other.load_state_dict(optimizer.state_dict())
        for _ in range(6):
            optimizer.step()
            other.step()
            scheduler.step()
            again.step()
            assert other.param_groups[0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"]), name
