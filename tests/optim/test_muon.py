"""Muon against PyTorch, whose iterations in bfloat16 are made in float32 here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

SHAPES = [(3, 5), (6, 2), (4, 4)]
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "plain": {"nesterov": False, "momentum": 0.3, "weight_decay": 0.0},
    "rms": {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "lr": 0.02},
    "coefficients": {"adjust_lr_fn": "original", "ns_coefficients": (1.5, -0.5, 0.1), "eps": 10.0},
}


def run(T: Any, options: dict[str, Any], compiled: bool = False) -> tuple[list[np.ndarray], Any]:
    rng = np.random.default_rng(3)
    ps = [T.tensor(rng.standard_normal(s), dtype=T.float32, requires_grad=True) for s in SHAPES]
    targets = [[T.tensor(rng.standard_normal(s), dtype=T.float32) for s in SHAPES] for _ in range(6)]
    opt = T.optim.Muon(ps, **options)

    def step(*goals: Any) -> None:
        opt.zero_grad()
        sum(((p - y) ** 2).sum() for p, y in zip(ps, goals, strict=True)).backward()
        opt.step()

    run_step = graphc.compile(step) if compiled else step
    for k, goals in enumerate(targets):
        if k == 3:
            opt.param_groups[0]["lr"] *= 0.5
        run_step(*goals)
    return [p.detach().numpy() for p in ps], opt


@pytest.mark.parametrize("case", CASES)
def test_steps_and_state(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    ours, opt = run(graphc, CASES[case])
    theirs, wanted = run(torch, CASES[case])
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p, q, rtol=2e-4, atol=2e-6)
    mine, other = opt.state_dict(), wanted.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    for i, state in other["state"].items():
        assert list(mine["state"][i]) == list(state) == ["momentum_buffer"]
        buffers = (held["momentum_buffer"].numpy() for held in (mine["state"][i], state))
        np.testing.assert_allclose(*buffers, rtol=1e-4, atol=1e-6)
    assert repr(opt) == repr(wanted)


@pytest.mark.parametrize("case", CASES)
def test_compiled(case: str) -> None:
    for p, q in zip(run(graphc, CASES[case])[0], run(graphc, CASES[case], compiled=True)[0], strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)


def test_more_iterations_are_another_program() -> None:
    p = graphc.tensor([[3.0, 0.0], [0.0, 0.5]], requires_grad=True)
    opt = graphc.optim.Muon([p], lr=1.0, weight_decay=0.0, momentum=0.0, ns_coefficients=(1.5, -0.5, 0.0))
    apart = []
    for steps in (1, 30):
        opt.param_groups[0]["ns_steps"] = steps
        before = p.detach().numpy().copy()
        opt.zero_grad()
        (p * p).sum().backward()
        opt.step()
        apart.append(np.abs(before - p.detach().numpy() - np.sign(np.diag(np.diag(before)))).max())
    assert apart[0] > 0.3
    assert apart[1] < 1e-4  # the orthogonal factor of a diagonal matrix is its signs


def test_refusals() -> None:
    p, v = graphc.zeros(2, 3, requires_grad=True), graphc.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match="only supports 2D parameters"):
        graphc.optim.Muon([p, v])
    optimizer = graphc.optim.Muon([p])
    with pytest.raises(ValueError, match="only supports 2D parameters"):
        optimizer.add_param_group({"params": [v]})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match="is not supported"):
        graphc.optim.Muon([p], adjust_lr_fn="other")
    with pytest.raises(ValueError, match="less than 100"):
        graphc.optim.Muon([p], ns_steps=100)
    with pytest.raises(ValueError, match="tuple of exactly 3"):
        graphc.optim.Muon([p], ns_coefficients=(1.0, 2.0))
    with pytest.raises(ValueError, match="beta2_decay"):
        graphc.optim.Adafactor([p], beta2_decay=0.5)
    with pytest.raises(ValueError, match="threshold"):
        graphc.optim.Adafactor([p], d=0.5)
