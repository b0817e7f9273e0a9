"""Random programs of calls, backward passes, steps, reads and changes: the bits of not putting off."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.frontend.modes import MODE
from graphc.frontend.steps import known_step
from graphc.frontend.tracing import deferred
from graphc.nn import recorded

RNG = np.random.default_rng(5)
BATCHES = [RNG.standard_normal((4, 3)).astype(np.float32) for _ in range(3)]
LABELS = [RNG.integers(0, 2, 4) for _ in range(3)]


class World:
    """Two networks that share a layer, two optimizers, functions of them, compiled or not; what was seen."""

    def __init__(self, seed: int, wrap: Callable[[Any], Any]) -> None:
        self.pick = random.Random(seed)
        gc.manual_seed(seed)
        shared = nn.Linear(3, 5)
        self.a = nn.Sequential(shared, nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 2))
        self.b = nn.Sequential(shared, nn.Sigmoid(), nn.Linear(5, 2))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizers = [
            gc.optim.SGD(self.a.parameters(), lr=0.1, momentum=0.9),
            gc.optim.Adam(self.b.parameters(), lr=0.02),
        ]
        self.parameters = list({id(p): p for m in (self.a, self.b) for p in m.parameters()}.values())
        self.functions: list[Callable[..., gc.Tensor]] = [
            wrap(lambda x, y: self.criterion(self.a(x), y)),
            wrap(lambda x, y: self.criterion(self.b(x), y)),
            wrap(lambda x, y: self.criterion(self.a(x) + self.b(x), y)),
        ]
        self.models = [wrap(self.a), wrap(self.b)]
        self.of_logits = wrap(self.criterion)
        self.losses: list[gc.Tensor] = []
        self.kept: list[gc.Tensor] = []
        self.seen: list[Any] = []

    def see(self, tensor: gc.Tensor | None) -> None:
        self.seen.append(None if tensor is None else tensor.detach().numpy())

    def batch(self) -> tuple[gc.Tensor, gc.Tensor]:
        i = self.pick.randrange(3)
        n = self.pick.choice((4, 4, 4, 3))
        return gc.from_numpy(BATCHES[i][:n]), gc.from_numpy(LABELS[i][:n])

    # ------------------------------------------------------------------ events

    def call(self) -> None:
        x, y = self.batch()
        self.losses.append(self.pick.choice(self.functions)(x, y))

    def call_in_two(self) -> None:
        x, y = self.batch()
        self.losses.append(self.of_logits(self.pick.choice(self.models)(x), y))

    def backward(self) -> None:
        if self.losses:
            loss = self.losses.pop(self.pick.randrange(len(self.losses)))
            loss.backward(retain_graph=self.pick.random() < 0.1 or None)
            self.kept.append(loss)

    def outdated(self) -> None:
        """Parameters have changed: what was computed from them cannot be differentiated any more."""
        self.kept += self.losses
        self.losses.clear()

    def step(self) -> None:
        self.pick.choice(self.optimizers).step()
        self.outdated()

    def zero(self) -> None:
        self.pick.choice(self.optimizers).zero_grad(set_to_none=self.pick.random() < 0.9)

    def iteration(self) -> None:
        """What loops do, so that it is common."""
        self.zero()
        self.pick.choice((self.call, self.call_in_two))()
        self.backward()
        self.step()

    def watched_iteration(self) -> None:
        """The same of those who look at what they do."""
        self.zero()
        self.pick.choice((self.call, self.call_in_two))()
        if self.pick.random() < 0.7:
            self.see(self.losses[-1])
        if self.pick.random() < 0.2:
            self.zero()
        if self.pick.random() < 0.9:
            self.backward()
        if self.pick.random() < 0.3:
            self.see(self.kept[-1] if self.kept else None)
        self.step()

    def read(self) -> None:
        pool = [*self.losses, *self.kept]
        if pool:
            self.see(self.pick.choice(pool))

    def read_parameter(self) -> None:
        self.see(self.pick.choice(self.parameters))

    def read_gradient(self) -> None:
        self.see(self.pick.choice(self.parameters).grad)

    def keep_gradient(self) -> None:
        gradient = self.pick.choice(self.parameters).grad
        if gradient is not None:
            self.kept.append(gradient)

    def read_statistics(self) -> None:
        self.see(self.a[1].running_mean)

    def change_parameter(self) -> None:
        with gc.no_grad():
            self.pick.choice(self.parameters).mul_(0.9)
        self.outdated()

    def change_gradient(self) -> None:
        gradient = self.pick.choice(self.parameters).grad
        if gradient is not None:
            gradient.mul_(0.5)

    def drop_gradient(self) -> None:
        self.pick.choice(self.parameters).grad = None

    def change_rate(self) -> None:
        self.pick.choice(self.optimizers).param_groups[0]["lr"] = self.pick.choice((0.1, 0.05, 0.0))

    def freeze(self) -> None:
        p = self.pick.choice(self.parameters)
        p.requires_grad_(not p.requires_grad)

    def mode(self) -> None:
        self.a.train(self.pick.random() < 0.7)

    def evaluate(self) -> None:
        with gc.no_grad():
            self.see(self.pick.choice(self.models)(self.batch()[0]))

    def combine(self) -> None:
        if len(self.losses) > 1:
            self.losses.append(self.losses.pop() + 0.5 * self.losses.pop())

    def forget(self) -> None:
        if self.losses:
            self.losses.pop()

    def clip(self) -> None:
        self.see(nn.utils.clip_grad_norm_(self.parameters, 0.5))

    def sync(self) -> None:
        gc.sync()

    def run(self, length: int) -> None:
        common = (
            [self.iteration] * 5 + [self.watched_iteration] * 4 + [self.call, self.backward, self.step] * 3
        )
        rare = [
            *(self.call_in_two, self.zero, self.read, self.read_parameter, self.read_gradient),
            *(self.keep_gradient, self.read_statistics, self.change_parameter, self.change_gradient),
            *(self.drop_gradient, self.change_rate, self.freeze, self.mode, self.evaluate, self.combine),
            *(self.forget, self.clip, self.sync),
        ]
        for _ in range(length):
            event = self.pick.choice(common + rare)
            try:
                event()
            except RuntimeError as error:  # history over changed state, for one: in both runs
                self.seen.append((event.__name__, type(error), str(error).split("\n")[0]))
        for tensor in (*self.kept, *self.parameters, *[p.grad for p in self.parameters]):
            try:
                self.see(tensor)
            except RuntimeError as error:
                self.seen.append(str(error).split("\n")[0][:60])
        self.see(self.a[1].running_var)
        for optimizer in self.optimizers:
            for p in self.parameters:
                for item in optimizer.state.get(p, {}).values():
                    self.see(item)


def as_it_is(function: Any) -> Any:
    return function


def outcome(seed: int, length: int, wrap: Callable[[Any], Any]) -> list[Any]:
    MODE.pending.clear()
    MODE.events = None
    world = World(seed, wrap)
    world.run(length)
    return world.seen


@pytest.mark.parametrize("wrap", [gc.compile, as_it_is])
@pytest.mark.parametrize("block", range(5))
def test_random_programs(block: int, wrap: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "PATIENCE", 10**6)  # also calls that mostly have to be built
    for seed in range(4 * block, 4 * block + 4):
        found = outcome(seed, 60, wrap)
        with monkeypatch.context() as patch:
            patch.setattr(deferred, "LONGEST", 0)
            patch.setattr(known_step, "step", lambda optimizer: False)
            patch.setattr(recorded.Recording, "is_worthwhile", lambda self: False)
            expected = outcome(seed, 60, wrap)
        assert len(found) == len(expected), f"seed {seed}"
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            if isinstance(b, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=f"seed {seed}, value {i}")
            else:
                assert a == b, f"seed {seed}, value {i}"
