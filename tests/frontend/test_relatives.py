"""What one backward pass leaves pending is computed together, whichever part of it is read first."""

import weakref
from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.frontend.evaluation import canonical, lazy, relatives
from graphc.frontend.tracing import deferred


@pytest.fixture(autouse=True)
def nothing_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "LONGEST", 0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.last(graphc.tanh(self.first(x)))


READS: dict[str, Callable] = {
    "loss": lambda net, scores, loss: loss,
    "detached loss": lambda net, scores, loss: loss.detach(),
    "norm of a gradient": lambda net, scores, loss: net.first.weight.grad.norm(),
    "accuracy": lambda net, scores, loss: (scores.argmax(1) == 0).sum(),
    "total norm": lambda net, scores, loss: nn.utils.clip_grad_norm_(net.parameters(), 1e6),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_computes_the_whole_pass(name: str) -> None:
    graphc.manual_seed(0)
    net = Net()
    scores = net(graphc.ones(4, 5))
    loss = nn.functional.cross_entropy(scores, graphc.tensor([0, 1, 2, 0]))
    loss.backward()
    READS[name](net, scores, loss).item()
    before = lazy.native_calls()
    found = [t.detach().numpy().copy() for t in (scores, loss, *[p.grad for p in net.parameters()])]
    assert lazy.native_calls() == before, "something was computed in another program"

    graphc.manual_seed(0)
    net = Net()
    scores = net(graphc.ones(4, 5))
    loss = nn.functional.cross_entropy(scores, graphc.tensor([0, 1, 2, 0]))
    loss.backward()
    for p in (scores, loss, *[p.grad for p in net.parameters()]):
        np.testing.assert_allclose(found.pop(0), p.detach().numpy(), rtol=1e-6, atol=1e-7)


def test_norms_read_one_by_one_need_one_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = lazy.run

    def spy(found, *args):
        sizes.append(len(found.order))
        return run(found, *args)

    monkeypatch.setattr(lazy, "run", spy)
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])
    net(graphc.ones(2, 4)).sum().backward()
    for p in net.parameters():
        p.grad.norm().item()
    assert max(sizes[1:]) < sizes[0] / 4


def test_many_kept_gradients_do_not_slow_small_reads_down(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class Counted(weakref.WeakKeyDictionary):
        def items(self):
            looks.append(len(self))
            return super().items()

    monkeypatch.setattr(relatives, "_relatives", Counted())
    kept = []
    for i in range(canonical.FEW + 44):
        w = graphc.full((2,), float(i), requires_grad=True)
        (w * w * 3).sum().backward()
        kept.append(w.grad)
    assert (graphc.ones(3) * 2 + 1).sum().item() == 9
    assert kept[7].tolist() == [42.0, 42.0]
    assert max(looks, default=0) <= canonical.FEW
