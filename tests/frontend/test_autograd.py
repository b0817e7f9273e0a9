"""backward, grad, hooks, Functions, modes and transforms: against torch where it has the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autograd import Function, Variable

torch = pytest.importorskip("torch")
X = np.linspace(0.2, 1.5, 4).astype(np.float32)


def leaf(values: Any = X) -> gc.Tensor:
    return gc.tensor(values, requires_grad=True)


def close(found: gc.Tensor | None, expected: Any) -> None:
    assert found is not None
    np.testing.assert_allclose(found.detach().numpy(), np.asarray(expected), rtol=2e-5, atol=1e-6)


def test_accumulates_and_keeps_the_same_object() -> None:
    x = leaf()
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first
    close(x.grad, [5, 5, 5, 5])
    x.grad.zero_()
    close(first, [0, 0, 0, 0])


def test_leaves_with_equal_values_are_told_apart() -> None:
    a, b = gc.zeros(3, requires_grad=True), gc.zeros(3, requires_grad=True)
    c = a.detach().requires_grad_()
    (2 * a + 3 * b + 5 * c).sum().backward()
    close(a.grad, [2, 2, 2])
    close(b.grad, [3, 3, 3])
    close(c.grad, [5, 5, 5])
    d = (gc.zeros(3) + 1).requires_grad_()
    e = (gc.zeros(3) + 1).requires_grad_()
    (d * 2 + e).sum().backward()
    close(d.grad, [2, 2, 2])


def test_no_grad_and_detach_stop_gradients() -> None:
    x = leaf()
    with gc.no_grad():
        y = x * 2
        assert not y.requires_grad
        with gc.enable_grad():
            assert (x * 2).requires_grad
    (x * y + (x * 3).detach() * x).sum().backward()
    close(x.grad, 5 * X)
    assert gc.is_grad_enabled()
    with gc.set_grad_enabled(False):
        assert not gc.is_grad_enabled()

    @gc.no_grad()
    def f() -> bool:
        return gc.is_grad_enabled()

    assert f() is False
    assert gc.is_grad_enabled()


def test_second_backward_needs_retained_history() -> None:
    x = leaf()
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, 4 * X)
    z = (x + x).sum()  # saves nothing: as in PyTorch, twice is allowed
    z.backward()
    z.backward()
    close(x.grad, 4 * X + 4)


def test_backward_after_reading_values() -> None:
    x = leaf()
    h = x.exp()
    assert h.tolist()
    loss = (h * h).sum()
    assert loss.item() > 0
    loss.backward()
    close(x.grad, 2 * np.exp(2 * X))


def test_grad_of_intermediate_and_unused() -> None:
    x, unused = leaf(), leaf()
    h = x * 2
    y = (h * h).sum()
    gh, gx = gc.autograd.grad(y, (h, x), retain_graph=True)
    close(gh, 4 * X)
    close(gx, 8 * X)
    assert gc.autograd.grad(y, (x, unused), allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="second time"):
        gc.autograd.grad(y, x)
    assert x.grad is None


def test_create_graph_to_third_order() -> None:
    results = []
    for T in (gc, torch):
        x = T.tensor(X, requires_grad=True)
        y = (x.sin() * x * x).sum()
        for _ in range(2):
            (g,) = T.autograd.grad(y, x, create_graph=True)
            y = (g * g).sum()
        y.backward()
        results.append(x.grad.detach().numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=2e-4)


def test_gradient_penalty_trains_through_grad() -> None:
    found = []
    for T in (gc, torch):
        w, x = T.tensor(X, requires_grad=True), T.tensor(X * 2, requires_grad=True)
        (g,) = T.autograd.grad((w * x * x).sum(), x, create_graph=True)
        ((g.norm() - 1) ** 2 + (w * x).sum()).backward()
        found.append((w.grad.numpy(), x.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_hooks() -> None:
    seen: list[Any] = []
    x = leaf()
    h = x * 2
    handle = h.register_hook(lambda g: seen.append(g.tolist()))
    h.register_hook(lambda g: g * 10)
    h.retain_grad()
    x.register_hook(lambda g: g + 1)
    (h * h).sum().backward()
    assert seen[0] == pytest.approx((4 * X).tolist())
    close(h.grad, 40 * X)
    close(x.grad, 80 * X + 1)
    handle.remove()
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        gc.ones(2).register_hook(print)


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: gc.Tensor, factor: float) -> tuple[gc.Tensor, gc.Tensor]:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x * x * factor, x + 1

    @staticmethod
    def backward(ctx: Any, first: gc.Tensor, second: gc.Tensor) -> tuple[gc.Tensor, None]:
        (x,) = ctx.saved_tensors
        return 3 * x * x * ctx.factor * first + second * 100, None


def test_function() -> None:
    x = leaf()
    cubed, plus = Cube.apply(x * 2, 0.5)
    assert cubed.grad_fn is not None
    (cubed * cubed).sum().backward(retain_graph=True)
    close(x.grad, 2 * (3 * 4 * X**2 * 0.5) * 2 * (8 * X**3 * 0.5))
    x.grad = None
    (cubed + plus).sum().backward()
    close(x.grad, 2 * (3 * 4 * X**2 * 0.5 + 100))


def test_function_differentiated_twice() -> None:
    x = leaf()
    (g,) = gc.autograd.grad(Cube.apply(x, 1.0)[0].sum(), x, create_graph=True)
    g.sum().backward()
    close(x.grad, 6 * X)


def test_custom_gradient_is_used_not_derived() -> None:
    class Straight(Function):
        @staticmethod
        def forward(ctx: Any, x: gc.Tensor) -> gc.Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, g: gc.Tensor) -> gc.Tensor:
            return g

    x = leaf()
    (Straight.apply(x * 3) * 2).sum().backward()
    close(x.grad, [6, 6, 6, 6])


def test_variable_and_grad_fn() -> None:
    v = Variable(gc.ones(2), requires_grad=True)
    y = v * gc.tensor(2.0) + 1
    assert y.grad_fn.name() == "AddBackward0"
    assert y.grad_fn.next_functions[0][0].name() == "MulBackward0"
    assert v.is_leaf
    assert not y.is_leaf
    assert v.grad_fn is None
    y.sum().backward()
    v.grad.data.zero_()
    close(v.grad, [0, 0])


def test_backward_of_vector_with_gradient_and_inputs() -> None:
    x, w = leaf(), leaf()
    (x * w).backward(gc.tensor([1.0, 0, 2, 0]), inputs=[x])
    close(x.grad, X * [1, 0, 2, 0])
    assert w.grad is None


def test_transforms_nest() -> None:
    def f(T: Any) -> Any:
        return lambda x: (x.sin() * x * x).sum()

    ours, theirs = f(gc), f(torch)
    for _ in range(3):
        close(gc.grad(ours)(gc.tensor(X)), torch.func.grad(theirs)(torch.tensor(X)))
        ours = (lambda h: lambda v: gc.grad(h)(v).sum())(ours)
        theirs = (lambda h: lambda v: torch.func.grad(h)(v).sum())(theirs)


def test_transforms() -> None:
    a, b = gc.tensor(X), gc.tensor(X + 1)
    value, (ga, gb) = (
        gc.value_and_grad(lambda p: (p["a"] * p["b"]).sum(), argnums=0)({"a": a, "b": b})[0],
        (b, a),
    )
    close(value, (X * (X + 1)).sum())
    grads = gc.grad(lambda p: (p["a"] * p["b"]).sum())({"a": a, "b": b})
    close(grads["a"], ga.numpy())
    close(grads["b"], gb.numpy())
    (out, more), pull = gc.vjp(lambda x, y: (x * y, x.sin()), a, b)
    close(out, X * (X + 1))
    close(more, np.sin(X))
    gx, gy = pull((a, b))
    close(gx, X * (X + 1) + (X + 1) * np.cos(X))
    close(gy, X * X)
    out, tangent = gc.jvp(lambda x, y: x * y.exp(), (a, b), (b, a))
    close(out, X * np.exp(X + 1))
    close(tangent, (X + 1) * np.exp(X + 1) + X * X * np.exp(X + 1))
    w = leaf()
    gc.grad(lambda t: (t**3 * w).sum())(w).sum().backward()
    close(w.grad, 9 * X**2)


def test_deep_graph_does_not_recurse() -> None:
    x = leaf([0.001])
    y = x
    for _ in range(5000):
        y = y * (1 + 2**-13)
    y.sum().backward()
    close(x.grad, [(1 + 2**-13) ** 5000])


def test_a_leaf_that_was_changed_in_place_since_it_was_used() -> None:
    torch = pytest.importorskip("torch")

    def gradients(lib):
        x = lib.ones(3, requires_grad=True)
        before = x.sum() * 2
        with lib.no_grad():
            x.add_(1)
        after = (x * x).sum()
        [both] = lib.autograd.grad(before + after, x, retain_graph=True)
        [first] = lib.autograd.grad(before, x)
        return both.tolist(), first.tolist()

    assert gradients(gc) == gradients(torch) == ([6.0] * 3, [2.0] * 3)


def _steps_in_backward(T: Any) -> list[Any]:
    """An optimizer for each leaf, which steps as soon as the leaf's gradient is there."""
    w = T.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    b = T.tensor([0.5, -0.5], requires_grad=True)
    optimizers = {p: T.optim.SGD([p], lr=0.1, momentum=0.9) for p in (w, b)}
    seen: list[Any] = []

    def step(p: Any) -> None:
        seen.append(p.grad.sum().item())
        optimizers[p].step()
        optimizers[p].zero_grad()

    first, _ = [p.register_post_accumulate_grad_hook(step) for p in (w, b)]
    for i in range(5):
        if i == 4:
            first.remove()
        ((T.ones(3, 2) @ w + b) ** 2).mean().backward()
        seen += [w.grad is None, b.grad is None]
    T.autograd.grad((b * b).sum(), b)  # adds to no `.grad`
    return [*seen, *w.detach().flatten().tolist(), *b.tolist()]


def test_hooks_after_gradients_are_added() -> None:
    assert _steps_in_backward(gc) == pytest.approx(_steps_in_backward(torch), rel=1e-5)
    w = leaf()
    with pytest.raises(RuntimeError, match="non-leaf"):
        (w * 2).register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="doesn't require"):
        gc.ones(2).register_post_accumulate_grad_hook(print)


def test_hooks_after_gradients_in_a_compiled_step() -> None:
    w = leaf()
    optimizer = gc.optim.SGD([w], lr=0.5)
    w.register_post_accumulate_grad_hook(lambda p: optimizer.step())

    @gc.compile
    def step() -> gc.Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    step()
    close(w, np.zeros(4))


def test_a_handle_removes_its_hook_once() -> None:
    """Also where the same hook has been registered twice."""
    x = gc.ones(2, requires_grad=True)

    def double(g: gc.Tensor) -> gc.Tensor:
        return g * 2

    first, second = x.register_hook(double), x.register_hook(double)
    first.remove()
    first.remove()
    (x * 1).sum().backward()
    assert x.grad.tolist() == [2, 2]
    second.remove()
    x.grad = None
    (x * 1).sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_hooks_may_remove_themselves() -> None:
    """While they run: of leaves, of values between, and after a gradient has been added."""
    x = gc.ones(2, requires_grad=True)
    seen: list[str] = []
    handles: dict[str, gc.utils.hooks.RemovableHandle] = {}

    def once(name: str) -> Callable[[gc.Tensor], None]:
        def hook(_: gc.Tensor) -> None:
            seen.append(name)
            handles[name].remove()

        return hook

    y = x * 2
    handles["leaf"] = x.register_hook(once("leaf"))
    handles["after"] = x.register_post_accumulate_grad_hook(once("after"))
    handles["between"] = y.register_hook(once("between"))
    y.register_hook(lambda g: g * 3)
    for _ in range(2):
        (y * y).sum().backward(retain_graph=True)
    assert seen == ["between", "leaf", "after"]
    close(x.grad, np.full(2, 48.0))
    assert all(isinstance(handle, gc.utils.hooks.RemovableHandle) for handle in handles.values())


def test_a_gradient_where_none_is_kept_is_warned_of() -> None:
    x = gc.ones(3, requires_grad=True)
    y = x * 2
    with pytest.warns(UserWarning, match="not a leaf Tensor"):
        assert y.grad is None
    y.retain_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tensor in (x, y, y.detach()):
            assert tensor.grad is None


class Doubled(Function):
    """2 x + b, whose backward leaves broadcasting of b to the caller."""

    @staticmethod
    def forward(ctx: Any, x: gc.Tensor, b: gc.Tensor) -> gc.Tensor:
        return 2 * x + b

    @staticmethod
    def backward(ctx: Any, grad: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
        return 2 * grad, grad


def test_a_functions_gradient_is_summed_to_its_argument() -> None:
    """As in PyTorch: what broadcasting repeated is summed, and other shapes are refused."""
    x, b = gc.ones(4, 3, requires_grad=True), gc.ones(1, 3, requires_grad=True)
    Doubled.apply(x, b).sum().backward()
    assert b.grad.tolist() == [[4.0, 4.0, 4.0]]
    assert x.grad.shape == (4, 3)
