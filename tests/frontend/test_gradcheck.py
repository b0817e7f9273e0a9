"""gradcheck and gradgradcheck find wrong gradients, and only those; batched and stray options of grad."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc.autograd import Function, GradcheckError, grad, gradcheck, gradgradcheck


class Cube(Function):
    """x^3 with a gradient that is `factor` times the true one, and a wrong second one unless it is 1."""

    @staticmethod
    def forward(ctx: Any, x: graphc.Tensor, factor: float) -> graphc.Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x**3

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor) -> tuple[graphc.Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.factor * 3 * x * x * ct, None


def point(*shape: int) -> graphc.Tensor:
    return graphc.rand(*shape, dtype=graphc.float64, requires_grad=True)


def test_right_gradients_pass() -> None:
    assert gradcheck(lambda x: Cube.apply(x, 1.0), point(3))
    assert gradgradcheck(lambda x: Cube.apply(x, 1.0), point(3))
    assert gradcheck(lambda x, w, n: (x @ w.t(), x.sum(), n), (point(4, 3), point(5, 3), 7))
    assert gradgradcheck(lambda x, w: (x @ w).tanh(), (point(2, 3), point(3, 2)), graphc.ones(2, 2).double())
    assert gradcheck(lambda x, w: w * 2, (point(2), point(2)))  # one has no part in the result


def test_wrong_gradients_do_not() -> None:
    with pytest.raises(GradcheckError, match=r"output 0 with respect to input 0,\nnumerical:"):
        gradcheck(lambda x: Cube.apply(x, 1.01), point(3))
    assert not gradcheck(lambda x: Cube.apply(x, 1.01), point(3), raise_exception=False)
    assert gradcheck(lambda x: Cube.apply(x, 1.01), point(3), rtol=0.1)
    with pytest.raises(GradcheckError):
        gradgradcheck(lambda x: Cube.apply(x.detach(), 1.0) * x, point(3))


def test_second_derivatives_flow_through_functions_and_hooks() -> None:
    """The gradient that a Function's backward or a hook is shown depends on the inputs as well."""
    assert gradgradcheck(lambda x: Cube.apply(x, 1.0) ** 2, point(3))
    assert gradgradcheck(lambda x, w: Cube.apply(x * w, 1.0).exp(), (point(3), point(3)))

    def hooked(x: graphc.Tensor) -> graphc.Tensor:
        y = x**2
        y.register_hook(lambda g: g * 3)
        return y**2

    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    (first,) = grad(hooked(x).sum(), x, create_graph=True)
    (second,) = grad(first.sum(), x)
    assert first.tolist() == [12, 96]
    assert second.tolist() == [84, 336]  # (the hook is called for the second gradient of y, too)


def test_unfit_inputs() -> None:
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(lambda x: x, graphc.ones(2))
    with pytest.warns(UserWarning, match="float64"):
        gradcheck(lambda x: x * 2, graphc.ones(2, requires_grad=True), eps=1e-2)


def test_batched_grad_outputs() -> None:
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    unused = graphc.ones(2, requires_grad=True)
    rows, none = grad(x**2, [x, unused], graphc.eye(2), is_grads_batched=True, allow_unused=True)
    assert rows.tolist() == [[2, 0], [0, 4]]
    assert none is None
    out = x**3
    (first,) = grad(out, x, graphc.eye(2), is_grads_batched=True, create_graph=True)
    (second,) = grad(first.sum(), x)
    assert second.tolist() == [6, 12]
    with pytest.raises(ValueError, match=r"one batch size, got \[\]"):
        grad(x.sum(), x, is_grads_batched=True)
    out = x**2
    grad(out, x, graphc.eye(2), is_grads_batched=True)
    with pytest.raises(RuntimeError, match="second time"):
        grad(out, x, graphc.ones(2))


def test_only_inputs() -> None:
    """An argument of old programs."""
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    assert grad(x.sum(), x, None, None, False, True)[0].tolist() == [1, 1]
    with pytest.warns(FutureWarning, match="only_inputs"):
        grad(x.sum(), x, only_inputs=False)
