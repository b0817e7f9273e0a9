"""trace and compile: equal to lazy runs, one program a signature, state in place, mistakes."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.evaluation import lazy
from graphc.frontend.tracing import trace as tracing
from graphc.ir.graph import Graph

RNG = np.random.default_rng(1)
X = RNG.standard_normal((16, 8)).astype(np.float32)
Y = RNG.integers(0, 4, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # no bias before the normalisation: its gradient is pure rounding, which Adam makes large
        first = nn.Linear(8, 16, bias=False)
        self.body = nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, 4))

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        return self.body(x)


def parts(optimizer: str = "Adam") -> tuple[Net, Any, Any]:
    gc.manual_seed(0)
    net = Net()
    return net, getattr(gc.optim, optimizer)(net.parameters(), lr=0.05), nn.CrossEntropyLoss()


def stepper(net: Net, opt: Any, loss_of: Callable[..., gc.Tensor]) -> Callable[..., gc.Tensor]:
    def step(x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
        opt.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        opt.step()
        return loss

    return step


def losses(mode: str, optimizer: str = "Adam", n: int = 6) -> tuple[list[float], list[np.ndarray]]:
    net, opt, loss_of = parts(optimizer)
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    step = stepper(net, opt, loss_of)
    if mode == "compiled":
        step = gc.compile(step)
    elif mode == "forward":
        forward = gc.compile(lambda a, b: loss_of(net(a), b))

        def step(x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
            opt.zero_grad()
            loss = forward(x, y)
            loss.backward()
            opt.step()
            return loss

    elif mode == "module":
        compiled = gc.compile(net)

        def step(x: gc.Tensor, y: gc.Tensor) -> gc.Tensor:
            opt.zero_grad()
            loss = loss_of(compiled(x), y)
            loss.backward()
            opt.step()
            return loss

    gc.manual_seed(5)
    found = [step(x, y).item() for _ in range(n)]
    return found, [v.detach().numpy() for v in net.state_dict().values()]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("mode", ["compiled", "forward", "module"])
def test_compiled_training_equals_lazy(mode: str, optimizer: str) -> None:
    expected, state = losses("lazy", optimizer)
    found, other = losses(mode, optimizer)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for a, b in zip(other, state, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.native
def test_native_compiled_training_equals_lazy() -> None:
    expected, state = losses("lazy")
    found, other = losses("compiled")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for a, b in zip(other, state, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_one_program_one_call_and_state_in_place() -> None:
    net, opt, loss_of = parts()
    step = gc.compile(stepper(net, opt, loss_of))
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    step(x, y)
    arrays = [lazy.value(p) for p in net.parameters()]
    lazy.STATS.native_calls = 0
    for i in range(4):
        opt.param_groups[0]["lr"] = 0.01 / (i + 1)
        step(x, y)
    assert (step.compilations, step.native_calls) == (1, 5)
    assert lazy.STATS.native_calls == 4  # the compiled calls, and nothing besides
    assert all(lazy.value(p) is a for p, a in zip(net.parameters(), arrays, strict=True))
    assert all(p.grad is None for p in net.parameters())
    assert opt.state[next(net.parameters())]["step"].item() == 5


def test_learning_rate_is_read_at_each_call() -> None:
    net, opt, loss_of = parts("SGD")
    step = gc.compile(stepper(net, opt, loss_of))
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    step(x, y)
    before = [p.detach().numpy() for p in net.parameters()]
    opt.param_groups[0]["lr"] = 0.0
    step(x, y)
    assert all((p.detach().numpy() == b).all() for p, b in zip(net.parameters(), before, strict=True))


def test_gradients_without_a_step_reach_the_parameters() -> None:
    def run(wrap: Callable[..., Any]) -> list[np.ndarray]:
        w = gc.ones(8, 4, requires_grad=True)

        def accumulate(x: gc.Tensor) -> gc.Tensor:
            loss = (x @ w).relu().sum()
            loss.backward()
            return loss.detach()

        f = wrap(accumulate)
        for k in range(3):
            f(gc.from_numpy(X) * (k + 1))
        return [w.grad.numpy()]

    np.testing.assert_allclose(run(gc.compile)[0], run(lambda f: f)[0], rtol=1e-5)


def test_detach_inside_holds_for_the_backward_pass_outside() -> None:
    w = gc.from_numpy(np.full(3, 2.0, np.float32)).requires_grad_()
    f = gc.compile(lambda x: ((w * 3).detach() * w * x).sum())
    f(gc.ones(3)).backward()
    assert w.grad.tolist() == [6, 6, 6]


def test_arguments_that_require_grad() -> None:
    a = gc.from_numpy(X).requires_grad_()
    f = gc.compile(lambda x: (x * x).relu())
    out = f(a)
    out.backward(gc.ones_like(out))
    np.testing.assert_allclose(a.grad.numpy(), 2 * X, rtol=1e-6)
    with gc.no_grad():
        assert not f(a).requires_grad
    inner = gc.compile(lambda x: (x * x).sum().backward())
    inner(a)
    np.testing.assert_allclose(a.grad.numpy(), 4 * X, rtol=1e-6)


def test_numbers_are_inputs_and_other_things_are_static() -> None:
    f = gc.compile(lambda x, s, flag=True: x * s if flag else x + s)
    x = gc.ones(2)
    assert f(x, 2.0).tolist() == [2, 2]
    assert f(x, 3.0).tolist() == [3, 3]
    assert f.compilations == 1
    assert f(x, 3.0, flag=False).tolist() == [4, 4]
    assert f(gc.ones(3), 1.0).tolist() == [1, 1, 1]
    assert f(x.double(), 1.0).dtype is gc.float64
    assert f.compilations == 4
    assert len(f.explain()) == 4
    assert "shape [2] to shape [3]" in f.explain()[2]


def test_a_number_whose_value_is_needed_becomes_static() -> None:
    f = gc.compile(lambda x, s: x * math.sqrt(s))
    assert f(gc.ones(1), 4.0).item() == 2
    assert f(gc.ones(1), 9.0).item() == 3


def test_train_and_eval_are_two_programs() -> None:
    net, _, _ = parts()
    f = gc.compile(net)
    x = gc.from_numpy(X)
    with gc.no_grad():
        f(x)
        net.eval()
        a, b = f(x), f(x)
        net.train()
        f(x)
    assert a.tolist() == b.tolist()
    assert f.compilations == 2
    assert "eval mode" in f.explain()[1]


def test_recompilation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    f = gc.compile(lambda x: x + 1)
    with caplog.at_level(logging.INFO, logger="graphc"):
        f(gc.ones(2))
        f(gc.ones(3))
    assert [r.message.count("\n") for r in caplog.records] == [0, 0]
    assert "shape [2] to shape [3]" in caplog.records[1].message


def test_structured_arguments_and_results() -> None:
    f = gc.compile(lambda batch, *, scale: {"sum": batch["a"] + batch["b"][0], "same": batch["a"], "n": 3})
    a = gc.ones(2)
    found = f({"a": a, "b": [gc.ones(2), "label"]}, scale=1)
    assert found["sum"].tolist() == [2, 2]
    assert found["same"] is a
    assert found["n"] == 3


def test_in_place_changes_of_arguments_and_closures() -> None:
    state, counter = gc.zeros(3), gc.tensor(0)

    @gc.compile
    def f(x: gc.Tensor) -> gc.Tensor:
        state[1] += x.sum()
        counter.add_(1)
        x.mul_(2)
        return state

    x = gc.ones(2)
    assert f(x) is state
    f(x)
    assert state.tolist() == [0, 6, 0]
    assert counter.item() == 2
    assert x.tolist() == [4, 4]
    assert f.compilations == 1


def test_views_and_copies_of_state_stay_right() -> None:
    w = gc.zeros(4)
    half, copy = w[:2], w.clone()
    f = gc.compile(lambda: w.add_(1))
    f()
    later = w.clone()
    pending = w * 10
    f()
    assert w.tolist() == [2] * 4
    assert half.tolist() == [2, 2]
    assert copy.tolist() == [0] * 4
    assert later.tolist() == [1] * 4
    assert pending.tolist() == [10] * 4


def test_old_history_keeps_old_state() -> None:
    w = gc.ones(3, requires_grad=True)

    def bump() -> None:
        with gc.no_grad():
            w.mul_(3)

    f = gc.compile(bump)
    f()
    loss = (w * w).sum()
    f()
    loss.backward()
    assert w.grad.tolist() == [6, 6, 6]
    assert w.tolist() == [9, 9, 9]


def test_leaves_used_before_the_trace_are_inputs_of_it() -> None:
    w = gc.from_numpy(np.ones(3, np.float32)).requires_grad_()
    earlier = w * 2
    f = gc.compile(lambda x: (w * x).sum())
    loss = f(gc.full((3,), 2.0))
    loss.backward()
    assert w.grad.tolist() == [2, 2, 2]
    w.data.mul_(5)
    assert f(gc.full((3,), 2.0)).item() == 30
    assert earlier.tolist() == [2, 2, 2]


def test_argument_that_is_also_state() -> None:
    w = gc.ones(2)

    @gc.compile
    def f(x: gc.Tensor) -> gc.Tensor:
        w.mul_(3)
        return x + w

    assert f(w).tolist() in ([4, 4], [6, 6])  # the argument as it was at the call, or as it is
    assert w.tolist() == [3, 3]


def test_state_replaced_between_calls() -> None:
    w = gc.ones(2)
    f = gc.compile(lambda x: w.add_(x) * 1)
    f(gc.ones(2))
    w.data = gc.full((2,), 10.0)
    assert f(gc.ones(2)).tolist() == [11, 11]
    w.data = gc.full((3,), 20.0)
    assert f(gc.ones(3)).tolist() == [21, 21, 21]


def test_random_draws_advance_and_equal_lazy_ones() -> None:
    def draw() -> tuple[gc.Tensor, gc.Tensor]:
        return gc.rand(3), gc.randn(2) + gc.randint(0, 9, (2,))

    f = gc.compile(draw)
    gc.manual_seed(3)
    compiled = [[t.tolist() for t in f()] for _ in range(3)]
    gc.manual_seed(3)
    plain = [[t.tolist() for t in draw()] for _ in range(3)]
    assert compiled == plain
    assert compiled[0] != compiled[1]


def test_values_are_refused_with_advice() -> None:
    def branch(x: gc.Tensor) -> gc.Tensor:
        if x.sum() > 0:
            return x
        return -x

    for f, text in (
        (branch, "graphc.where"),
        (lambda x: x[x > 0], "graphc.where(mask, x, other)"),
        (lambda x: gc.nonzero(x), "shapes are static"),
        (lambda x: x * x.max().item(), "graphc.where"),
        (lambda x: float(x[0]), "not known while tracing"),
    ):
        with pytest.raises(gc.TracerError) as caught:
            gc.compile(f)(gc.ones(2))
        assert text in str(caught.value)
        assert "test_compile.py:" in str(caught.value)


def test_state_read_inside_is_refused() -> None:
    flag = gc.tensor(1.0)
    with pytest.raises(gc.TracerError, match="outside"):
        gc.compile(lambda x: x if flag.item() else -x)(gc.ones(2))


def test_leaked_tracer() -> None:
    kept: list[gc.Tensor] = []

    def leak(x: gc.Tensor) -> gc.Tensor:
        kept.append(x * 2)
        return x + 1

    gc.compile(leak)(gc.ones(2))
    with pytest.raises(RuntimeError, match="leaked tracer") as caught:
        kept[0].tolist()
    assert "test_compile.py:" in str(caught.value)
    with pytest.raises(RuntimeError, match="leaked tracer"):
        gc.compile(lambda x: x + kept[0])(gc.ones(2))
    gc.sync()


def test_failures_leave_everything_as_it_was() -> None:
    net, opt, loss_of = parts()
    step = gc.compile(stepper(net, opt, loss_of))
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    step(x, y)
    bad = gc.from_numpy(np.where(Y == 2, 9, Y))
    before = [v.detach().numpy() for v in net.state_dict().values()]
    with pytest.raises(IndexError):
        step(x, bad)
    for a, b in zip(net.state_dict().values(), before, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b)
    step(x, y)

    def broken(x: gc.Tensor) -> gc.Tensor:
        with gc.no_grad():
            for p in net.parameters():
                p.zero_()
        (net(x).sum()).backward()
        raise KeyError("user")

    weights = [p.detach().numpy() for p in net.parameters()]
    with pytest.raises(KeyError):
        gc.compile(broken)(x)
    for p, b in zip(net.parameters(), weights, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), b)
        assert p.grad is None


@pytest.mark.native
def test_label_out_of_range_in_native_code() -> None:
    net, opt, loss_of = parts()
    step = gc.compile(stepper(net, opt, loss_of))
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    step(x, y)
    before = [v.detach().numpy() for v in net.state_dict().values()]
    with pytest.raises(IndexError, match="out of bounds"):
        step(x, gc.from_numpy(np.full(16, 4)))
    for a, b in zip(net.state_dict().values(), before, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b)


def test_trace_gives_a_graph() -> None:
    graph = gc.trace(lambda a, b: (a @ b).relu(), gc.TensorSpec((2, 3)), gc.TensorSpec((3, 4)))
    assert isinstance(graph, Graph)
    assert [n.op.name for n in graph.nodes][:3] == ["input", "input", "dot_general"]
    assert graph.outputs[0].shape == (2, 4)
    net, opt, loss_of = parts()
    step = gc.trace(stepper(net, opt, loss_of), gc.from_numpy(X), gc.from_numpy(Y))
    assert "body.0.weight" in step.input_names
    assert len(step.outputs) > 12
    assert gc.trace(gc.eye(3)).item() == 3


def test_in_trace_forms_of_indexing() -> None:
    x = gc.from_numpy(X[:4, :4].copy())
    i = gc.tensor([2, 0, 2])
    m = x > 0

    def f(x: gc.Tensor, i: gc.Tensor, m: gc.Tensor) -> list[gc.Tensor]:
        a = x.clone()
        a[i] = gc.arange(12.0).reshape(3, 4)
        b = x.clone()
        b[m] = 0
        c = x.clone()
        c[m] = gc.arange(16.0)[: c.numel()]
        return [
            x[i],
            x[:, i],
            x[i, i],
            a,
            b,
            c,
            x.gather(1, i.expand(4, 3)),
            x.scatter(1, i.expand(4, 3), 5.0),
        ]

    with pytest.raises(RuntimeError):
        f(x, i, m)  # c: as many values as True elements are needed when the mask is known
    found = gc.compile(f)(x, i, m)
    np_x, np_i = X[:4, :4], np.array([2, 0, 2])
    np.testing.assert_array_equal(found[0].numpy(), np_x[np_i])
    np.testing.assert_array_equal(found[2].numpy(), np_x[np_i, np_i])
    a = np_x.copy()
    a[np_i] = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(found[3].numpy(), a)
    np.testing.assert_array_equal(found[4].numpy(), np.where(np_x > 0, 0, np_x))
    c = np_x.copy()
    c[np_x > 0] = np.arange((np_x > 0).sum())
    np.testing.assert_array_equal(found[5].numpy(), c)
    with pytest.raises(IndexError, match="out of bounds"):
        gc.compile(lambda x, i: x[i])(x, gc.tensor([4]))
    assert gc.compile(lambda x, i: x[i])(x, gc.tensor([-1])).tolist() == [X[3, :4].tolist()]


def test_dynamic_numbers_keep_python_precision() -> None:
    value = [0.1]
    f = gc.compile(lambda x: x * (tracing.dynamic(lambda: value[0]) * 3))
    x = gc.ones(1, dtype=gc.float64)
    assert f(x).item() == 0.1 * 3
    value[0] = 0.7
    assert f(x).item() == 0.7 * 3
    assert f.compilations == 1


def test_guards() -> None:
    settings = {"k": 2}
    f = gc.compile(lambda x: x * tracing.guard(lambda: settings["k"]))
    assert f(gc.ones(1)).item() == 2
    settings["k"] = 3
    assert f(gc.ones(1)).item() == 3
    assert "changed from 2 to 3" in f.explain()[1]


def test_compiled_forward_in_eval_and_module_attributes() -> None:
    net, _, _ = parts()
    f = gc.compile(net)
    assert f.body is net.body
    assert isinstance(f.state_dict(), dict)
    net.eval()
    with gc.no_grad():
        np.testing.assert_allclose(
            f(gc.from_numpy(X)).numpy(), net(gc.from_numpy(X)).numpy(), rtol=1e-5, atol=1e-6
        )


def test_freezing_a_layer_retraces() -> None:
    net, opt, loss_of = parts("SGD")
    step = gc.compile(stepper(net, opt, loss_of))
    x, y = gc.from_numpy(X), gc.from_numpy(Y)
    step(x, y)
    frozen = net.body[0].weight
    frozen.requires_grad_(False)
    before = frozen.numpy()
    step(x, y)
    np.testing.assert_array_equal(frozen.numpy(), before)
    assert "requires_grad=False" in step.explain()[1]
    frozen.requires_grad_(True)
    step(x, y)
    assert (frozen.detach().numpy() != before).any()
    assert len(step.explain()) == 2


def test_replaced_members_retrace() -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    f = gc.compile(net)
    x = gc.from_numpy(X)
    with gc.no_grad():
        f(x)
        nn.Linear(3, 3)  # an edit elsewhere changes nothing
        f(x)
        assert f.compilations == 1
        net[0] = nn.Linear(8, 2)
        assert tuple(f(x).shape) == (16, 2)
        net[0].weight = nn.Parameter(gc.zeros(2, 8))
        net[0].bias = nn.Parameter(gc.full((2,), 5.0))
        assert f(x)[0].tolist() == [5, 5]
    assert "of Sequential was replaced" in f.explain()[1]
    assert "of Linear was replaced" in f.explain()[2]


@pytest.mark.parametrize("backward", [False, True])
def test_a_leaf_used_again_after_its_update(backward: bool) -> None:
    """The second loss of a step reads the new weight, also when its history leaves the compiled call."""

    def run(compiled: bool) -> list[Any]:
        w = gc.tensor([1.0, 2.0, 3.0]).requires_grad_(True)
        opt = gc.optim.SGD([w], lr=0.1)

        def step(x: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
            opt.zero_grad()
            first = (w * w * x).sum()
            first.backward()
            opt.step()
            return first, (w * w * x).sum()

        f = gc.compile(step) if compiled else step
        seen: list[Any] = []
        for _ in range(3):
            first, second = f(gc.ones(3))
            if backward:
                w.grad = None
                second.backward()
                seen.append(w.grad.tolist())
            seen += [first.item(), second.item(), w.tolist()]
        return seen

    lazy_run = run(False)
    assert lazy_run[-1][0] < 1
    assert run(True) == lazy_run


def test_a_sum_of_used_up_losses_needs_no_replay() -> None:
    """Their history is freed, so the step is still one native call that returns plain values."""
    w = gc.tensor([1.0, 2.0]).requires_grad_(True)
    opt = gc.optim.SGD([w], lr=0.1)

    def step(x: gc.Tensor) -> gc.Tensor:
        opt.zero_grad()
        losses = [(w * x).square().sum(), (w + x).square().sum()]
        for loss in losses:
            loss.backward()
        opt.step()
        return losses[0] + losses[1]

    compiled = gc.compile(step)
    compiled(gc.ones(2))
    before = gc.native_calls()
    total = compiled(gc.ones(2))
    assert gc.native_calls() == before + 1
    assert total.grad_fn is None
    assert total.item() > 0


# ------------------------------------------------------------- gradients that go through Python


class Doubling(gc.autograd.Function):
    """The identity with twice its gradient."""

    @staticmethod
    def forward(ctx: Any, x: gc.Tensor) -> gc.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: gc.Tensor) -> gc.Tensor:
        return g * 2


def _own_function(x: gc.Tensor) -> gc.Tensor:
    return Doubling.apply(x).square()


def _hook_inside(x: gc.Tensor) -> gc.Tensor:
    hidden = x * 3
    if hidden.requires_grad:
        hidden.register_hook(lambda g: g * 2)
    return hidden.square()


def _hook_on_argument(x: gc.Tensor) -> gc.Tensor:
    if x.requires_grad:
        x.register_hook(lambda g: g * 2)
    return x.square()


def _module_hook(x: gc.Tensor) -> gc.Tensor:
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda module, inner, outer: (inner[0] * 2,))
    return layer(x)


@pytest.mark.parametrize("function", [_own_function, _hook_inside, _hook_on_argument, _module_hook])
def test_gradients_of_compiled_forward_go_through_python(function: Callable[..., Any]) -> None:
    """A backward pass outside calls Functions and hooks inside: the function is called as it is."""
    compiled = gc.compile(function)
    for _ in range(3):
        mine, theirs = (gc.tensor([1.0, -2.0]).requires_grad_(True) for _ in range(2))
        compiled(mine).sum().backward()
        function(theirs).sum().backward()
        assert mine.grad.tolist() == theirs.grad.tolist()
    assert compiled.compilations == 0
    assert "gradients go through" in compiled.explain()[0]
    with gc.no_grad():  # without history it is a program as any other
        assert compiled(gc.ones(2)).tolist() == pytest.approx(function(gc.ones(2)).tolist())
    assert compiled.compilations == 1


class Scaled(nn.Module):
    """Its own code counts calls; users change `factor` and `on`."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.on, self.calls = 2.0, True, 0

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        self.calls += 1
        return x * self.factor if self.on else x


def test_settings_of_users_modules_are_checked() -> None:
    """A number or flag that is an attribute of a module is part of what a program assumes."""
    inner = Scaled()
    net = nn.Sequential(inner, nn.ReLU())
    compiled = gc.compile(net)
    x = gc.ones(2)
    assert [compiled(x).tolist() for _ in range(3)] == [[2.0, 2.0]] * 3
    assert compiled.compilations == 1  # what the traced function itself changes is no condition
    inner.factor = 3.0
    assert compiled(x).tolist() == [3.0, 3.0]
    assert "'factor' of Scaled changed from 2.0 to 3.0" in compiled.explain()[-1]
    inner.on = False
    assert compiled(x).tolist() == [1.0, 1.0]
    inner.factor, inner.on = 2.0, True
    assert compiled(x).tolist() == [2.0, 2.0]
    assert compiled.compilations == 3


def test_detached_values_with_history_may_be_captured() -> None:
    """Targets computed outside: their base has history, which the detached tensor does not follow."""
    w = gc.tensor([1.0, 2.0]).requires_grad_(True)
    base = w * 3
    target = base.detach()
    compiled = gc.compile(lambda x: (w * x - target[:1]).square().sum())
    compiled(gc.ones(2)).backward()
    assert w.grad.tolist() == [-4.0, -2.0]
    w.grad = None
    compiled(gc.ones(2)).backward()
    gc.optim.SGD([w], lr=0.1).step()
    np.testing.assert_allclose(w.tolist(), [1.4, 2.2], rtol=1e-6)
    base = w * 3

    def reads_both(x: gc.Tensor) -> gc.Tensor:
        with gc.no_grad():
            scale = base.sum()
        return (base * x).sum() * scale

    with pytest.raises(RuntimeError, match="uses a tensor from outside that has history"):
        gc.compile(reads_both)(gc.ones(2))


class Averaging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", gc.zeros(2))
        self.w = nn.Parameter(gc.ones(2))

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.mean(0).detach()
        return (x - self.mean) * self.w


@pytest.mark.parametrize("whole", [False, True])
def test_buffers_that_are_assigned_are_updated(whole: bool) -> None:
    """`self.buffer = value` in a compiled forward changes the buffer at every call, as in a lazy run."""
    results = []
    for wrap in (lambda f: f, gc.compile):
        model = Averaging()
        forward = model if whole else wrap(model)
        opt = gc.optim.SGD(model.parameters(), lr=0.1)

        def step(x: gc.Tensor, forward: Any = forward, opt: Any = opt) -> gc.Tensor:
            opt.zero_grad()
            loss = forward(x).square().sum()
            loss.backward()
            opt.step()
            return loss

        run = wrap(step) if whole else step
        losses = [run(gc.tensor(X[i : i + 3, :2])).item() for i in range(4)]
        results.append((losses, model.mean.tolist(), model.w.tolist()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)
    np.testing.assert_allclose(results[0][2], results[1][2], rtol=1e-5)


def test_options_that_do_nothing_say_so_and_disable_disables() -> None:
    def double(x: gc.Tensor) -> gc.Tensor:
        return x * 2

    with pytest.warns(UserWarning, match="'max_autotune'.* have no effect"):
        compiled = gc.compile(double, mode="max-autotune", options={"max_autotune": True})
    assert compiled(gc.ones(2)).tolist() == [2.0, 2.0]
    assert gc.compile(double, disable=True) is double
    assert gc.compile(disable=True)(double) is double


def test_copies_of_compiled_modules_have_parameters_of_their_own() -> None:
    model = gc.compile(nn.Linear(2, 3))
    x = gc.ones(1, 2)
    expected = model(x).tolist()
    other = copy.deepcopy(model)
    assert isinstance(other, type(model))
    assert other(x).tolist() == expected
    with gc.no_grad():
        other.weight.add_(1.0)
    assert model(x).tolist() == expected != other(x).tolist()
    assert copy.copy(gc.compile(abs))(x * -1).tolist() == [[1, 1]]
    averaged = gc.optim.swa_utils.AveragedModel(nn.Linear(2, 3))
    assert copy.deepcopy(gc.compile(averaged))(x).shape == (1, 3)


def test_methods_that_return_the_module_return_the_compiled_one() -> None:
    model = gc.compile(nn.Dropout(0.9))
    assert model.eval() is model
    assert not model.training
    assert model(gc.ones(3)).tolist() == [1, 1, 1]
    assert model.train().requires_grad_(False) is model
    assert model.native_calls == 1
    assert model.state_dict.__name__ == "state_dict"
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = model.nothing_such
