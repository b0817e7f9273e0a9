"""User-defined operations: `Function`, with a forward and a backward of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.cell import Cell, fresh_input, share
from graphc.frontend.errors import fail
from graphc.frontend.history import CutGrad
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import (
    Tensor,
    from_node,
    gradient_fn,
    needs_grad,
    operand,
    register,
    wrap_cell,
)
from graphc.ir.node import Node


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors and any attributes."""

    def __init__(self) -> None:
        self._saved: tuple[Tensor | None, ...] = ()
        self._not_differentiable: tuple[Tensor, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()
        self.materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`."""
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that these outputs have no gradient."""
        self._not_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Accepted; in-place changes are seen without it."""

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (the default) or None for outputs without gradient."""
        self.materialize = value


class Function:
    """Subclass with static `forward(ctx, *args)` and `backward(ctx, *grad_outputs)`, call `apply`.

    As in PyTorch, `forward(*args)` with a separate `setup_context(ctx, inputs, output)` works too.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The values, from `(ctx, *args)`, or from `args` alone with a separate `setup_context`."""
        raise fail(
            NotImplementedError, "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """A gradient (or None) for each argument of `forward`, from one for each of its results."""
        raise fail(
            NotImplementedError, "You must implement the backward function for custom autograd.Function."
        )

    setup_context: Any = None

    def __call__(self, *args: Any) -> Any:
        name = type(self).__name__
        raise fail(RuntimeError, f"call {name}.apply(...): objects of an autograd.Function have no use")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` without recording, and record that the gradient is `backward`'s."""
        ctx = FunctionCtx()
        tensors = [a for a in args if isinstance(a, Tensor)]
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        tracked = needs_grad(*tensors)
        with no_grad():
            if cls.setup_context is None:
                outputs = cls.forward(ctx, *args)
            else:
                outputs = cls.forward(*args)
                cls.setup_context(ctx, args, outputs)
        if not tracked:
            return outputs
        return _record(cls, ctx, args, outputs)


def _fitting(cls: type[Function], number: int, gradient: Tensor | None, arg: Tensor) -> Tensor | None:
    """What `backward` has given for an argument, summed over the dims that broadcasting had repeated."""
    if gradient is None or gradient.shape == arg.shape:
        return gradient
    try:
        return gradient.sum_to_size(*arg.shape)
    except RuntimeError:
        raise fail(
            RuntimeError,
            f"Function {cls.__name__}Backward returned an invalid gradient at index {number} - got "
            f"{list(gradient.shape)} but expected shape compatible with {list(arg.shape)}",
        ) from None


def _record(cls: type[Function], ctx: FunctionCtx, args: Sequence[Any], outputs: Any) -> Any:
    """Give the outputs of a Function history that leads to its `backward`."""
    single = not isinstance(outputs, tuple)
    outs = [outputs] if single else list(outputs)
    inputs = [
        (operand(a, True), gradient_fn(a) if a.requires_grad else None) for a in args if isinstance(a, Tensor)
    ]
    kinds = [o._cell.node.type for o in outs if isinstance(o, Tensor)]

    def run(cts: list[Tensor | None]) -> list[Tensor | None]:
        if ctx.materialize:
            cts = [from_node(ops.zeros(k)) if ct is None else ct for ct, k in zip(cts, kinds, strict=True)]
        found = cls.backward(ctx, *cts)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) < len(args) or any(f is not None for f in found[len(args) :]):
            raise fail(
                RuntimeError,
                f"function {cls.__name__}Backward returned an incorrect number of gradients (expected "
                f"{len(args)}, got {len(found)})",
            )
        pairs = enumerate(zip(found, args, strict=False))
        return [_fitting(cls, i, f, a) for i, (f, a) in pairs if isinstance(a, Tensor)]

    fn = CutGrad(f"{cls.__name__}Backward", inputs, run)
    results: list[Any] = []
    points: list[Node] = []
    blocked = {id(t) for t in ctx._not_differentiable}
    for o in outs:
        if not isinstance(o, Tensor):
            results.append(o)
            continue
        node = operand(o, False)
        stand_in = fresh_input(node.type, share(node.bound) if type(node.bound) is np.ndarray else node)
        points.append(stand_in)
        differentiable = node.type.dtype.is_float and id(o) not in blocked
        new = wrap_cell(Cell(stand_in, fn if differentiable else None, not differentiable))
        register(new)
        results.append(new)
    fn.outputs = tuple(points)
    return results[0] if single else tuple(results)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of a Function's `backward`: what it computes has no history of its own."""

    @wraps(backward)
    def wrapped(ctx: FunctionCtx, *grad_outputs: Tensor | None) -> Any:
        with no_grad():
            return backward(ctx, *grad_outputs)

    return wrapped
