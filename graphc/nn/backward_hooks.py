"""Hooks on the gradients of a module: of its inputs, and of its outputs.

A module with such hooks passes its tensors through two gates, which change no value and have a backward of
their own. The gate behind the module sees the gradients of its outputs first, the one before it those of
its inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from graphc.autograd import Function
from graphc.frontend.errors import fail
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor
from graphc.nn import hooks
from graphc.nn.hooks import HookTable, RemovableHandle

Gradients = tuple[Tensor | None, ...]


class BackwardHookFunction(Function):
    """The tensors as they are; their gradients pass through `see`."""

    @staticmethod
    def forward(ctx: Any, see: Callable[[Gradients], Gradients], *tensors: Tensor) -> Gradients:
        ctx.see = see
        ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        return (None, *ctx.see(gradients))


class Gates:
    """One call of a module that has backward hooks."""

    def __init__(self, module: Hooked) -> None:
        self.module = module
        self.after = list(module._backward_hooks.values())
        self.before = list(module._backward_pre_hooks.values())
        self.outputs: Gradients | None = None  # the gradients, between the two gates
        self.inputs: list[int] | None = None  # which arguments pass the gate; None if no gradient does
        self.count = 0
        self.places: list[int] = []  # of tensors among the outputs
        self.length = 0

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The positional arguments, gradients of which the hooks will see."""
        self.count = len(args)
        if not self.after:
            self.inputs = []
            return args
        self.inputs, args = _through(self._see_inputs, args)
        return args

    def leave(self, result: Any) -> Any:
        """The module's result, gradients of which the hooks will see."""
        single = not isinstance(result, tuple)
        outputs = (result,) if single else result
        places, outputs = _through(self._see_outputs, outputs)
        self.places = places or []
        self.length = len(outputs)
        return outputs[0] if single else outputs

    def _see_outputs(self, gradients: Gradients) -> Gradients:
        seen = _spread(gradients, self.places, self.length)
        for hook in self.before:
            changed = hook(self.module, seen)
            if changed is not None:
                changed = changed if isinstance(changed, tuple) else (changed,)
                _check_count("Backward pre hook", "grad_output", changed, seen)
                seen = changed
        self.outputs = seen
        if self.inputs is None:
            self._without_inputs(seen)
        return tuple(seen[i] for i in self.places)

    def _without_inputs(self, outputs: Gradients) -> None:
        """No argument has a gradient: the hooks run now, and cannot change anything."""
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module outputs since "
            "no inputs require gradients.",
            stacklevel=2,
        )
        for hook in self.after:
            changed = hook(self.module, (None,) * self.count, outputs)
            if changed is not None and not (isinstance(changed, tuple) and all(c is None for c in changed)):
                raise fail(
                    RuntimeError,
                    "Backward hook for Modules where no input requires gradient should always return None or "
                    "None for all gradients.",
                )
        self.outputs = None

    def _see_inputs(self, gradients: Gradients) -> Gradients:
        assert self.inputs is not None
        if self.outputs is None:  # the result took part in no gradient
            return gradients
        seen = _spread(gradients, self.inputs, self.count)
        for hook in self.after:
            changed = hook(self.module, seen, self.outputs)
            if changed is not None:
                changed = changed if isinstance(changed, tuple) else (changed,)
                _check_count("Backward hook", "grad_input", changed, seen)
                seen = changed
        self.outputs = None
        return tuple(seen[i] for i in self.inputs)


def _through(
    see: Callable[[Gradients], Gradients], values: tuple[Any, ...]
) -> tuple[list[int] | None, tuple[Any, ...]]:
    """The values, tensors among them through a gate, and where these are; None if no gradient will come."""
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
    if not MODE.grad or not any(values[i].requires_grad for i in places):
        return None, values
    passed = dict(zip(places, BackwardHookFunction.apply(see, *[values[i] for i in places]), strict=True))
    return places, tuple(passed.get(i, v) for i, v in enumerate(values))


def _spread(gradients: Gradients, places: Sequence[int], count: int) -> Gradients:
    """The gradients at their places among `count`, None elsewhere."""
    known = dict(zip(places, gradients, strict=True))
    return tuple(known.get(i) for i in range(count))


def _check_count(who: str, what: str, given: Sequence[Any], wanted: Sequence[Any]) -> None:
    if len(given) != len(wanted):
        raise fail(
            RuntimeError,
            f"{who} returned an invalid number of {what}, got {len(given)}, but expected {len(wanted)}",
        )


class Hooked:
    """The methods of `Module` that register hooks on gradients."""

    _backward_hooks: HookTable
    _backward_pre_hooks: HookTable

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` runs when the gradients of the inputs are known.

        Both are tuples, None for what is not a tensor or has no gradient; keyword arguments are not seen.
        A result that is not None replaces grad_input.
        """
        return hooks.add(self._backward_hooks, hook, prepend)

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_output)` runs when the gradients of the outputs are known.

        A result that is not None replaces grad_output.
        """
        return hooks.add(self._backward_pre_hooks, hook, prepend)

    def register_backward_hook(self, hook: Callable) -> RemovableHandle:
        """The older name: here a full backward hook (PyTorch's saw its module's last operation only)."""
        return self.register_full_backward_hook(hook)
