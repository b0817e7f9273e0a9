"""Passes that read values with a history of their own, or add to gradients of others, are recorded too.

The training loop of a generative adversarial network has both: the discriminator's loss is made of `fake`,
whose history the generator's loss will need, and its gradients are those of two passes.
"""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.frontend.steps import adopted, foreseen

ROUNDS = 8


def networks(library: Any) -> tuple[Any, Any]:
    nn = library.nn
    generator = nn.Sequential(
        nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh()
    )
    critic = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Sigmoid()
    )
    rng = np.random.default_rng(0)
    with library.no_grad():
        for parameter in (*generator.parameters(), *critic.parameters()):
            values = rng.standard_normal(tuple(parameter.shape)) / 2
            parameter.copy_(library.tensor(values.astype(np.float32)))
    return generator, critic


def adversaries(library: Any, read: bool) -> tuple[list[float], list[np.ndarray]]:
    """The usual loop: what it prints (or, unless it is to `read` that, nothing), and the state at its end."""
    generator, critic = networks(library)
    loss_of = library.nn.BCELoss()
    of_critic = library.optim.SGD(critic.parameters(), 0.1)
    of_generator = library.optim.Adam(generator.parameters(), 0.01)
    rng, seen = np.random.default_rng(1), []
    for _ in range(ROUNDS):
        critic.zero_grad()
        label = library.full((5,), 1.0)
        on_real = loss_of(
            critic(library.tensor(rng.standard_normal((5, 6)).astype(np.float32))).view(-1), label
        )
        on_real.backward()
        if read:
            seen.append(on_real.item())
        fake = generator(library.tensor(rng.standard_normal((5, 4)).astype(np.float32)))
        label.fill_(0.0)
        on_fake = loss_of(critic(fake.detach()).view(-1), label)
        on_fake.backward()
        if read:
            seen.append(on_fake.item())
        of_critic.step()
        generator.zero_grad()
        label.fill_(1.0)
        fooled = loss_of(critic(fake).view(-1), label)
        fooled.backward()
        of_generator.step()
        if read:
            seen += [fooled.item(), fake.mean().item()]
    state = [*generator.state_dict().values(), *critic.state_dict().values()]
    return seen, [np.asarray(value.detach().numpy(), np.float64) for value in state]


@pytest.mark.parametrize("read", [False, True])
def test_adversaries_as_in_pytorch(read: bool) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = adversaries(graphc, read), adversaries(torch, read)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    for one, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_passes_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end no backward pass is made of nodes: each is noted, or computed and added at once."""
    taken: list[bool] = []
    note, add = adopted.note, foreseen.add
    monkeypatch.setattr(adopted, "note", lambda found: note(found) and (taken.append(True) or True))
    monkeypatch.setattr(foreseen, "add", lambda found: (taken.append(add(found)), taken[-1])[1])
    adversaries(graphc, True)
    assert taken[-6:] == [True] * 6


def test_history_of_a_value_computed_aside_is_used_up() -> None:
    generator, critic = networks(graphc)
    x = graphc.tensor(np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
    for _ in range(4):
        fake = generator(x)
        critic(fake.detach()).sum().backward()
        critic.zero_grad()
        generator.zero_grad()
        critic(fake).sum().backward()
        critic.zero_grad()
    with pytest.raises(RuntimeError, match="a second time"):
        fake.sum().backward()


def accumulated(library: Any, read: bool) -> list[np.ndarray]:
    """Gradients of three batches, whose losses may be read."""
    _, critic = networks(library)
    rng, results = np.random.default_rng(2), []
    for _ in range(3):
        critic.zero_grad()
        for _ in range(3):
            loss = critic(library.tensor(rng.standard_normal((5, 6)).astype(np.float32))).square().sum()
            loss.backward()
            if read:
                loss.item()
        results += [p.grad.detach().numpy().copy() for p in critic.parameters()]
    return results


@pytest.mark.parametrize("read", [False, True])
def test_gradients_add_up(read: bool) -> None:
    torch = pytest.importorskip("torch")
    for one, other in zip(accumulated(graphc, read), accumulated(torch, read), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_gradient_that_somebody_holds_gets_the_sum() -> None:
    """As in PyTorch, a second backward pass adds in place."""
    _, critic = networks(graphc)
    x = graphc.tensor(np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    for _ in range(3):
        critic.zero_grad()
        critic(x).sum().backward()
        held = critic[0].weight.grad
        first = held.detach().numpy().copy()
        critic(x).sum().backward()
        assert critic[0].weight.grad is held
        np.testing.assert_allclose(held.detach().numpy(), 2 * first, rtol=1e-4, atol=1e-6)


def test_after_a_failed_check() -> None:
    """A label outside of the classes, in the second pass: its reader is told, and the next ones are right."""
    net = networks(graphc)[1][0]
    x = graphc.tensor(np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    y = graphc.tensor(np.arange(5))
    found = []
    for wrong in (0, 0, 9, 0):
        net.zero_grad()
        net(x).sum().backward()
        graphc.nn.functional.cross_entropy(net(x), y + wrong).backward()
        if wrong:
            with pytest.raises(IndexError):
                net.weight.grad.numpy()
        else:
            found.append(net.weight.grad.numpy().copy())
    np.testing.assert_array_equal(found[-1], found[0])


def test_hooks_of_leaves_are_called() -> None:
    """The second pass, onto gradients of the first, has its gradients shown to hooks of its leaves."""
    net = networks(graphc)[1][0]
    x = graphc.tensor(np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    seen: list[np.ndarray] = []
    for hooked in (False, False, True):
        net.zero_grad()
        net(x).sum().backward()
        if hooked:
            net.weight.register_hook(lambda gradient: seen.append(gradient.numpy().copy()))
            first = net.weight.grad.numpy().copy()
        (2.0 * net(x).sum()).backward()
    np.testing.assert_allclose(seen[0], 2 * first, rtol=1e-5)
