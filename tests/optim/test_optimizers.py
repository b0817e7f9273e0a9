"""Every optimizer against PyTorch: parameters and state after many steps, lazily and compiled."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

STEPS = 8
CASES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "sgd maximize": ("SGD", {"lr": 0.01, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    "adam": ("Adam", {"lr": 0.05}),
    "adam all": (
        "Adam",
        {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True},
    ),
    "adam maximize": ("Adam", {"lr": 0.05, "maximize": True}),
    "adam small beta": ("Adam", {"lr": 0.05, "betas": (0.3, 0.9)}),
    "adamw": ("AdamW", {"lr": 0.05}),
    "adamw all": ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True, "maximize": True}),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad all": (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2},
    ),
    "adadelta": ("Adadelta", {"lr": 2.0, "rho": 0.8, "weight_decay": 0.1}),
    "rmsprop": ("RMSprop", {"lr": 0.05}),
    "rmsprop all": (
        "RMSprop",
        {"lr": 0.05, "alpha": 0.8, "momentum": 0.6, "centered": True, "weight_decay": 0.1},
    ),
    "adafactor": ("Adafactor", {"lr": 0.05}),
    "adafactor all": (
        "Adafactor",
        {"lr": 0.3, "beta2_decay": -0.6, "eps": (1e-3, 0.1), "d": 1.5, "weight_decay": 0.1, "maximize": True},
    ),
    "adamax": ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    "nadam": ("NAdam", {"lr": 0.05, "weight_decay": 0.1}),
    "nadam decoupled": ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": ("RAdam", {"lr": 0.05, "weight_decay": 0.1}),
    "radam rectified": ("RAdam", {"lr": 0.05, "betas": (0.8, 0.9), "maximize": True}),
    "asgd": ("ASGD", {"lr": 0.05, "lambd": 0.1, "t0": 2, "weight_decay": 0.1}),
    "rprop": ("Rprop", {"lr": 0.05, "etas": (0.4, 1.3), "step_sizes": (0.01, 0.2)}),
}
SHAPES = [(3, 4), (4,), ()]


def arrays(seed):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(s), np.float32) for s in SHAPES]


def parameters(T):
    return [T.from_numpy(a.copy()).requires_grad_(True) for a in arrays(0)]


def loss_of(T, ps, k):
    """A loss whose gradients differ at every step."""
    total = 0.0
    for p, a in zip(ps, arrays(k), strict=True):
        total = total + ((p - T.from_numpy(a)) ** 2).sum() * (1 + k % 3)
    return total


def run(T, name, options, steps=STEPS):
    ps = parameters(T)
    opt = getattr(T.optim, name)([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.02}], **options)
    for k in range(steps):
        opt.zero_grad()
        loss_of(T, ps, k).backward()
        if k == 3:
            opt.param_groups[0]["lr"] *= 0.5
        opt.step()
    return ps, opt


def plain(value):
    """Tensors as arrays, all through a state dict."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.detach().numpy() if hasattr(value, "detach") else value


def assert_same(a, b):
    assert type(a) is type(b) or not isinstance(a, dict | list)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    else:
        assert a == b


@pytest.mark.parametrize("case", CASES)
def test_steps_and_state(case):
    name, options = CASES[case]
    (ours, opt), (theirs, wanted) = run(graphc, name, options), run(torch, name, options)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-5, atol=1e-6)
    assert_same(plain(opt.state_dict()), plain(wanted.state_dict()))
    assert repr(opt) == repr(wanted)


@pytest.mark.parametrize("case", CASES)
def test_compiled_step_equals_lazy(case):
    """One program for all steps: a new learning rate does not recompile."""
    name, options = CASES[case]
    lazy, _ = run(graphc, name, options)
    ps = parameters(graphc)
    opt = getattr(graphc.optim, name)([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.02}], **options)

    @graphc.compile
    def step(a, b, c, scale):
        opt.zero_grad()
        total = 0.0
        for p, x in zip(ps, (a, b, c), strict=True):
            total = total + ((p - x) ** 2).sum() * scale
        total.backward()
        opt.step()
        return total

    for k in range(STEPS):
        if k == 3:
            opt.param_groups[0]["lr"] *= 0.5
        step(*[graphc.from_numpy(a) for a in arrays(k)], float(1 + k % 3))
    for p, q in zip(ps, lazy, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_state_dict_resumes(case):
    """Saved in the middle, loaded into a fresh optimizer: the same end."""
    name, options = CASES[case]
    whole, _ = run(graphc, name, options)
    ps, opt = run(graphc, name, options, 4)
    saved = copy.deepcopy(opt.state_dict())
    fresh = getattr(graphc.optim, name)([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.7}], lr=9.0)
    fresh.load_state_dict(saved)
    for k in range(4, STEPS):
        fresh.zero_grad()
        loss_of(graphc, ps, k).backward()
        fresh.step()
    for p, q in zip(ps, whole, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_parameters_that_miss_a_step_keep_their_count():
    counts = []
    for T in (graphc, torch):
        a, b = parameters(T)[:2]
        opt = T.optim.Adam([a, b], lr=0.1)
        for k in range(4):
            opt.zero_grad()
            loss = (a * a).sum() + ((b * b).sum() if k % 2 == 0 else 0.0)
            loss.backward()
            opt.step()
        counts.append([opt.state[p]["step"].item() for p in (a, b)])
        counts.append([p.detach().numpy() for p in (a, b)])
    assert counts[0] == counts[2] == [4.0, 2.0]
    for p, q in zip(counts[1], counts[3], strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-5)


def test_closure_hooks_and_user_optimizers():
    a = parameters(graphc)[0]

    class Plain(graphc.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @graphc.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=-group["lr"])

    seen = []
    opt = Plain([a], 0.5)
    opt.register_step_pre_hook(lambda *_: seen.append("before"))
    opt.register_step_post_hook(lambda *_: seen.append("after"))
    before = a.detach().numpy().copy()
    (a * a).sum().backward()
    opt.step()
    assert seen == ["before", "after"]
    np.testing.assert_allclose(a.detach().numpy(), before - 0.5 * 2 * before, atol=1e-6)

    sgd = graphc.optim.SGD([a], lr=0.1)

    def closure():
        sgd.zero_grad()
        loss = (a * a).sum()
        loss.backward()
        return loss

    assert sgd.step(closure).item() >= 0


def test_groups_and_wrong_options():
    a, b, c = parameters(graphc)
    optim = graphc.optim
    opt = optim.SGD([("first", a)], lr=0.1)
    assert opt.param_groups[0]["param_names"] == ["first"]
    opt.add_param_group({"params": [("second", b)], "lr": 0.2})
    assert [g["lr"] for g in opt.param_groups] == [0.1, 0.2]
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [("again", a)]})
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([a * 2])
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="iterable of Tensors"):
        optim.SGD(a)
    with pytest.raises(TypeError, match=r"iterable of Tensors or dicts, but got method \(call it"):
        optim.SGD(graphc.nn.Linear(2, 2).parameters)
    with pytest.raises(TypeError, match="ordered collections"):
        optim.SGD([{"params": {a}}])
    with pytest.raises(ValueError, match=r"Invalid learning rate: -1"):
        optim.Adam([a], lr=-1)
    with pytest.raises(ValueError, match="Nesterov"):
        optim.SGD([a], nesterov=True)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        opt.load_state_dict(optim.SGD([a]).state_dict())
    with pytest.raises(ValueError, match=r"size of optimizer's group: group 0 has 1 parameters, here 2"):
        optim.SGD([a, b]).load_state_dict(optim.SGD([a]).state_dict())
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        optim.Adam([c], fused=True, foreach=True)


def test_zero_grad_and_deepcopy():
    a = parameters(graphc)[0]
    opt = graphc.optim.Adam([a])
    (a * a).sum().backward()
    opt.zero_grad(set_to_none=False)
    assert a.grad.abs().sum().item() == 0
    opt.zero_grad()
    assert a.grad is None
    opt.step()  # nothing to do
    assert opt.state_dict()["state"] == {}


NAMES = [n for n in graphc.optim.__all__ if inspect.isclass(getattr(graphc.optim, n)) and n != "Optimizer"]


@pytest.mark.parametrize("name", NAMES)
def test_signature(name):
    ours, theirs = (inspect.signature(getattr(T.optim, name).__init__) for T in (graphc, torch))
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in theirs.parameters.values()
    ]
