"""functional_call and stack_module_state, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.nn.utils.stateless import functional_call, stack_module_state


def test_other_weights_give_other_results_and_gradients() -> None:
    torch = pytest.importorskip("torch")

    def run(lib: Any) -> list[np.ndarray]:
        model = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.ReLU(), lib.nn.Linear(4, 2)).double()
        rng = np.random.default_rng(0)
        weights = {
            name: lib.tensor(rng.standard_normal(tuple(p.shape)), requires_grad=True)
            for name, p in model.named_parameters()
        }
        x = lib.tensor(rng.standard_normal((5, 3)))
        out = lib.func.functional_call(model, weights, (x,))
        out.square().sum().backward()
        assert all(p.grad is None for p in model.parameters())
        return [out.detach().numpy(), *[w.grad.numpy() for w in weights.values()]]

    for mine, theirs in zip(run(gc), run(torch), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


def test_the_module_is_as_before() -> None:
    model = nn.Linear(2, 1, bias=False)
    weight, before = model.weight, model.weight.tolist()
    x = gc.ones(1, 2)
    assert functional_call(model, {"weight": gc.ones(1, 2)}, x).item() == 2
    assert model.weight is weight
    assert model.weight.tolist() == before
    with pytest.raises(RuntimeError, match="shape"):
        functional_call(model, {"weight": gc.ones(1, 3)}, x)
    assert model.weight is weight


def test_calls_in_training_loops_use_the_tensors_they_were_given() -> None:
    """A library module's call is noted and built later; its weights must be those of the call."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    x, losses = gc.ones(3, 2), []
    for i in range(6):
        weights = {
            name: gc.full(p.shape, float(i), requires_grad=True) for name, p in model.named_parameters()
        }
        loss = functional_call(model, weights, (x,)).sum()
        loss.backward()
        losses.append(loss.item())
        assert weights["1.bias"].grad.tolist() == [3.0]
    assert losses == [3 * (2 * i * (2 * i + i) + i) for i in range(6)]


def test_buffers_that_change_are_the_given_ones() -> None:
    model = nn.BatchNorm1d(2)
    buffers = {"running_mean": gc.zeros(2), "running_var": gc.ones(2), "num_batches_tracked": gc.tensor(0)}
    x = gc.tensor([[1.0, 2.0], [3.0, 6.0]])
    functional_call(model, (dict(model.named_parameters()), buffers), (x,))
    assert buffers["running_mean"].tolist() == pytest.approx([0.2, 0.4])
    assert model.running_mean.tolist() == [0, 0]
    assert model.num_batches_tracked.item() == 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: gc.Tensor, scale: float = 1.0) -> gc.Tensor:
        return self.second(self.first(x)) * scale


def test_tied_weights_are_replaced_together() -> None:
    model, x, two = Tied(), gc.ones(1, 2), gc.eye(2) * 2
    assert functional_call(model, {"first.weight": two}, (x,)).tolist() == [[4, 4]]
    assert functional_call(model, {"first.weight": two}, (x,), {"scale": 0.5}).tolist() == [[2, 2]]
    alone = functional_call(model, {"first.weight": two}, (x,), tie_weights=False)
    np.testing.assert_allclose(alone.detach().numpy(), 2 * model.second(x).detach().numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"'first.weight' and 'second.weight' are one tensor"):
        functional_call(model, {"first.weight": two, "second.weight": gc.eye(2)}, (x,))


def test_mistakes() -> None:
    model, x = nn.Linear(2, 1), gc.ones(1, 2)
    with pytest.raises(TypeError, match="'weight' must be a Tensor, got list"):
        functional_call(model, {"weight": [[1.0, 2.0]]}, x)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'bias' appears in more than one dict"):
        functional_call(model, [{"bias": gc.ones(1)}, {"bias": gc.ones(1)}], x)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): 'bias'.*\n.*Unexpected key\(s\): 'scale'"):
        functional_call(model, {"weight": gc.ones(1, 2), "scale": gc.ones(1)}, x, strict=True)
    assert functional_call(model, {"weight": gc.ones(1, 2), "bias": gc.ones(1)}, x, strict=True).item() == 3


def test_ensembles() -> None:
    """The ensembling tutorial: several models as one, mapped over their stacked state."""
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()).eval() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    assert parameters["0.weight"].shape == (3, 4, 3)
    assert parameters["0.weight"].is_leaf
    assert parameters["0.weight"].requires_grad
    assert not buffers["1.running_mean"].requires_grad
    x = gc.rand(5, 3)

    def one(p: dict[str, gc.Tensor], b: dict[str, gc.Tensor], x: gc.Tensor) -> gc.Tensor:
        return functional_call(models[0], (p, b), (x,))

    together = gc.func.vmap(one, in_dims=(0, 0, None))(parameters, buffers, x)
    np.testing.assert_allclose(
        together.detach().numpy(), np.stack([m(x).detach().numpy() for m in models]), rtol=1e-5, atol=1e-6
    )
    for wrong in ([], [nn.ReLU(), nn.Tanh()], [nn.ReLU(), nn.ReLU().eval()]):
        with pytest.raises(ValueError, match="stack_module_state"):
            stack_module_state(wrong)
    with pytest.raises(ValueError, match="of the same names"):
        stack_module_state([nn.Linear(1, 1), nn.Linear(1, 1, bias=False)])
