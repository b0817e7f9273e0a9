"""Averages of weights over a training run: AveragedModel, its rules, SWALR and update_bn.

Stochastic weight averaging: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization" (2018). Names and numbers are those of torch.optim.swa_utils.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import tensor
from graphc.frontend.functions.elementwise import where
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int64
from graphc.nn.batchnorm import _BatchNorm
from graphc.nn.module import Module
from graphc.optim.lr_scheduler.base import Lr, LRScheduler, per_group
from graphc.optim.optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

Average = Callable[[Tensor, Tensor, Any], Tensor]  # (average so far, new value, how many so far)
MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]  # changes the averages in place


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """An exponential moving average: decay * average + (1 - decay) * value."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """`get_ema_avg_fn` for lists, in place; integers lose their fraction."""
    rule = get_ema_avg_fn(decay)

    @no_grad()
    def ema_update(ema_params: Sequence[Tensor], current_params: Sequence[Tensor], num_averaged: Any) -> None:
        _each(rule, ema_params, current_params, num_averaged)

    return ema_update


def get_swa_avg_fn() -> Average:
    """The mean of all values so far."""

    @no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


def get_swa_multi_avg_fn() -> MultiAverage:
    """`get_swa_avg_fn` for lists, in place; integers lose their fraction."""
    rule = get_swa_avg_fn()

    @no_grad()
    def swa_update(
        averaged_params: Sequence[Tensor], current_params: Sequence[Tensor], num_averaged: Any
    ) -> None:
        _each(rule, averaged_params, current_params, num_averaged)

    return swa_update


def _each(rule: Average, averages: Sequence[Tensor], values: Sequence[Tensor], count: Any) -> None:
    for average, value in zip(averages, values, strict=True):
        average.copy_(rule(average, value, count))


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise fail(
            ValueError, f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
        )


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's over calls of `update_parameters`.

    avg_fn        rule for one tensor; by default the mean of all values
    multi_avg_fn  rule for lists of tensors, in place, instead of `avg_fn`
    use_buffers   average the buffers too (batch norm's statistics); without it they are copied
    n_averaged    int64 buffer: how many values have been averaged

    It may be updated inside a compiled step: the first value is told from the later ones by arithmetic.
    AssertionError if both rules are given.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise fail(AssertionError, "Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the model's parameters (and buffers) into the averages."""
        with no_grad():
            averages, values = _tensors(self.module, self.use_buffers), _tensors(model, self.use_buffers)
            first = self.n_averaged.eq(0)
            found = self._averaged(averages, values)
            for average, value, mixed in zip(averages, values, found, strict=True):
                average.copy_(where(first, value, mixed.to(value.dtype)))
            if not self.use_buffers:
                for kept, new in zip(self.module.buffers(), model.buffers(), strict=True):
                    kept.copy_(new)
            self.n_averaged += 1

    def _averaged(self, averages: list[Tensor], values: list[Tensor]) -> list[Tensor]:
        """What the rule makes of them; on the first call it is not used."""
        if self.avg_fn is not None:
            return [self.avg_fn(a, v, self.n_averaged) for a, v in zip(averages, values, strict=True)]
        mixed = [average.clone() for average in averages]
        (self.multi_avg_fn or get_swa_multi_avg_fn())(mixed, values, self.n_averaged)
        return mixed


def _tensors(model: Module, buffers: bool) -> list[Tensor]:
    found = [p.detach() for p in model.parameters()]
    return found + [b.detach() for b in model.buffers()] if buffers else found


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Give batch-norm layers the mean and variance of one pass over `loader`.

    Batches are inputs, or lists and tuples that begin with the input. The layers' `momentum` is None
    meanwhile, so that all batches count alike; the mode of the model is put back.
    """
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    if not momenta:
        return
    was_training = model.training
    model.train()
    for layer in momenta:
        layer.reset_running_stats()
        layer.momentum = None
    with no_grad():
        for batch in loader:
            inputs = batch[0] if isinstance(batch, list | tuple) else batch
            model(inputs if device is None else inputs.to(device))
    for layer, momentum in momenta.items():
        layer.momentum = momentum
    model.train(was_training)


def _linear(t: float) -> float:
    return t


def _cosine(t: float) -> float:
    return (1 - math.cos(math.pi * t)) / 2


_ANNEAL = {"linear": _linear, "cos": _cosine}


class SWALR(LRScheduler):
    """Anneals the rate of each group to `swa_lr` over `anneal_epochs` steps, then keeps it there.

    swa_lr is a number or one for each group; anneal_strategy "cos" or "linear". ValueError for another
    strategy and for a negative number of epochs.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        rates = per_group("swa_lr", optimizer, swa_lr)
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in _ANNEAL:
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Lr]:
        self._warn_unless_stepping()
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        return [self._between(group, before, now) for group in self.optimizer.param_groups]

    def _share(self, step: int) -> float:
        """How much of the way to `swa_lr` is done."""
        return _ANNEAL[self._anneal_strategy](max(0, min(1, step / max(1, self.anneal_epochs))))

    @staticmethod
    def _between(group: dict[str, Any], before: float, now: float) -> Lr:
        """The rate at `now` of the way, from the one at `before`, which the group has."""
        goal = group["swa_lr"]
        start = goal if before == 1 else (group["lr"] - before * goal) / (1 - before)
        return goal * now + start * (1 - now)
