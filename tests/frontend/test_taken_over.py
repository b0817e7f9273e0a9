"""State that history still stands on is written over by one program, as by an update made of nodes."""

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.frontend.evaluation.canonical import Gone
from graphc.frontend.steps import joint, known_step

STEPS = 6


def network(library=graphc):
    library.manual_seed(0)
    net = library.nn.Sequential(
        library.nn.Linear(6, 8),
        library.nn.Tanh(),
        library.nn.Linear(8, 8),
        library.nn.Tanh(),
        library.nn.Linear(8, 3),
    )
    rng = np.random.default_rng(0)
    with library.no_grad():
        for parameter in net.parameters():
            parameter.copy_(
                library.tensor(rng.standard_normal(tuple(parameter.shape)).astype(np.float32) / 3)
            )
    return net


def batch(number, library=graphc):
    rng = np.random.default_rng(number)
    return library.tensor(rng.standard_normal((5, 6)).astype(np.float32)), library.tensor(
        rng.integers(0, 3, 5)
    )


def train(library, read):
    """Steps during which an earlier pass through the same parameters stays undifferentiated: (its results,
    read after the step, and the parameters)."""
    net = network(library)
    optimizer = library.optim.Adam(net.parameters(), 0.01)
    seen = []
    for number in range(STEPS):
        x, y = batch(number, library)
        aside = net(x * 0.5)
        if read:
            seen.append(aside.sum().item())
        loss = library.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        if read:
            seen.append(float(loss))
        optimizer.step()
        seen += aside.detach().numpy().ravel().tolist()
    return seen, [p.detach().numpy().copy() for p in net.parameters()]


@pytest.mark.parametrize("read", [False, True])
def test_as_pytorch(read):
    torch = pytest.importorskip("torch")
    ours, theirs = train(graphc, read), train(torch, read)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    for one, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def counting(monkeypatch, module):
    """The answers of `module.step`, as they come."""
    answers = []
    original = module.step

    def step(optimizer):
        answers.append(original(optimizer))
        return answers[-1]

    monkeypatch.setattr(module, "step", step)
    return answers


def test_step_is_one_program(monkeypatch):
    answers = counting(monkeypatch, known_step)
    train(graphc, True)
    assert answers == [True] * STEPS


def passes(net, optimizer, steps, kept):
    for number in range(steps):
        x, y = batch(number)
        kept.append(net(x * 0.5))
        kept[-1].sum().item()
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        loss.item()
        optimizer.step()


def test_history_of_before_is_gone():
    """PyTorch raises too: the second layer's weights are needed for the gradient of its input."""
    net, kept = network(), []
    passes(net, optim.SGD(net.parameters(), 0.1), 3, kept)
    kept[-1].sum().backward()
    with pytest.raises(Gone, match="modified by an inplace operation"):
        net[0].weight.grad.numpy()


def test_value_of_before_is_kept():
    net, kept = network(), []
    optimizer = optim.SGD(net.parameters(), 0.1)
    passes(net, optimizer, 2, kept)
    expected = kept[-1].detach().numpy().copy()
    passes(net, optimizer, 2, [])
    np.testing.assert_array_equal(kept[-1].detach().numpy(), expected)


def test_parameters_keep_their_memory():
    """No copy of the weights is made at each step because history stands on them."""
    net, kept = network(), []
    optimizer = optim.SGD(net.parameters(), 0.1)
    passes(net, optimizer, 3, kept)
    before = [id(p._cell.node.bound) for p in net.parameters()]
    passes(net, optimizer, 3, kept)
    assert [id(p._cell.node.bound) for p in net.parameters()] == before


def one_step(net, optimizer, number, read, wrong=0):
    x, y = batch(number)
    loss = nn.functional.cross_entropy(net(x), y + wrong)
    optimizer.zero_grad()
    loss.backward()
    if read:
        loss.item()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("read", [False, True])
def test_failed_step_takes_nothing(read):
    """A label outside of the classes: nothing changes, and history of before still has its values."""
    net = network()
    optimizer = optim.SGD(net.parameters(), 0.1)
    for number in range(3):
        aside = net(batch(9)[0])
        aside.sum().item()
        one_step(net, optimizer, number, read)
    aside = net(batch(9)[0])
    aside.sum().item()
    before = [p.detach().numpy().copy() for p in net.parameters()]
    with pytest.raises(IndexError):
        one_step(net, optimizer, 3, read, wrong=3)
    for parameter, value in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), value)
    optimizer.zero_grad()
    aside.sum().backward()
    assert np.isfinite(net[0].weight.grad.numpy()).all()


@pytest.mark.parametrize(
    "combine", [lambda total, loss: total + loss, lambda total, loss: 0.9 * total + loss.sqrt()]
)
def test_losses_summed_up_before_their_backward_pass(monkeypatch, combine):
    """Nobody can go backward through the sum any more once the loss's history is used up."""
    answers = counting(monkeypatch, joint)

    def run(library):
        net = network(library)
        optimizer, total = library.optim.SGD(net.parameters(), 0.1), 0.0
        for number in range(STEPS):
            x, y = batch(number, library)
            loss = library.nn.functional.cross_entropy(net(x), y)
            total = combine(total, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return total, [p.detach().numpy().copy() for p in net.parameters()]

    total, ours = run(graphc)
    assert answers == [True] * STEPS
    assert total.requires_grad
    with pytest.raises(RuntimeError, match="a second time"):
        total.backward()
    torch = pytest.importorskip("torch")
    expected, theirs = run(torch)
    np.testing.assert_allclose(total.item(), expected.item(), rtol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_result_with_history_of_its_own_stays_differentiable():
    """What shares leaves with a loss, but no function that its backward pass uses up, is not taken along."""
    net = network()
    x, y = batch(0)
    for _ in range(3):
        penalty = (net[0].weight * 2.0).sum()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        net.zero_grad()
    penalty.backward()
    np.testing.assert_array_equal(net[0].weight.grad.numpy(), np.full((8, 6), 2.0, np.float32))
