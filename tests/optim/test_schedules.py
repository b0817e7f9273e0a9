"""Learning-rate schedules against PyTorch: the rates (and momenta) of many epochs, and their state."""

from __future__ import annotations

import inspect
import warnings

import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

CASES = {
    "StepLR": lambda S, o: S.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda S, o: S.MultiStepLR(o, [2, 5, 5], 0.3),
    "ConstantLR": lambda S, o: S.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda S, o: S.LinearLR(o, 0.2, 0.9, 6),
    "ExponentialLR": lambda S, o: S.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda S, o: S.PolynomialLR(o, 7, 2.0),
    "CosineAnnealingLR": lambda S, o: S.CosineAnnealingLR(o, 5, 0.01),
    "CosineAnnealingWarmRestarts": lambda S, o: S.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "LambdaLR": lambda S, o: S.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (e + 1)]),
    "MultiplicativeLR": lambda S, o: S.MultiplicativeLR(o, lambda e: 0.95),
    "CyclicLR": lambda S, o: S.CyclicLR(o, 0.01, [0.1, 0.2], 3, 4, "triangular2"),
    "CyclicLR exp": lambda S, o: S.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "CyclicLR scale_fn": lambda S, o: S.CyclicLR(
        o, 0.01, 0.1, 3, scale_fn=lambda x: 1 / x, cycle_momentum=False
    ),
    "OneCycleLR": lambda S, o: S.OneCycleLR(o, 0.3, 12),
    "OneCycleLR three": lambda S, o: S.OneCycleLR(
        o, [0.3, 0.2], epochs=3, steps_per_epoch=5, three_phase=True, anneal_strategy="linear"
    ),
    "SequentialLR": lambda S, o: S.SequentialLR(
        o, [S.LinearLR(o, 0.1, total_iters=3), S.CosineAnnealingLR(o, 6), S.ExponentialLR(o, 0.5)], [3, 8]
    ),
    "ChainedScheduler": lambda S, o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 3), S.ExponentialLR(o, 0.9)]),
}


def optimizer(T, name="SGD"):
    a, b = (T.zeros(2).requires_grad_(True) for _ in range(2))
    extra = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(T.optim, name)([{"params": [a]}, {"params": [b], "lr": 0.05}], lr=0.1, **extra)


def rates(T, build, name, count=12):
    opt = optimizer(T, name)
    schedule = build(T.optim.lr_scheduler, opt)
    found = []
    for _ in range(count):
        found.append([(g["lr"], g.get("momentum"), g.get("betas")) for g in opt.param_groups])
        assert schedule.get_last_lr() == [g["lr"] for g in opt.param_groups]
        opt.step()
        schedule.step()
    return found, schedule


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_rates(case, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (ours, a), (theirs, b) = (rates(T, CASES[case], name) for T in (graphc, torch))
    assert ours == theirs
    skip = ("_schedulers", "optimizer", "_get_lr_called_within_step", "_is_initial", "_scale_fn_custom")
    mine, wanted = a.state_dict(), b.state_dict()
    for key in set(wanted) - set(skip):
        assert mine[key] == wanted[key], key


def test_plateau():
    found = []
    for T in (graphc, torch):
        opt = optimizer(T)
        schedule = T.optim.lr_scheduler.ReduceLROnPlateau(
            opt, factor=0.5, patience=1, cooldown=1, min_lr=0.01
        )
        one = []
        for value in (1.0, 0.9, 0.9, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8):
            schedule.step(T.tensor(value))
            one.append([g["lr"] for g in opt.param_groups])
        found.append((one, {k: v for k, v in schedule.state_dict().items() if k != "optimizer"}))
    assert found[0][0] == found[1][0]
    assert {k: found[0][1][k] for k in found[1][1]} == found[1][1]


@pytest.mark.parametrize("case", ["StepLR", "CosineAnnealingLR", "OneCycleLR", "SequentialLR", "LambdaLR"])
def test_state_dict_resumes(case, tmp_path):
    """Through a file: the rest of the schedule is the same."""
    whole, _ = rates(graphc, CASES[case], "SGD")
    opt = optimizer(graphc)
    schedule = CASES[case](graphc.optim.lr_scheduler, opt)
    for _ in range(5):
        opt.step()
        schedule.step()
    graphc.save({"opt": opt.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "state")
    opt = optimizer(graphc)
    schedule = CASES[case](graphc.optim.lr_scheduler, opt)
    state = graphc.load(tmp_path / "state")
    schedule.load_state_dict(state["schedule"])
    opt.load_state_dict(state["opt"])
    rest = []
    for _ in range(5, 12):
        rest.append([(g["lr"], g.get("momentum"), g.get("betas")) for g in opt.param_groups])
        opt.step()
        schedule.step()
    assert rest == whole[5:]


def test_warns_of_the_wrong_order():
    opt = optimizer(graphc)
    schedule = graphc.optim.lr_scheduler.StepLR(opt, 3)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()


def test_bad_arguments():
    S, opt = graphc.optim.lr_scheduler, optimizer(graphc)
    with pytest.raises(TypeError, match="is not an Optimizer"):
        S.StepLR(3, 3)
    with pytest.raises(ValueError, match="Expected 2 lr_lambdas, but got 1"):
        S.LambdaLR(opt, [lambda e: 1])
    with pytest.raises(KeyError, match="initial_lr"):
        S.StepLR(opt, 3, last_epoch=4)
    with pytest.raises(ValueError, match="total_steps OR"):
        S.OneCycleLR(opt, 0.1)
    with pytest.raises(ValueError, match="milestones to be equal to 0"):
        S.SequentialLR(opt, [S.StepLR(opt, 1), S.StepLR(opt, 2)], [])


@pytest.mark.parametrize("name", graphc.optim.lr_scheduler.__all__)
def test_signature(name):
    ours, theirs = (inspect.signature(getattr(T.optim.lr_scheduler, name).__init__) for T in (graphc, torch))
    assert [(p.name, p.default) for p in ours.parameters.values()] == [
        (p.name, p.default) for p in theirs.parameters.values()
    ]
