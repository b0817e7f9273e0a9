"""Functions of functions, as in `torch.func`: derivatives, `vmap`, modules as functions of their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.functional import Argnums, grad, jvp, value_and_grad, vjp
from graphc.jacobians import hessian, jacfwd, jacrev
from graphc.nn.utils.stateless import functional_call, stack_module_state
from graphc.vectorized import vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]


def grad_and_value(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function giving (gradient, value) of a scalar-valued `func`, as `graphc.value_and_grad` reversed.

    With `has_aux` the function returns (value, extra), and so does the second result.
    """
    both = value_and_grad(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    transformed.__name__ = both.__name__
    return transformed
