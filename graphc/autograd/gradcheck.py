"""Checking gradients against central differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from graphc.autograd.engine import grad
from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import from_numpy
from graphc.frontend.modes import enable_grad
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float64

Inputs = Tensor | Sequence[Any]


class GradcheckError(RuntimeError):
    """Analytical and numerical derivatives differ."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Inputs,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of `func` at `inputs` agree with central differences of width 2 `eps`.

    Every input that requires grad is checked against every floating-point output, element by element, to
    |a - n| <= atol + rtol |n|. The defaults suit float64; other inputs are warned about. GradcheckError for a
    difference (False without `raise_exception`), ValueError if no input requires grad.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t.requires_grad]
    if not checked:
        raise fail(
            ValueError, "gradcheck expects at least one input tensor to require gradient, but none of them do"
        )
    if any(given[i].dtype is not float64 for i in checked):
        warnings.warn("gradcheck: inputs that are not float64 will likely fail the check", stacklevel=2)
    for i in checked:
        analytical, numerical = _analytical(func, given, i), _numerical(func, given, i, eps)
        for out, (a, n) in enumerate(zip(analytical, numerical, strict=True)):
            if not np.allclose(a, n, rtol, atol):
                message = f"Jacobian mismatch for output {out} with respect to input {i},\n"
                message += f"numerical:{n}\nanalytical:{a}\n"
                if raise_exception:
                    raise fail(GradcheckError, message)
                return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Inputs,
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """`gradcheck` of the gradients: of vector-Jacobian products, as functions of the inputs and the vectors.

    grad_outputs  the vectors, shaped like the outputs; normally distributed ones of a fixed seed if left out
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    outputs = _outputs(func, given)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        drawn = [from_numpy(rng.standard_normal(tuple(o.shape))).to(o.dtype) for o in outputs]
    else:
        drawn = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    vectors = [v.detach().requires_grad_() for v in drawn]

    def first(*args: Any) -> tuple[Tensor, ...]:
        values, cts = list(args[: len(given)]), args[len(given) :]
        wanted = [t for t in values if isinstance(t, Tensor) and t.requires_grad]
        found = grad(_outputs(func, values), wanted, cts, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    both = [*given, *vectors]
    return gradcheck(first, both, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)


def _outputs(func: Callable[..., Any], given: Sequence[Any]) -> list[Tensor]:
    """The floating-point results."""
    with enable_grad():
        value = func(*given)
    found = value if isinstance(value, (tuple, list)) else [value]
    return [o for o in found if isinstance(o, Tensor) and o.dtype.is_float]


def _analytical(func: Callable[..., Any], given: Sequence[Any], i: int) -> list[np.ndarray]:
    """Of each output, its Jacobian with respect to input i by reverse mode: [elements in, elements out]."""
    found = []
    for out in _outputs(func, given):
        columns = np.zeros((given[i].numel(), out.numel()))
        for j, element in zip(count(), out.reshape(-1), strict=False):
            if element.requires_grad:
                (g,) = grad(element, given[i], retain_graph=True, allow_unused=True)
                columns[:, j] = 0 if g is None else g.detach().numpy().reshape(-1)
        found.append(columns)
    return found


def _numerical(func: Callable[..., Any], given: Sequence[Any], i: int, eps: float) -> list[np.ndarray]:
    """The same by central differences."""
    base = given[i].detach().numpy()
    rows: list[list[np.ndarray]] = []
    for k in range(base.size):
        sides = []
        for sign in (1, -1):
            moved = base.copy()
            moved.reshape(-1)[k] += sign * eps
            changed = [*given[:i], from_numpy(moved).requires_grad_(), *given[i + 1 :]]
            sides.append([o.detach().numpy().reshape(-1).astype(np.float64) for o in _outputs(func, changed)])
        rows.append([(up - down) / (2 * eps) for up, down in zip(*sides, strict=True)])
    return [np.stack(per_output) for per_output in zip(*rows, strict=True)]
