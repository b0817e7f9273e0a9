"""Hooks on the gradients of modules against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402


def net(T):
    """Two layers with fixed weights, two outputs; one argument is a number."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Tanh()

        def forward(self, x, k=2, *, shift=0.0):
            return self.b(self.a(x)) + shift, x * k

    model = Net()
    with T.no_grad():
        model.a.weight.copy_(T.arange(12.0).reshape(4, 3) / 10)
        model.a.bias.copy_(T.arange(4.0) / 7)
    return model


def gradients(T, register, compile=False):
    """Gradients of input and weight, with hooks that `register(model, log)` adds, and their log."""
    model, log = net(T), []
    register(model, log)

    def run(x):
        x = x.detach().requires_grad_()
        first, second = model(x * 1.0, 3, shift=0.5)
        loss = first.sum() + (second * second).sum()
        return T.autograd.grad(loss, [x, model.a.weight])

    run = T.compile(run) if compile else run
    found = run(T.arange(6.0).reshape(2, 3))
    return [g.numpy() for g in found], log


def shapes(gradients_):
    return [None if g is None else tuple(g.shape) for g in gradients_]


def see_all(model, log):
    for name, module in model.named_modules():

        def hook(module, inputs, outputs, name=name):
            log.append((name, shapes(inputs), shapes(outputs)))

        module.register_full_backward_hook(hook)
        module.register_full_backward_pre_hook(lambda m, outputs, n=name: log.append((n, shapes(outputs))))


def change_inputs(model, log):
    model.a.register_full_backward_hook(lambda m, inputs, outputs: (inputs[0] * 2,))
    model.a.register_full_backward_hook(lambda m, inputs, outputs: (inputs[0] + outputs[0].sum(),))
    model.register_full_backward_hook(lambda m, inputs, outputs: (inputs[0] - 1, None))


def change_outputs(model, log):
    model.b.register_full_backward_pre_hook(lambda m, outputs: (outputs[0] * 3,))
    model.register_full_backward_pre_hook(lambda m, outputs: (outputs[0] * 2, outputs[1] + 1))


def in_order(model, log):
    model.b.register_full_backward_hook(lambda *a: log.append("second"))
    model.b.register_full_backward_hook(lambda *a: log.append("first"), prepend=True)
    model.b.register_full_backward_pre_hook(lambda *a: log.append("zeroth"))
    model.b.register_full_backward_hook(lambda *a: log.append("removed")).remove()


@pytest.mark.parametrize("register", [see_all, change_inputs, change_outputs, in_order])
def test_equals_torch(register):
    expected, log = gradients(torch, register)
    for compile in (False, True):
        found, ours = gradients(graphc, register, compile)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert ours == log


def test_inputs_without_gradient():
    """The hooks then run with the gradients of the outputs, warn, and may change nothing."""
    for T in (torch, graphc):
        layer, seen = T.nn.Linear(3, 2), []
        handle = layer.register_full_backward_hook(lambda m, i, o, seen=seen: seen.append((i, shapes(o))))
        with pytest.warns(UserWarning, match="no inputs require grad"):
            layer(T.ones(1, 3)).sum().backward()
        assert seen == [((None,), [(1, 2)])]
        assert layer.weight.grad is not None
        handle.remove()
        layer.register_full_backward_hook(lambda m, i, o: (o[0],))
        with (
            pytest.warns(UserWarning, match="no inputs require grad"),
            pytest.raises(RuntimeError, match="should always return None"),
        ):
            layer(T.ones(1, 3)).sum().backward()


def test_number_of_gradients():
    for T in (torch, graphc):
        for name in ("register_full_backward_hook", "register_full_backward_pre_hook"):
            layer = T.nn.Linear(3, 2)
            getattr(layer, name)(lambda m, *gradients: (gradients[0][0], None))
            with pytest.raises(RuntimeError, match="got 2, but expected 1"):
                layer(T.ones(1, 3, requires_grad=True)).sum().backward()


def test_without_gradients_nothing_runs():
    layer = graphc.nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda *a: pytest.fail("there is no backward pass"))
    with graphc.no_grad():
        assert layer(graphc.ones(1, 3)).shape == (1, 2)


def test_older_name():
    layer, seen = graphc.nn.Tanh(), []
    layer.register_backward_hook(lambda m, inputs, outputs: seen.append(shapes(inputs + outputs)))
    layer(graphc.ones(2, 3, requires_grad=True)).sum().backward()
    assert seen == [[(2, 3), (2, 3)]]


def test_compiled_code_notices_new_hooks():
    """Hooks of either kind that come or go after the first call."""
    layer = graphc.nn.Linear(3, 2)

    def run(x):
        x = x.detach().requires_grad_()
        out = layer(x).sum()
        return out, *graphc.autograd.grad(out, [x])

    run = graphc.compile(run)
    x = graphc.ones(1, 3)
    plain, slope = (t.numpy() for t in run(x))
    handle = layer.register_full_backward_hook(lambda m, inputs, outputs: (inputs[0] * 5,))
    np.testing.assert_allclose(run(x)[1].numpy(), 5 * slope, rtol=1e-6)
    handle.remove()
    np.testing.assert_allclose(run(x)[1].numpy(), slope, rtol=1e-6)
    with layer.register_forward_hook(lambda m, args, out: out * 3):
        np.testing.assert_allclose(run(x)[0].numpy(), 3 * plain, rtol=1e-6)
    np.testing.assert_allclose(run(x)[0].numpy(), plain, rtol=1e-6)
