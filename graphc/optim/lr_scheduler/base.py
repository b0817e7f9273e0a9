"""LRScheduler: the base class of learning-rate schedules."""

from __future__ import annotations

import functools
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from graphc.frontend.tensor import Tensor
from graphc.optim.optimizer import Optimizer

Lr = Any  # a number or a tensor with one element


def lrs_of(optimizer: Optimizer, key: str = "lr") -> list[Lr]:
    """`group[key]` of every group; tensors are copied."""
    values = [group[key] for group in optimizer.param_groups]
    return [v.clone() if isinstance(v, Tensor) else v for v in values]


def set_option(group: dict[str, Any], key: str, value: Lr) -> None:
    """Change an option of a group; one that is a tensor keeps being that tensor."""
    old = group[key]
    if isinstance(old, Tensor):
        old.fill_(float(value))
    else:
        group[key] = value


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One number for each group: `value` repeated, or the list it is."""
    count = len(optimizer.param_groups)
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise ValueError(f"{name} must have the same length as optimizer.param_groups. "
                             f"{name} has {len(value)} values, param_groups has {count}.")  # fmt: skip
        return list(value)
    return [value] * count


class LRScheduler:
    """Changes the learning rates of an optimizer's groups once per `step()`.

    Subclasses define `get_lr`, which gives the new rates from `last_epoch` and, for recursive forms, from
    the rates now. Call `step()` after the optimizer's.
    """

    _get_lr_called_within_step = False
    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                lr = group["lr"]
                group.setdefault("initial_lr", lr.clone() if isinstance(lr, Tensor) else lr)
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with "
                    "last_epoch >= 0: load the optimizer's state first, or leave last_epoch at -1 "
                    "for a new run"
                )
        self.base_lrs = lrs_of(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        _watch_steps(optimizer)
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Lr]:
        """The rates set by the last step, one per group."""
        return self._last_lr

    def get_lr(self) -> list[Lr]:
        """The rates to set now, one per group; called by `step`."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def step(self, epoch: int | None = None) -> None:
        """Set the next learning rates. (`epoch`, which jumps to an epoch, is deprecated.)"""
        if self._step_count == 1:
            self._warn_about_order()
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _warn_about_order(self) -> None:
        if not hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
            warnings.warn(
                "Seems like `optimizer.step()` has been overridden after learning rate scheduler "
                "initialization. Please, make sure to call `optimizer.step()` before `lr_scheduler.step()`.",
                UserWarning,
                stacklevel=3,
            )
        elif not getattr(self.optimizer, "_opt_called", False):
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. You should call "
                "them in the "
                "opposite order: `optimizer.step()` before `lr_scheduler.step()`. Failure to do this will "
                "result in skipping the first value of the learning rate schedule.",
                UserWarning,
                stacklevel=3,
            )

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            closed = None if epoch is None else getattr(self, "_get_closed_form_lr", None)
            values = self.get_lr() if closed is None else closed()
        finally:
            self._get_lr_called_within_step = False
        self._set_lrs(values)

    def _set_lrs(self, values: list[Lr]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_option(group, "lr", lr)
        self._last_lr = lrs_of(self.optimizer)

    def _warn_unless_stepping(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
                UserWarning,
                stacklevel=3,
            )

    def _scaled(self, factor: float) -> list[Lr]:
        """The rates now, times `factor`."""
        return [group["lr"] * factor for group in self.optimizer.param_groups]


class _LRScheduler(LRScheduler):
    """The old name of the base class."""


EPOCH_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where "
    "possible. Please "
    "use `scheduler.step()` to step the scheduler. During the deprecation, if epoch is different "
    "from None, the "
    "closed form is used instead of the new chainable form, where available."
)


def _watch_steps(optimizer: Optimizer) -> None:
    """Note on the optimizer that its `step` was called, to warn about a wrong order."""
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        return
    function: Callable = optimizer.step.__func__  # type: ignore[attr-defined]
    owner = weakref.ref(optimizer)

    @functools.wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        alive = owner()
        assert alive is not None
        alive._opt_called = True  # type: ignore[attr-defined]
        return function(alive, *args, **kwargs)

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = step  # type: ignore[method-assign]


def pack_function(function: Callable | None) -> dict[str, Any] | None:
    """What a state dict keeps of a callable: nothing of a plain function, the attributes of an object."""
    if function is None or isinstance(function, types.FunctionType | types.BuiltinFunctionType):
        return None
    return dict(function.__dict__)
