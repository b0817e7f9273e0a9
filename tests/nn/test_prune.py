"""nn.utils.prune against PyTorch, step by step as in its tutorial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn.utils import prune

torch = pytest.importorskip("torch")


def made(T: Any) -> Any:
    net = T.nn.Sequential(T.nn.Conv2d(2, 4, 3), T.nn.ReLU(), T.nn.Flatten(), T.nn.Linear(36, 5))
    rng = np.random.default_rng(1)
    with T.no_grad():
        for p in net.parameters():
            p.copy_(T.tensor(rng.standard_normal(tuple(p.shape)), dtype=T.float32))
    return net


def _small(T: Any, P: Any) -> type:
    class Small(P.BasePruningMethod):
        """Everything below a half."""

        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t: Any, default_mask: Any) -> Any:
            mask = default_mask.clone()
            mask[T.abs(t) < 0.5] = 0
            return mask

    return Small


def _one(T: Any, P: Any, net: Any) -> None:
    P.l1_unstructured(net[0], "weight", amount=0.4)
    P.l1_unstructured(net[0], name="bias", amount=1)


def _after_another(T: Any, P: Any, net: Any) -> None:
    P.ln_structured(net[0], "weight", amount=1, n=2, dim=0)
    P.l1_unstructured(net[0], "weight", amount=0.25)
    P.ln_structured(net[0], "weight", amount=0.3, n=float("inf"), dim=1)
    assert [type(m).__name__ for m in next(iter(net[0]._forward_pre_hooks.values()))] == [
        "LnStructured", "L1Unstructured", "LnStructured",
    ]  # fmt: skip


def _scored(T: Any, P: Any, net: Any) -> None:
    scores = T.arange(180.0).reshape(5, 36) % 7
    P.l1_unstructured(
        net[3], "weight", amount=0.5, importance_scores=scores + T.arange(180.0).view(5, 36) / 1e3
    )


def _global(T: Any, P: Any, net: Any) -> None:
    pairs = [(net[0], "weight"), (net[3], "weight")]
    P.l1_unstructured(net[0], "weight", amount=3)
    P.global_unstructured(pairs, pruning_method=P.L1Unstructured, amount=0.2)


def _own(T: Any, P: Any, net: Any) -> None:
    P.identity(net[3], "bias")
    _small(T, P).apply(net[3], "weight")
    P.custom_from_mask(net[3], "bias", mask=T.tensor([0, 1, 0, 1, 1]))


CASES = {f.__name__[1:]: f for f in (_one, _after_another, _scored, _global, _own)}


def run(T: Any, P: Any, case: str) -> tuple[list[str], list[np.ndarray]]:
    net = made(T)
    CASES[case](T, P, net)
    names = list(net.state_dict())
    optimizer = T.optim.SGD(net.parameters(), lr=0.01)
    x = T.tensor(np.random.default_rng(2).standard_normal((3, 2, 5, 5)), dtype=T.float32)
    seen = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = net(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        seen.append(loss.detach())
    seen += list(net.state_dict().values())
    for layer in (net[0], net[3]):
        for name in ("weight", "bias"):
            if hasattr(layer, f"{name}_mask"):
                assert P.is_pruned(net)
                P.remove(layer, name)
    assert not P.is_pruned(net)
    names += sorted(net.state_dict())
    seen += [net.state_dict()[k] for k in sorted(net.state_dict())]
    return names, [t.numpy() for t in seen]


@pytest.mark.parametrize("case", CASES)
def test_masks_training_and_removal(case: str) -> None:
    import torch.nn.utils.prune as theirs

    (names, ours), (wanted, expected) = run(graphc, prune, case), run(torch, theirs, case)
    assert names == wanted
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_random_methods_prune_as_many_as_asked() -> None:
    net = made(graphc)
    prune.random_unstructured(net[3], "weight", amount=0.3)
    assert (net[3].weight_mask == 0).sum().item() == 54
    prune.random_structured(net[0], "weight", amount=2, dim=0)
    kept = net[0].weight_mask.sum((1, 2, 3))
    assert sorted(kept.tolist()) == [0, 0, 18, 18]
    assert isinstance(next(iter(net[0]._forward_pre_hooks.values())), prune.RandomStructured)
    assert prune.RandomUnstructured(2).prune(graphc.ones(5)).sum().item() == 3
    assert prune.LnStructured(1, 1, 0).prune(graphc.tensor([[1.0, 2], [3, 4]])).tolist() == [[0, 0], [3, 4]]


def test_refusals() -> None:
    layer = nn.Linear(3, 2)
    for amount in (-1, 1.5):
        with pytest.raises(ValueError, match="should either be"):
            prune.l1_unstructured(layer, "weight", amount)
    with pytest.raises(TypeError, match="Invalid type"):
        prune.l1_unstructured(layer, "weight", "much")
    with pytest.raises(ValueError, match="should be smaller"):
        prune.l1_unstructured(layer, "weight", 7)
    with pytest.raises(ValueError, match="multidimensional"):
        prune.random_structured(layer, "bias", 1, 0)
    with pytest.raises(IndexError, match="Invalid index"):
        prune.ln_structured(layer, "weight", 1, 2, 5)
    with pytest.raises(ValueError, match="has to be pruned"):
        prune.remove(layer, "weight")
    with pytest.raises(TypeError, match="unstructured"):
        prune.global_unstructured([(layer, "weight")], prune.LnStructured, amount=1, n=2)
    with pytest.raises(TypeError, match="is not a BasePruningMethod"):
        prune.PruningContainer("l1")
    with pytest.raises(AssertionError, match="must match"):
        prune.CustomFromMask(graphc.ones(2)).compute_mask(graphc.ones(3), graphc.ones(3))
    with pytest.raises(AssertionError, match="same shape"):
        prune.l1_unstructured(layer, "weight", 1, graphc.ones(2))
    assert list(layer.state_dict()) == ["weight", "bias"]
    prune.Identity.apply(layer, "weight")
    with pytest.raises(ValueError, match="Can only add"):
        prune.PruningContainer(next(iter(layer._forward_pre_hooks.values()))).add_pruning_method(
            prune.Identity.apply(layer, "bias")
        )
