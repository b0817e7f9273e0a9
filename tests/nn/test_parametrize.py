"""Parametrized tensors and weight_norm against PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import copy_state  # noqa: E402
from .gradients import same_gradients  # noqa: E402

RNG = np.random.default_rng(0)
NORMS = {
    "linear": (lambda nn: nn.Linear(5, 3), (4, 5), 0),
    "last dim": (lambda nn: nn.Linear(5, 3), (4, 5), 1),
    "negative dim": (lambda nn: nn.Linear(5, 3), (4, 5), -2),
    "all": (lambda nn: nn.Linear(5, 3), (4, 5), None),
    "conv": (lambda nn: nn.Conv2d(2, 3, 3), (2, 2, 5, 4), 0),
    "transposed conv": (lambda nn: nn.ConvTranspose1d(2, 3, 3), (2, 2, 5), 1),
}


def call(T):
    return lambda module, x: module(x)


@pytest.mark.parametrize("name", NORMS)
def test_weight_norm(name):
    build, shape, dim = NORMS[name]
    x = RNG.standard_normal(shape)

    def parametrized(nn):
        return nn.utils.parametrizations.weight_norm(build(nn), dim=dim)

    same_gradients(parametrized, call, [x])


@pytest.mark.parametrize("name", ["linear", "all", "conv"])
@pytest.mark.filterwarnings("ignore:`")
def test_weight_norm_by_hook(name):
    build, shape, dim = NORMS[name]
    same_gradients(lambda nn: nn.utils.weight_norm(build(nn), dim=dim), call, [RNG.standard_normal(shape)])


def test_older_weight_norm_comes_and_goes():
    for T in (torch, graphc):
        layer = T.nn.Linear(5, 3)
        before = layer.weight.detach().numpy().copy()
        with pytest.warns(FutureWarning, match="is deprecated"):
            T.nn.utils.weight_norm(layer)
        assert sorted(dict(layer.named_parameters())) == ["bias", "weight_g", "weight_v"]
        assert tuple(layer.weight_g.shape) == (3, 1)
        with (
            pytest.warns(FutureWarning),
            pytest.raises(RuntimeError, match="Cannot register two weight_norm"),
        ):
            T.nn.utils.weight_norm(layer)
        T.nn.utils.remove_weight_norm(layer)
        assert sorted(dict(layer.named_parameters())) == ["bias", "weight"]
        np.testing.assert_allclose(layer.weight.detach().numpy(), before, rtol=1e-5)
        with pytest.raises(ValueError, match="weight_norm of 'weight' not found"):
            T.nn.utils.remove_weight_norm(layer)


@pytest.mark.filterwarnings("ignore:`")
def test_older_state_is_loaded():
    old = graphc.nn.utils.weight_norm(graphc.nn.Linear(5, 3))
    new = graphc.nn.utils.parametrizations.weight_norm(graphc.nn.Linear(5, 3))
    new.load_state_dict(old.state_dict())
    x = graphc.randn(2, 5)
    np.testing.assert_allclose(new(x).detach().numpy(), old(x).detach().numpy(), rtol=1e-5)


def test_training_with_weight_norm():
    """Losses equal PyTorch's; the parameters are magnitude and direction."""
    x, y = RNG.standard_normal((8, 5)).astype(np.float32), RNG.standard_normal((8, 3)).astype(np.float32)
    torch.manual_seed(0)
    models = {T: T.nn.utils.parametrizations.weight_norm(T.nn.Linear(5, 3)) for T in (torch, graphc)}
    copy_state(models[graphc], models[torch])
    losses = {}
    for T, model in models.items():
        optimizer = T.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y, T=T, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = T.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = graphc.compile(step) if T is graphc else step
        losses[T] = [run(T.from_numpy(x), T.from_numpy(y)).item() for _ in range(10)]
    np.testing.assert_allclose(losses[graphc], losses[torch], rtol=1e-4)


# --------------------------------------------------------------------- the machinery


def parts(T):
    """Parametrizations of one's own: symmetric; of rank one; an exponential."""

    class Symmetric(T.nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).mT

        def right_inverse(self, a):
            return a.triu()

    class RankOne(T.nn.Module):
        def forward(self, x, y):
            return x.unsqueeze(-1) @ y.unsqueeze(-2)

        def right_inverse(self, z):
            return z[:, 0].clone(), z[0].clone()

    class Exp(T.nn.Module):
        def forward(self, x):
            return x.exp()

    return Symmetric(), RankOne(), Exp()


def layers(nn):
    return nn.Linear(3, 3)


def parametrize(T):
    return T.nn.utils.parametrize if T is graphc else torch.nn.utils.parametrize


@pytest.mark.parametrize("which", [0, 1, 2])
def test_own_parametrizations(which):
    def build(nn):
        T = graphc if nn is graphc.nn else torch
        return parametrize(T).register_parametrization(layers(nn), "weight", parts(T)[which])

    same_gradients(build, call, [RNG.standard_normal((2, 3))])


def test_two_in_turn_and_assignment():
    for T in (torch, graphc):
        P = parametrize(T)
        layer = layers(T.nn)
        symmetric, _, exp = parts(T)
        P.register_parametrization(layer, "weight", symmetric)
        a = T.arange(9.0).reshape(3, 3)
        layer.weight = a + a.t()
        np.testing.assert_allclose(layer.weight.detach().numpy(), (a + a.t()).numpy())
        P.register_parametrization(layer, "weight", exp)
        np.testing.assert_allclose(layer.weight.detach().numpy(), np.exp((a + a.t()).numpy()), rtol=1e-5)
        with pytest.raises(RuntimeError, match="Exp does not implement right_inverse"):
            layer.weight = a
        assert type(layer).__name__ == "ParametrizedLinear"
        assert P.type_before_parametrizations(layer) is T.nn.Linear
        assert isinstance(layer.parametrizations.weight, P.ParametrizationList)
        assert len(layer.parametrizations.weight) == 2


@pytest.mark.parametrize("leave", [True, False])
def test_removal(leave):
    for T in (torch, graphc):
        P = parametrize(T)
        layer = layers(T.nn)
        original = layer.weight
        P.register_parametrization(layer, "weight", parts(T)[0])
        P.register_parametrization(layer, "bias", parts(T)[2])
        assert P.is_parametrized(layer)
        assert P.is_parametrized(layer, "bias")
        wanted = (layer.weight if leave else layer.parametrizations.weight.original).detach().numpy().copy()
        P.remove_parametrizations(layer, "weight", leave_parametrized=leave)
        assert layer.weight is original
        assert isinstance(layer.weight, T.nn.Parameter)
        np.testing.assert_allclose(layer.weight.detach().numpy(), wanted)
        assert not P.is_parametrized(layer, "weight")
        P.remove_parametrizations(layer, "bias")
        assert type(layer) is T.nn.Linear
        assert not P.is_parametrized(layer)
        assert sorted(dict(layer.named_parameters())) == ["bias", "weight"]


def test_copies_are_independent():
    layer = graphc.nn.utils.parametrizations.weight_norm(graphc.nn.Linear(5, 3))
    twin = copy.deepcopy(layer)
    wanted = layer.weight.detach().numpy().copy()
    parametrize(graphc).remove_parametrizations(twin, "weight")
    np.testing.assert_allclose(layer.weight.detach().numpy(), wanted)
    np.testing.assert_allclose(twin.weight.detach().numpy(), wanted)


def test_cached():
    """Within the block the weight is computed once."""
    P = parametrize(graphc)
    layer = layers(graphc.nn)
    calls = []

    class Count(graphc.nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 2

    P.register_parametrization(layer, "weight", Count())
    calls.clear()
    with P.cached():
        assert layer.weight is layer.weight
    assert len(calls) == 1
    assert layer.weight is not layer.weight


MISTAKES = {
    "name": lambda T, P: P.register_parametrization(layers(T.nn), "weigth", parts(T)[0]),
    "shape": lambda T, P: P.register_parametrization(layers(T.nn), "weight", T.nn.Flatten(0)),
    "not there": lambda T, P: P.remove_parametrizations(layers(T.nn), "weight"),
    "several": lambda T, P: P.remove_parametrizations(
        T.nn.utils.parametrizations.weight_norm(layers(T.nn)), "weight", leave_parametrized=False
    ),
    "empty": lambda T, P: P.ParametrizationList([], T.ones(2)),
    "spectral": lambda T, P: T.nn.utils.parametrizations.spectral_norm(layers(T.nn), "weigth"),
    "spectral dim": lambda T, P: T.nn.utils.parametrizations.spectral_norm(layers(T.nn), dim=2),
    "iterations": lambda T, P: T.nn.utils.parametrizations.spectral_norm(layers(T.nn), n_power_iterations=0),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    errors = []
    for T in (torch, graphc):
        with pytest.raises(Exception) as caught:
            MISTAKES[name](T, parametrize(T))
        errors.append(caught.value)
    assert type(errors[1]) is type(errors[0])


# ---------------------------------------------------------------------- spectral norm


@pytest.mark.parametrize("build", [lambda nn: nn.Linear(5, 3), lambda nn: nn.ConvTranspose2d(2, 3, 3)])
def test_spectral_norm(build):
    """From the same vectors: values, gradients, and vectors after three steps; then evaluation."""
    torch.manual_seed(0)
    models = {T: T.nn.utils.parametrizations.spectral_norm(build(T.nn)) for T in (torch, graphc)}
    assert repr(models[torch]) == repr(models[graphc])
    assert list(models[torch].state_dict()) == list(models[graphc].state_dict())
    copy_state(models[graphc], models[torch])
    x = RNG.standard_normal((4, 5) if "Linear" in repr(models[torch]) else (2, 2, 4, 5)).astype(np.float32)
    for training in (True, True, True, False):
        found = {}
        for T, model in models.items():
            model.train(training).zero_grad()
            out = model(T.from_numpy(x))
            (out * out).sum().backward()
            state = [v.detach().numpy() for v in model.state_dict().values()]
            found[T] = [out.detach().numpy(), *[p.grad.numpy() for p in model.parameters()], *state]
        for ours, theirs in zip(found[graphc], found[torch], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_spectral_norm_is_one():
    layer = graphc.nn.utils.parametrizations.spectral_norm(graphc.nn.Linear(20, 30), n_power_iterations=2)
    with graphc.no_grad():
        for _ in range(30):
            layer(graphc.ones(1, 20))
    assert np.linalg.norm(layer.weight.detach().numpy(), 2) == pytest.approx(1, rel=1e-3)
    vector = graphc.nn.utils.parametrizations.spectral_norm(graphc.nn.Linear(20, 30), "bias").bias
    assert np.linalg.norm(vector.detach().numpy()) == pytest.approx(1, rel=1e-5)


# --------------------------------------------------------------------------- clipping


def test_clip_with_known_norm():
    found = []
    for T in (torch, graphc):
        p = T.arange(6.0).requires_grad_()
        (p * p).sum().backward()
        norm = T.nn.utils.get_total_norm([p.grad])
        T.nn.utils.clip_grads_with_norm_([p], 2.0, norm)
        found.append(p.grad.numpy())
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert np.linalg.norm(found[1]) == pytest.approx(2.0, rel=1e-4)
