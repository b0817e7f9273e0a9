"""graphc.scan against torch's unrolled loops: values, gradients of any order, modes, and mistakes."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.ir.node import Kind

torch = pytest.importorskip("torch")

T, B, N, H = 5, 2, 3, 4
RNG = np.random.default_rng(0)
XS, W, U, BIAS, H0 = (RNG.standard_normal(s) for s in ((T, B, N), (N, H), (H, H), (H,), (B, H)))
State = namedtuple("State", "h c")


def loop(lib: Any, step: Callable, init: Any, xs: Any, reverse: bool = False) -> tuple[Any, Any]:
    """graphc.scan, or what it means in torch."""
    if lib is gc:
        return gc.scan(step, init, xs, reverse=reverse)
    carry, ys = init, [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        carry, ys[t] = step(carry, xs[t])
    return carry, torch.stack(ys)


def rnn(lib: Any, given: list[Any], reverse: bool) -> Any:
    xs, w, u, bias, h0 = given

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = lib.tanh(x @ w + h @ u + bias)
        return h, h * 2

    return loop(lib, step, h0, xs, reverse)


def lstm(lib: Any, given: list[Any], reverse: bool) -> Any:
    """Gates from slices, a named tuple as carry, a projection that no carry needs."""
    xs, w, u, bias, h0 = given

    def step(state: State, x: Any) -> tuple[State, Any]:
        z = x @ w + state.h @ u + bias
        i, f = lib.sigmoid(z), lib.sigmoid(-z)
        c = f * state.c + i * lib.tanh(z * 0.5)
        h = i * lib.tanh(c)
        return State(h, c), (h @ u).exp()

    last, ys = loop(lib, step, State(h0, h0 * 2), xs, reverse)
    return last.h + last.c, ys


def products(lib: Any, given: list[Any], reverse: bool) -> Any:
    """A constant used elementwise (its gradient is added up in the loop), and reductions."""
    xs, _, _, bias, h0 = given

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = h * bias.cos() + (x.sum(1, keepdim=True) * h.mean(0)).sin()
        return h, h.amax(1) + x[:, 0]

    return loop(lib, step, h0, xs, reverse)


def results(lib: Any, make: Callable, body: Callable, reverse: bool) -> list[np.ndarray]:
    """Values, gradients, and gradients of the gradients' squares."""
    given = [make(a) for a in (XS, W, U, BIAS, H0)]
    last, ys = body(lib, given, reverse)
    loss = (last**2).sum() + ys.sin().sum()
    first = lib.autograd.grad(loss, given, create_graph=True, allow_unused=True)
    first = [g for g in first if g is not None]
    second = lib.autograd.grad(sum((g**2).sum() for g in first), given, allow_unused=True)
    found = [last, ys, *first, *[g for g in second if g is not None]]
    return [t.detach().numpy() for t in found]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("body", [rnn, lstm, products])
def test_against_torch(body: Callable, reverse: bool) -> None:
    compare(body, reverse)


@pytest.mark.native
@pytest.mark.parametrize("body", [rnn, lstm, products])
def test_against_torch_native(body: Callable) -> None:
    compare(body, False)


def compare(body: Callable, reverse: bool) -> None:
    ours = results(gc, lambda a: gc.tensor(a, requires_grad=True), body, reverse)
    theirs = results(torch, lambda a: torch.tensor(a, requires_grad=True), body, reverse)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------ what is nested


def test_nesting_of_carries_xs_and_ys() -> None:
    init = {"a": gc.ones(2), "b": [gc.zeros(3), (gc.tensor(0),)]}
    xs = OrderedDict(x=gc.arange(6.0).reshape(3, 2), n=None)

    def step(carry: dict, x: dict) -> tuple[dict, Any]:
        a, (b, (count,)) = carry["a"] + x["x"], carry["b"]
        assert x["n"] is None
        return {"a": a, "b": [b + 1, (count + 1,)]}, [None, (a, {"count": count})]

    last, ys = gc.scan(step, init, xs)
    assert list(last) == ["a", "b"]
    assert isinstance(last["b"], list)
    assert last["a"].tolist() == [7.0, 10.0]
    assert last["b"][1][0].item() == 3
    assert ys[0] is None
    assert ys[1][0].tolist() == [[1.0, 2.0], [3.0, 5.0], [7.0, 10.0]]
    assert ys[1][1]["count"].tolist() == [0, 1, 2]


def test_nothing_carried_no_xs_and_one_step() -> None:
    none, ys = gc.scan(lambda c, x: (None, x * 2), None, gc.arange(3))
    assert none is None
    assert ys.tolist() == [0, 2, 4]
    last, ys = gc.scan(lambda h, _: (h * 2, None), gc.tensor(1.0), length=10)
    assert (last.item(), ys) == (1024.0, None)
    last, ys = gc.scan(lambda h, x: (h + x, h), gc.tensor(1), gc.tensor([5]))
    assert (last.item(), ys.tolist()) == (6, [1])


@pytest.mark.parametrize("dim", [1, -1, -2])
def test_dim_of_steps(dim: int) -> None:
    xs = gc.tensor(RNG.standard_normal((3, 4, 5)))
    last, ys = gc.scan(lambda s, x: (s + x.sum(), x * 2), gc.tensor(0.0, dtype=gc.float64), xs, dim=dim)
    assert ys.shape == xs.shape
    np.testing.assert_allclose(ys.numpy(), 2 * xs.numpy())
    np.testing.assert_allclose(last.item(), xs.numpy().sum())


def test_reverse_stores_at_the_positions_of_the_steps() -> None:
    _, ys = gc.scan(lambda s, x: (s + x, s + x), gc.tensor(0), gc.arange(4), reverse=True)
    assert ys.tolist() == [6, 6, 5, 3]


def test_a_body_may_change_its_own_tensors() -> None:
    def step(h: gc.Tensor, x: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
        rows = gc.zeros(2, 3)
        rows[0] = x
        rows[1].copy_(h)
        h = h.clone()
        h += rows.sum(0)
        h.mul_(0.5)
        return h, rows

    last, ys = gc.scan(step, gc.ones(3), gc.ones(2, 3))
    assert last.tolist() == [2.0] * 3
    assert ys.shape == (2, 2, 3)
    assert ys[1, 1].tolist() == [1.5] * 3


def test_carries_of_a_body_changed_in_place() -> None:
    def step(h: gc.Tensor, count: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
        h += 1
        return h, h

    assert gc.scan(step, gc.tensor([1, 2]), gc.zeros(3))[1].tolist() == [[2, 3], [3, 4], [4, 5]]


def test_nested_scans() -> None:
    """The inner body reads the outer carry and x; gradients flow to a parameter of both."""
    weight = gc.tensor(0.3, dtype=gc.float64, requires_grad=True)
    rows = gc.tensor(RNG.standard_normal((3, 4)))

    def outer(total: gc.Tensor, row: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
        def inner(h: gc.Tensor, x: gc.Tensor) -> tuple[gc.Tensor, None]:
            return (h * weight + x * total).sin(), None

        last, _ = gc.scan(inner, row.sum(), row)
        return total + last, last

    total, ys = gc.scan(outer, gc.tensor(1.0, dtype=gc.float64), rows)
    (total + ys.sum()).backward()
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    expected, parts = torch.tensor(1.0, dtype=torch.float64), []
    for row in torch.from_numpy(rows.numpy()):
        h = row.sum()
        for x in row:
            h = (h * w + x * expected).sin()
        expected = expected + h
        parts.append(h)
    (expected + sum(parts)).backward()
    np.testing.assert_allclose(total.item(), expected.item())
    np.testing.assert_allclose(weight.grad.item(), w.grad.item())


# ---------------------------------------------------------------------- autograd


def test_parameters_of_modules_get_gradients() -> None:
    cell, head = nn.Linear(H + N, H), nn.Linear(H, 2)
    xs = gc.tensor(XS, dtype=gc.float32)

    def step(h: gc.Tensor, x: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
        h = cell(gc.cat([h, x], 1)).tanh()
        return h, head(h)

    _, ys = gc.scan(step, gc.zeros(B, H), xs)
    ys.square().sum().backward()
    expected = gc.zeros(B, H)
    total = gc.tensor(0.0)
    parameters = [*cell.parameters(), *head.parameters()]
    grads = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    for t in range(T):
        expected, y = step(expected, xs[t])
        total = total + y.square().sum()
    total.backward()
    for p, grad in zip(parameters, grads, strict=True):
        np.testing.assert_allclose(grad.numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_history() -> None:
    weight, xs = gc.ones(3, requires_grad=True), gc.ones(4, 3)
    last, ys = gc.scan(lambda h, x: (h + x * weight, h.detach()), gc.zeros(3), xs)
    assert last.requires_grad
    assert last.grad_fn.name() == "ScanBackward0"
    assert not ys.requires_grad
    plain, _ = gc.scan(lambda h, x: (h + x, None), gc.zeros(3), xs)
    assert not plain.requires_grad
    with gc.no_grad():
        quiet, _ = gc.scan(lambda h, x: (h + x * weight, None), gc.zeros(3), xs)
    assert not quiet.requires_grad
    last.sum().backward()
    assert weight.grad.tolist() == [4.0] * 3
    with pytest.raises(RuntimeError, match="a second time"):
        last.sum().backward()


def test_no_grad_inside_a_body_stops_gradients() -> None:
    weight = gc.tensor(2.0, requires_grad=True)

    def step(h: gc.Tensor, x: gc.Tensor) -> tuple[gc.Tensor, None]:
        with gc.no_grad():
            frozen = h * weight
        return frozen + x * weight, None

    last, _ = gc.scan(step, gc.tensor(1.0, requires_grad=True), gc.ones(3))
    assert last.item() == 22.0
    last.backward()
    assert weight.grad.item() == 1.0  # the last step's x alone


def test_transforms() -> None:
    def total(w: gc.Tensor, x: gc.Tensor) -> gc.Tensor:
        last, ys = gc.scan(lambda h, v: ((h * w + v).sin(), h), x[0], x)
        return last + (ys**2).sum()

    w, x = gc.tensor(0.7, dtype=gc.float64), gc.tensor(RNG.standard_normal(4))
    step = 1e-5
    numeric = (total(w + step, x) - total(w - step, x)).item() / (2 * step)
    assert gc.grad(total)(w, x).item() == pytest.approx(numeric, rel=1e-7)
    _, pushed = gc.jvp(total, (w, x), (gc.ones_like(w), gc.zeros_like(x)))
    assert pushed.item() == pytest.approx(numeric, rel=1e-7)
    _, pull = gc.vjp(total, w, x)
    assert pull(gc.tensor(1.0, dtype=gc.float64))[0].item() == pytest.approx(numeric, rel=1e-7)
    curve = (gc.grad(total)(w + step, x) - gc.grad(total)(w - step, x)).item() / (2 * step)
    assert gc.grad(gc.grad(total))(w, x).item() == pytest.approx(curve, rel=1e-6)


def test_gradients_inside_a_body() -> None:
    """A descent whose steps are the body: d/dx x**2."""

    def descend(x: gc.Tensor, rate: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
        slope = gc.grad(lambda v: (v**2).sum())(x)
        return x - rate * slope, slope

    last, slopes = gc.scan(descend, gc.tensor([1.0, 2.0]), gc.full((3,), 0.25))
    assert last.tolist() == [0.125, 0.25]
    assert slopes.tolist() == [[2.0, 4.0], [1.0, 2.0], [0.5, 1.0]]


# ------------------------------------------------------------------ compiled code


def test_in_compiled_functions() -> None:
    layer = nn.Linear(3, 3)
    calls = []

    @gc.compile
    def run(h: gc.Tensor, xs: gc.Tensor) -> gc.Tensor:
        calls.append(1)
        return gc.scan(lambda s, x: ((layer(s) + x).tanh(), s), h, xs)[1]

    h, xs = gc.ones(2, 3), gc.ones(4, 2, 3)
    expected = gc.scan(lambda s, x: ((layer(s) + x).tanh(), s), h, xs)[1]
    np.testing.assert_allclose(run(h, xs).detach().numpy(), expected.detach().numpy(), rtol=1e-6)
    with gc.no_grad():
        layer.weight.zero_()
    changed = run(h, xs).detach().numpy()
    np.testing.assert_allclose(changed[2], np.tanh(layer.bias.detach().numpy() + np.ones((2, 3))), rtol=1e-6)
    assert len(calls) == 1


def test_compiled_training_step_equals_lazy() -> None:
    def make() -> tuple[Any, Any]:
        gc.manual_seed(1)
        cell = nn.Linear(4, 2)

        def step(xs: gc.Tensor) -> gc.Tensor:
            last, _ = gc.scan(lambda h, x: (cell(gc.cat([h, x], 1)).tanh(), None), gc.zeros(3, 2), xs)
            loss = last.square().sum()
            loss.backward()
            with gc.no_grad():
                for p in cell.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
            return loss

        return cell, step

    xs = gc.rand(5, 3, 2)
    (cell, plain), (other, compiled) = make(), make()
    compiled = gc.compile(compiled)
    losses = [(plain(xs).item(), compiled(xs).item()) for _ in range(4)]
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-5)
    np.testing.assert_allclose(cell.weight.detach().numpy(), other.weight.detach().numpy(), rtol=1e-5)


def test_trace_shows_one_loop_whatever_its_length() -> None:
    def run(xs: gc.Tensor) -> gc.Tensor:
        return gc.scan(lambda s, x: ((s + x).tanh(), s), gc.zeros(3), xs)[1]

    short, long = (gc.trace(run, gc.TensorSpec((t, 3))) for t in (4, 400))
    assert sum(n.kind is Kind.SCAN for n in long.nodes) == 1
    assert len(short.nodes) == len(long.nodes)


def test_lazy_loops_are_compiled_once() -> None:
    def run() -> None:
        gc.scan(lambda s, x: ((s * x).cos(), s), gc.ones(3), gc.ones(6, 3))[1].numpy()

    run()
    before = gc.compilations()
    run()
    assert gc.compilations() == before


# ---------------------------------------------------------------------- mistakes

OUTSIDE = gc.ones(3)


class Double(gc.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: gc.Tensor) -> gc.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: gc.Tensor) -> gc.Tensor:
        return g * 2


def _hooked(h: gc.Tensor, x: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
    h = h * 2
    h.register_hook(lambda g: g * 2)
    return h, x


MISTAKES = {
    "dtype": (lambda h, x: (h.double(), x), TypeError, "float32[2, 3] before a step and float64[2, 3] after"),
    "shape": (lambda h, x: (h[:1], x), TypeError, "float32[2, 3] before a step and float32[1, 3] after it"),
    "structure": (lambda h, x: ((h, h), x), TypeError, "before a step and a tuple of 2 after it"),
    "dict": (lambda h, x: ({"a": h}, x), TypeError, "before a step and a dict with keys ['a'] after it"),
    "none": (lambda h, x: (None, x), TypeError, "before a step and None after it"),
    "no pair": (lambda h, x: h, TypeError, "the function must return (carry, y), not Tensor"),
    "triple": (lambda h, x: (h, x, x), TypeError, "must return (carry, y), not a tuple of 3"),
    "number": (lambda h, x: (h, [3]), TypeError, "y[0] must be a tensor, or tensors in tuples"),
    "if": (lambda h, x: (h, x) if h.sum() > 0 else (x, h), gc.TracerError, "graphc.scan(step, init, xs)"),
    "item": (lambda h, x: (h * h.sum().item(), x), gc.TracerError, "from the body of scan"),
    "random": (lambda h, x: (h + gc.rand(2, 3), x), RuntimeError, "draw them for all steps before the loop"),
    "dropout": (lambda h, x: (nn.functional.dropout(h), x), RuntimeError, "pass them as xs"),
    "outside": (lambda h, x: (h, OUTSIDE.add_(1)), RuntimeError, "from outside in place (float32[3])"),
    "token": (
        lambda h, x: (OUTSIDE[h.sum().long()] + h, x),
        RuntimeError,
        "an index that depends on the carry cannot be checked inside a loop",
    ),
    "function": (lambda h, x: (Double.apply(h), x), RuntimeError, "an autograd.Function inside the body"),
    "hook": (_hooked, RuntimeError, "a hook on a gradient inside the body is not supported"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_bodies(name: str) -> None:
    function, error, says = MISTAKES[name]
    with pytest.raises(error) as caught:
        gc.scan(function, gc.zeros(2, 3), gc.zeros(4, 2, 3))
    assert says in str(caught.value)
    assert "test_scan.py:" in str(caught.value)
    assert OUTSIDE.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "init,xs,options,error,says",
    [
        (0, 0, {}, ValueError, "without xs, length must say how many steps there are"),
        (0, (0, 3), {}, ValueError, "there must be at least one step, but xs (float32[0, 3]) has 0"),
        (0, None, {"length": 0}, ValueError, "there must be at least one step, but length=0 has 0"),
        (0, (4, 3), {"length": 5}, ValueError, "length=5 has 5 steps, but xs (float32[4, 3]) has 4"),
        (0, (), {}, ValueError, "xs has no dimension of steps (float32[])"),
        (0, (4, 3), {"dim": 2}, IndexError, "Dimension out of range"),
        (
            1.0,
            (4, 3),
            {},
            TypeError,
            "init must be a tensor, or tensors in tuples, lists and dicts",
        ),
    ],
)
def test_mistakes_in_arguments(init: Any, xs: Any, options: dict, error: type, says: str) -> None:
    start = gc.zeros(3) if init == 0 else init
    given = gc.zeros(*xs) if isinstance(xs, tuple) else None
    with pytest.raises(error) as caught:
        gc.scan(lambda h, x: (h, h), start, given, **options)
    assert says in str(caught.value)


def test_xs_of_different_lengths() -> None:
    with pytest.raises(ValueError) as caught:
        gc.scan(lambda h, x: (h, None), gc.zeros(3), {"a": gc.zeros(4), "b": [gc.zeros(5)]})
    assert "xs['a'] (float32[4]) has 4 steps, but xs['b'][0] (float32[5]) has 5" in str(caught.value)


def test_mistakes_name_the_module() -> None:
    class Cell(nn.Module):
        def forward(self, h: gc.Tensor) -> gc.Tensor:
            return gc.scan(lambda s, x: (s.sum(), None), h, gc.zeros(2, 3))[0]

    with pytest.raises(TypeError, match=r"at .*test_scan.py:\d+ in Cell"):
        Cell()(gc.zeros(3))


def test_tensors_of_a_body_do_not_outlive_it() -> None:
    kept = []

    def step(h: gc.Tensor, x: gc.Tensor) -> tuple[gc.Tensor, None]:
        kept.append(h + x)
        return h, None

    gc.scan(step, gc.zeros(2), gc.zeros(3, 2))
    with pytest.raises(gc.TracerError, match="leaked tracer"):
        kept[0].tolist()
    gc.sync()


def test_checks_of_xs_are_done_before_the_loop() -> None:
    table = gc.arange(4.0)
    tokens = gc.tensor([0, 3, 5])
    with pytest.raises(IndexError, match="out of bounds"):
        gc.scan(lambda s, i: (s + table[i], None), gc.tensor(0.0), tokens)[0].item()
    assert gc.scan(lambda s, i: (s + table[i], None), gc.tensor(0.0), gc.tensor([0, 3, 1]))[0].item() == 4.0


def test_a_carried_token_is_looked_up() -> None:
    """Greedy decoding: an argmax is in range, so only the first token is checked, before the loop."""
    table, weight, head = (gc.tensor(RNG.standard_normal(s)) for s in ((7, H), (H, H), (H, 7)))

    def step(state: tuple, _: None) -> tuple[tuple, gc.Tensor]:
        h, token = state
        h = (h @ weight + table[token]).tanh()
        token = (h @ head).argmax(1)
        return (h, token), token

    start = gc.zeros(B, H, dtype=gc.float64)
    _, tokens = gc.scan(step, (start, gc.tensor([6, -7])), length=9)
    h, token, expected = np.zeros((B, H)), np.array([6, 0]), []
    for _ in range(9):
        h = np.tanh(h @ weight.numpy() + table.numpy()[token])
        token = (h @ head.numpy()).argmax(1)
        expected.append(token)
    np.testing.assert_array_equal(tokens.numpy(), np.stack(expected))
    with pytest.raises(IndexError, match="out of bounds for dimension 0 with size 7"):
        gc.scan(step, (start, gc.tensor([0, 7])), length=9)[1].numpy()


@pytest.mark.parametrize("change", [lambda c: (c * 5 + 3) % 7, lambda c: (c + 2).clamp(0, 6)])
def test_carried_indices_that_are_in_range_by_construction(change: Callable) -> None:
    table = gc.arange(7.0)
    _, ys = gc.scan(lambda c, _: (change(c), table[c]), gc.tensor(4), length=5)
    c, expected = 4, []
    for _ in range(5):
        expected.append(float(c))
        c = int(change(gc.tensor(c)))
    assert ys.tolist() == expected
