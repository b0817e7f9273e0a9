"""Derivatives of functions of tensors, under the names of `torch.autograd.functional`.

`func` takes one tensor or several and gives one or several (`hessian`, `hvp` and `vhp`: one scalar). Results
have no history unless `create_graph`. Mistakes are told by the transforms that these are made of
(`graphc.jacobians`, `graphc.functional`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import functional, jacobians
from graphc.frontend import tree
from graphc.frontend.errors import fail
from graphc.frontend.tensor import Tensor

Inputs = Tensor | tuple[Tensor, ...]


def jacobian(
    func: Callable[..., Any],
    inputs: Inputs,
    create_graph: bool = False,
    *,
    vectorize: bool = True,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func`: [*out, *in] for a tensor, a tuple for a tuple of inputs, and one for outputs.

    `strategy` is "reverse-mode" or "forward-mode"; all rows or columns are found at once, as `vectorize`
    demands in PyTorch.
    """
    transforms = {"reverse-mode": jacobians.jacrev, "forward-mode": jacobians.jacfwd}
    if strategy not in transforms:
        raise fail(ValueError, f"jacobian: strategy must be one of {sorted(transforms)}, got {strategy!r}")
    given, argnums = _arguments(inputs)
    return _finished(transforms[strategy](func, argnums)(*given), create_graph)


def hessian(
    func: Callable[..., Any],
    inputs: Inputs,
    create_graph: bool = False,
    *,
    vectorize: bool = True,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a scalar function: [*in, *in]; for a tuple of inputs a tuple of tuples."""
    _, argnums = _arguments(inputs)

    def first(*values: Any) -> Any:
        return functional.grad(_scalar(func, "hessian"), argnums)(*values)

    return jacobian(first, inputs, create_graph, vectorize=vectorize, strategy=outer_jacobian_strategy)


def vjp(
    func: Callable[..., Any], inputs: Inputs, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """(outputs, the product of `v`, shaped like them, with the Jacobian); a scalar one needs no `v`."""
    given, argnums = _arguments(inputs)
    value, pull = functional.vjp(func, *given)
    found = pull(_ones_if_scalar(value, "vjp") if v is None else v)
    return _finished((value, found[0] if argnums == 0 else found), create_graph)


def jvp(
    func: Callable[..., Any], inputs: Inputs, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """(outputs, the product of the Jacobian with `v`, shaped like the inputs); a scalar one needs no `v`."""
    given, _ = _arguments(inputs)
    directions = _ones_if_scalar(inputs, "jvp") if v is None else v
    return _finished(functional.jvp(func, given, _arguments(directions)[0]), create_graph)


def hvp(
    func: Callable[..., Any], inputs: Inputs, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """(the value of a scalar function, the product of its Hessian with `v`), by forward over reverse mode."""
    given, argnums = _arguments(inputs)
    both = functional.value_and_grad(_scalar(func, "hvp"), argnums)
    directions = _ones_if_scalar(inputs, "hvp") if v is None else v
    (value, _), (_, found) = functional.jvp(both, given, _arguments(directions)[0])
    return _finished((value, found), create_graph)


def vhp(
    func: Callable[..., Any], inputs: Inputs, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """(the value of a scalar function, the product of `v` with its Hessian), by reverse over reverse mode."""
    given, argnums = _arguments(inputs)
    _, found = vjp(functional.grad(_scalar(func, "vhp"), argnums), inputs, v, create_graph)
    return _finished((func(*given), found), create_graph)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], Any]:
    """The arguments of a call, and which of them: 0 for a single tensor, else all."""
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), tuple(range(len(inputs)))
    return (inputs,), 0


def _ones_if_scalar(like: Any, name: str) -> Tensor:
    if not isinstance(like, Tensor) or like.numel() != 1:
        raise fail(
            RuntimeError, f"{name}: the vector v can only be None if what it is shaped like is one number"
        )
    return like.new_ones(like.shape)


def _scalar(func: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`func`, held to one number; its value is made 0-d, as transforms want it."""

    def checked(*args: Any) -> Tensor:
        value = func(*args)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise fail(RuntimeError, f"{name}: the function must give a single number")
        return value.reshape(())

    return checked


def _finished(found: Any, create_graph: bool) -> Any:
    return found if create_graph else tree.rebuild(found, lambda t: t.detach())
