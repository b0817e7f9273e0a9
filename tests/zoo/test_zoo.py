"""Model code written for PyTorch runs with the namespace exchanged, and its losses equal torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc

from . import convolutional, others

torch = pytest.importorskip("torch")
STEPS = 4
Arrays = tuple[np.ndarray, ...]
Step = Callable[..., Sequence[Any]]


@dataclass(frozen=True)
class Case:
    """build(T) gives the model; steps(T, model) a training step on one batch; batch(rng) its arrays."""

    build: Callable[[Any], Any]
    steps: Callable[[Any, Any], Step]
    batch: Callable[[np.random.Generator], Arrays]


def supervised(loss: str = "CrossEntropyLoss", lr: float = 0.02) -> Callable[[Any, Any], Step]:
    def steps(T: Any, model: Any) -> Step:
        criterion = getattr(T.nn, loss)()
        optimizer = T.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)

        def step(*batch: Any) -> Sequence[Any]:
            optimizer.zero_grad()
            value = criterion(model(*batch[:-1]), batch[-1])
            value.backward()
            optimizer.step()
            return (value,)

        return step

    return steps


def vae_steps(T: Any, model: Any) -> Step:
    optimizer = T.optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, noise: Any) -> Sequence[Any]:
        optimizer.zero_grad()
        loss = others.vae_loss(T, model, x, noise)
        loss.backward()
        optimizer.step()
        return (loss,)

    return step


def gan_steps(T: Any, model: Any) -> Step:
    generator, discriminator = model["generator"], model["discriminator"]
    criterion = T.nn.BCELoss()
    first = T.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    second = T.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))

    def step(real: Any, noise: Any) -> Sequence[Any]:
        discriminator.zero_grad()
        label = T.full((real.size(0),), 1.0, dtype=real.dtype)
        on_real = criterion(discriminator(real).view(-1), label)
        on_real.backward()
        fake = generator(noise)
        label.fill_(0.0)
        on_fake = criterion(discriminator(fake.detach()).view(-1), label)
        on_fake.backward()
        first.step()
        generator.zero_grad()
        label.fill_(1.0)
        fooling = criterion(discriminator(fake).view(-1), label)
        fooling.backward()
        second.step()
        return on_real + on_fake, fooling

    return step


def siamese_steps(T: Any, model: Any) -> Step:
    criterion = T.nn.TripletMarginLoss(margin=1.0, p=2)
    optimizer = T.optim.RMSprop(model.parameters(), lr=1e-3)

    def step(anchor: Any, positive: Any, negative: Any) -> Sequence[Any]:
        optimizer.zero_grad()
        loss = criterion(*model(anchor, positive, negative))
        loss.backward()
        optimizer.step()
        return (loss,)

    return step


def pictures(count: int, channels: int, size: int, classes: int = 10) -> Callable[..., Arrays]:
    def batch(rng: np.random.Generator) -> Arrays:
        return rng.standard_normal((count, channels, size, size)), rng.integers(0, classes, count)

    return batch


def masks(rng: np.random.Generator) -> Arrays:
    return rng.standard_normal((2, 3, 18, 20)), rng.integers(0, 4, (2, 18, 20))


ONE, THREE = pictures(8, 1, 28), pictures(6, 3, 32)
CASES = {
    "lenet_object": Case(convolutional.lenet_object, supervised(), ONE),
    "lenet_functional": Case(convolutional.lenet_functional, supervised("NLLLoss"), ONE),
    "lenet_sequential": Case(convolutional.lenet_sequential, supervised(), ONE),
    "vgg": Case(convolutional.vgg, supervised(), THREE),
    "resnet18": Case(convolutional.resnet18, supervised(), pictures(4, 3, 64)),
    "resnet50": Case(convolutional.resnet50, supervised(lr=0.002), pictures(4, 3, 64)),
    "mobilenetv2": Case(convolutional.mobilenetv2, supervised(), THREE),
    "densenet": Case(convolutional.densenet, supervised(), pictures(4, 3, 16)),
    "unet": Case(convolutional.unet, supervised(), masks),
    "vae": Case(others.vae, vae_steps, lambda rng: (rng.random((8, 1, 8, 8)), rng.standard_normal((8, 6)))),
    "dcgan": Case(
        others.dcgan, gan_steps,
        lambda rng: (rng.standard_normal((6, 1, 16, 16)), rng.standard_normal((6, 10, 1, 1))),
    ),
    "siamese": Case(others.siamese, siamese_steps, lambda rng: tuple(rng.standard_normal((3, 5, 1, 16, 16)))),
    "text_cnn": Case(
        others.text_cnn, supervised(), lambda rng: (rng.integers(0, 50, (6, 11)), rng.integers(0, 3, 6))
    ),
}  # fmt: skip


def as_numpy(model: Any) -> dict[str, np.ndarray]:
    return {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}


def train(T: Any, case: Case, state: dict[str, np.ndarray], compiled: bool = False) -> list[float]:
    """The losses of a few steps in float64, where rounding does not grow into a difference."""
    model = case.build(T).double()
    model.load_state_dict({k: T.tensor(v) for k, v in state.items()})
    step = case.steps(T, model)
    if compiled:
        step = T.compile(step)
    rng = np.random.default_rng(1)
    losses = []
    for _ in range(STEPS):
        batch = [T.from_numpy(np.ascontiguousarray(a)) for a in case.batch(rng)]
        losses += [loss.item() for loss in step(*batch)]
    return losses


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_torch(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model = case.build(torch).double()
    state = as_numpy(model)
    ours = case.build(graphc).double()
    assert [(k, v.shape) for k, v in as_numpy(ours).items()] == [(k, v.shape) for k, v in state.items()]
    assert repr(ours).replace("graphc.", "torch.") == repr(model)
    expected = train(torch, case, state)
    assert np.isfinite(expected).all()
    for compiled in (False, True):
        np.testing.assert_allclose(train(graphc, case, state, compiled), expected, rtol=1e-6)
