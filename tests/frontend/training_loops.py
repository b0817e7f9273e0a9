"""Training loops in many shapes, on a model with a norm and dropout; see test_deferred."""

from __future__ import annotations

import gc as garbage
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gc
from graphc import nn

RNG = np.random.default_rng(3)
X = RNG.standard_normal((5, 12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, (5, 12))


class Net(nn.Module):
    """With a norm and dropout: calls write state and draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x: gc.Tensor) -> gc.Tensor:
        return self.body(x)


class World:
    """Models, optimizers, and the loss function that a loop calls: compiled, or as it is."""

    def __init__(self, wrap: Callable[[Any], Any], optimizer: str) -> None:
        gc.manual_seed(7)
        self.net, self.other, self.criterion = Net(), nn.Linear(6, 3), nn.CrossEntropyLoss()
        make = getattr(gc.optim, optimizer)
        self.opt = make(self.net.parameters(), lr=0.05)
        self.second = make(self.other.parameters(), lr=0.03)
        self.model = wrap(self.net)
        self.loss_of = wrap(lambda x, y: self.criterion(self.net(x), y))
        self.both = wrap(lambda x, y: self.criterion(self.net(x) + self.other(x), y))
        self.with_logits = wrap(self._with_logits)
        self.of_logits = wrap(self.criterion)
        self.seen: list[Any] = []

    def _with_logits(self, x: gc.Tensor, y: gc.Tensor) -> dict[str, Any]:
        logits = self.net(x)
        return {"loss": self.criterion(logits, y), "logits": logits, "right": (logits.argmax(1) == y).sum()}

    def see(self, *tensors: gc.Tensor | None) -> None:
        """Read values now."""
        self.seen += [None if t is None else t.detach().numpy() for t in tensors]

    def state(self) -> list[np.ndarray]:
        """Everything that training changes."""
        tensors = [*self.net.state_dict().values(), *self.other.state_dict().values()]
        for opt in (self.opt, self.second):
            for p in [p for g in opt.param_groups for p in g["params"]]:
                tensors += [t for t in opt.state.get(p, {}).values() if isinstance(t, gc.Tensor)]
        return [t.detach().numpy() for t in tensors]


LOOPS: dict[str, Callable[[World, gc.Tensor, gc.Tensor, int], None]] = {}


def loop(f: Callable[[World, gc.Tensor, gc.Tensor, int], None]) -> Callable:
    """Enter one iteration of a training loop in the table."""
    LOOPS[f.__name__] = f
    return f


@loop
def plain(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def zero_after_forward(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    loss = w.loss_of(x, y)
    w.opt.zero_grad()
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def zeros_for_gradients(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    loss = w.loss_of(x, y)
    w.opt.zero_grad(set_to_none=i % 2 == 0)
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def gradients_read_after_the_step(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    plain(w, x, y, i)
    kept = [p.grad for p in w.net.parameters()]
    plain(w, x, y, i)
    w.see(*kept, *[p.grad for p in w.net.parameters()])


@loop
def gradients_read_before_the_step(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    w.see(next(w.net.parameters()).grad)
    w.opt.step()
    w.see(loss)


@loop
def loss_read_before_the_backward_pass(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    w.see(loss)
    loss.backward()
    w.opt.step()


@loop
def loss_read_before_gradients_are_dropped(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    loss = w.loss_of(x, y)
    w.see(loss)
    w.opt.zero_grad(set_to_none=i != 3)
    loss.backward()
    w.opt.step()


@loop
def loss_read_after_the_backward_pass(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    w.see(loss)
    w.opt.step()


@loop
def accuracy_read_before_the_backward_pass(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    scores = w.model(x)
    loss = w.of_logits(scores, y)
    w.see((scores.argmax(1) == y).sum())
    loss.backward()
    w.see(loss)
    w.opt.step()


@loop
def loss_read_and_left(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    """Every other pass is for its value only, and one loss is differentiated through a function of it."""
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    w.see(loss)
    if i == 3:
        loss = loss**2
    if i % 2 or i == 0:
        loss.backward()
        w.opt.step()


@loop
def losses_read_and_accumulated(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    for part in (x, x * 2):
        loss = w.loss_of(part, y) / 2
        w.see(loss)
        loss.backward()
    w.opt.step()


@loop
def parameter_changed_after_the_loss_was_read(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    w.see(loss)
    loss.backward()
    w.opt.step()
    with gc.no_grad():
        w.net.body[4].bias.mul_(0.5)
    w.see(w.loss_of(x, y))


@loop
def hook_after_the_loss_was_read(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    w.see(loss)
    handle = w.net.body[4].bias.register_hook(lambda g: g * 2) if i == 2 else None
    loss.backward()
    w.opt.step()
    if handle is not None:
        handle.remove()


@loop
def norms_of_gradients_read(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    w.loss_of(x, y).backward()
    w.see(*[p.grad.norm() for p in w.net.parameters()])
    w.opt.step()


@loop
def clipping(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    w.see(nn.utils.clip_grad_norm_(w.net.parameters(), 0.1))
    w.opt.step()


@loop
def accumulation(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    for part in (x, x * 2, x + 1):
        w.loss_of(part, y).backward()
    w.opt.step()
    w.opt.zero_grad()


@loop
def accumulation_over_steps(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    loss = w.loss_of(x, y)
    loss.backward()
    w.opt.step()
    if i % 3 == 2:
        w.opt.zero_grad()
    w.see(loss)


@loop
def rates_that_change(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    for group in w.opt.param_groups:
        group["lr"] = 0.1 / (i + 1) if i != 3 else 0.0
        group["weight_decay"] = 0.1 if i > 2 else 0.0
    plain(w, x, y, i)


@loop
def two_optimizers(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    w.second.zero_grad()
    loss = w.both(x, y)
    loss.backward()
    w.opt.step()
    w.second.step()
    w.see(loss)


@loop
def two_losses(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    """As adversaries do: gradients of the first loss are left where the second one's go."""
    w.second.zero_grad()
    first = w.both(x, y)
    first.backward()
    w.second.step()
    w.opt.zero_grad()
    second = w.both(x, y)
    second.backward()
    w.opt.step()
    w.see(first, second, *[p.grad for p in w.other.parameters()])


@loop
def sum_of_losses(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y) + 0.5 * w.loss_of(x * 2, y)
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def model_then_loss(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.of_logits(w.model(x), y)
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def compiled_model_lazy_loss(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.criterion(w.model(x), y)
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def several_results(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    found = w.with_logits(x, y)
    found["loss"].backward()
    if i == 1:
        w.see(found["logits"])
    w.opt.step()
    w.see(found["loss"], found["logits"], found["right"])


@loop
def evaluation_between(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    plain(w, x, y, i)
    w.net.eval()
    with gc.no_grad():
        w.see(w.model(x).argmax(1), w.loss_of(x, y))
    w.net.train()
    w.see(w.loss_of(x, y))  # with gradients, which nobody takes


@loop
def evaluation_inside(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    with gc.no_grad():
        w.see(w.model(x))
    loss.backward()
    w.opt.step()


@loop
def running_statistics_read_inside(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    view = w.net.body[1].running_mean[:3]
    loss = w.loss_of(x, y)
    if i % 2:
        w.see(w.net.body[1].running_var)
    w.see(view)
    loss.backward()
    w.opt.step()


@loop
def changing_batches(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    n = (12, 5, 12, 7, 5)[i]
    plain(w, x[:n], y[:n], i)


@loop
def batch_changed_in_place(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    buffer, half = x.clone(), None
    if i % 2:
        half = buffer[:6]
    loss = w.loss_of(buffer, y)
    if half is None:
        buffer.zero_()
    else:
        half.add_(1)
    loss.backward()
    w.opt.step()
    w.see(loss, buffer)


@loop
def parameters_changed_inside(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    with gc.no_grad():
        for p in w.net.parameters():
            p.mul_(0.9)
    w.opt.step()
    w.see(loss)


@loop
def data_replaced_inside(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    p = w.net.body[4].bias
    p.data = p.data * 0.5
    w.opt.step()
    w.see(loss)


@loop
def frozen_now_and_then(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.net.body[0].requires_grad_(i % 3 != 1)
    plain(w, x, y, i)


@loop
def frozen_inside(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    w.net.body[4].bias.requires_grad_(False)
    loss.backward()
    w.net.body[4].bias.requires_grad_(True)
    w.opt.step()
    w.see(loss, w.net.body[4].bias.grad)


@loop
def a_gradient_dropped(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    w.net.body[4].bias.grad = None
    w.opt.step()
    w.see(loss, w.net.body[4].bias.grad, w.net.body[4].weight.grad)


@loop
def a_gradient_replaced(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    w.loss_of(x, y).backward()
    w.net.body[4].bias.grad = gc.ones(3)
    w.opt.step()


@loop
def zeroed_after_backward(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    loss = w.loss_of(x, y)
    loss.backward()
    w.opt.zero_grad()
    w.opt.step()
    w.see(loss, w.net.body[4].bias.grad)


@loop
def hooks_on_leaves(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    handle = w.net.body[4].bias.register_hook(lambda g: g * 2)
    loss.backward()
    handle.remove()
    w.net.body[4].weight.register_hook(lambda g: g * 3).remove()
    w.opt.step()
    w.see(w.net.body[4].bias.grad)


@loop
def a_hook_after_backward(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    w.loss_of(x, y).backward()
    handle = w.net.body[4].bias.register_hook(lambda g: g * 2)
    w.opt.step()
    handle.remove()
    w.see(w.net.body[4].bias.grad)


@loop
def hooks_on_the_loss(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.register_hook(lambda g: g * 2)
    loss.retain_grad()
    loss.backward()
    w.opt.step()
    w.see(loss.grad)


@loop
def hooks_on_the_optimizer(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    before = w.opt.register_step_pre_hook(lambda *_: w.see(w.net.body[4].bias.grad))
    after = w.opt.register_step_post_hook(lambda *_: w.see(w.net.body[4].bias))
    plain(w, x, y, i)
    before.remove()
    after.remove()


@loop
def graph_retained(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward(retain_graph=True)
    loss.backward()
    w.opt.step()
    w.see(loss)


@loop
def gradients_of_gradients(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    p = w.net.body[4].weight
    loss = w.loss_of(x, y)
    (g,) = gc.autograd.grad(loss, p, create_graph=True)
    (loss + (g * g).sum()).backward()
    w.opt.step()


@loop
def given_gradient(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    out = w.model(x)
    out.backward(gc.ones_like(out))
    w.opt.step()
    w.see(out)


@loop
def detached_and_copied(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    total = loss.detach() * 2 if i % 2 else gc.zeros(())
    loss.backward()
    w.opt.step()
    w.see(total, loss.detach() + 1)
    w.seen.append((loss.requires_grad, loss.is_leaf, loss.shape, loss.dtype.name))


@loop
def old_history(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    """Something computed from parameters is still pending, or kept, when they change."""
    norm = w.net.body[4].weight.square().sum()
    kept = w.net.body[4].bias * 2
    kept_value = kept.detach().numpy() if i % 2 else None
    plain(w, x, y, i)
    w.see(norm, None if kept_value is not None else kept)


@loop
def lazy_total(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    total = getattr(w, "total", gc.zeros(()))
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    w.opt.step()
    w.total = total + loss.detach()  # type: ignore[attr-defined]
    if i == 4:
        w.see(w.total)  # type: ignore[attr-defined]


@loop
def deleted_before_the_step(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    loss.backward()
    del loss
    garbage.collect()
    w.opt.step()


@loop
def never_taken(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    kept = w.loss_of(x, y)
    w.loss_of(x + 1, y)
    plain(w, x, y, i)
    w.see(kept)


@loop
def many_calls(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    for _ in range(40):
        w.loss_of(x, y)
    plain(w, x, y, i)


@loop
def synced(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.loss_of(x, y)
    gc.sync()
    loss.backward()
    gc.sync()
    w.opt.step()
    w.see(loss)


@loop
def state_loaded(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    plain(w, x, y, i)
    if i == 1:
        w.saved = ({k: v.clone() for k, v in w.net.state_dict().items()}, w.opt.state_dict())  # type: ignore
    if i == 3:
        w.net.load_state_dict(w.saved[0])  # type: ignore[attr-defined]
        w.opt.load_state_dict(w.saved[1])  # type: ignore[attr-defined]


@loop
def group_added(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    w.opt.zero_grad()
    loss = w.both(x, y)
    loss.backward()
    if i == 2:
        w.opt.add_param_group({"params": list(w.other.parameters()), "lr": 0.2})
    w.opt.step()
    w.see(loss)


@loop
def closure_step(w: World, x: gc.Tensor, y: gc.Tensor, i: int) -> None:
    def closure() -> gc.Tensor:
        w.opt.zero_grad()
        loss = w.loss_of(x, y)
        loss.backward()
        return loss

    w.see(w.opt.step(closure))
