"""Jacobians and Hessians of functions: `vjp` or `jvp` of all unit vectors at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.frontend import tree
from graphc.frontend.functions.creation import eye, zeros
from graphc.frontend.functions.joining import cat
from graphc.frontend.tensor import Tensor
from graphc.functional import Argnums, argument_numbers, jvp, vjp
from graphc.vectorized import vmap


def jacrev(
    function: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function giving the Jacobian of `function` by reverse mode, which is best when it has few results.

    For a result of shape [*out] and an argument of shape [*in] the Jacobian is [*out, *in]. It is nested like
    the results, and inside them like argument `argnums` (a tuple of arguments: a tuple). With `has_aux` the
    function returns (results, extra) and the new one (Jacobian, extra). TypeError for arguments that are no
    floating-point tensors, IndexError for an `argnums` that the call does not have.
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        partial, primals = _of_arguments(function, argnums, args, kwargs)
        value, pull, *extra = vjp(partial, *primals, has_aux=has_aux)
        outputs = tree.leaves(value)
        rows = vmap(lambda *cts: pull(_nested(value, cts)))(*_unit_vectors(outputs))
        rows = rows if isinstance(argnums, tuple) else rows[0]
        blocks = iter(_blocks(outputs))
        found = tree.rebuild(value, lambda out: _rows_of(rows, next(blocks), out))
        return (found, *extra) if has_aux else found

    return transformed


def jacfwd(
    function: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function giving the Jacobian of `function` by forward mode, which is best when it has many results.

    Results, `argnums`, `has_aux` and errors are those of `jacrev`.
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        partial, primals = _of_arguments(function, argnums, args, kwargs)
        inputs = tree.leaves(list(primals))
        extra: list[Any] = []

        def plain(*given: Any) -> Any:
            value = partial(*given)
            extra[:] = [value[1]] if has_aux else []
            return value[0] if has_aux else value

        def column(*tangents: Tensor) -> Any:
            return jvp(plain, primals, _nested(list(primals), tangents))[1]

        columns = vmap(column)(*_unit_vectors(inputs))
        blocks = _blocks(inputs)

        def of(stack: Tensor) -> Any:
            rest = iter(blocks)
            made = [tree.rebuild(p, lambda t: _columns_of(stack, next(rest), t)) for p in primals]
            return tuple(made) if isinstance(argnums, tuple) else made[0]

        found = tree.rebuild(columns, of)
        return (found, *extra) if has_aux else found

    return transformed


def hessian(function: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function giving the second derivatives of `function`: the forward-mode Jacobian of its `jacrev`.

    For a scalar function of an argument of shape [*in] they are [*in, *in].
    """
    return jacfwd(jacrev(function, argnums), argnums)


def _of_arguments(
    function: Callable[..., Any], argnums: Argnums, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """`function` of the arguments `argnums` alone, and their values."""
    numbers = argument_numbers(argnums, len(args))

    def partial(*given: Any) -> Any:
        new = list(args)
        for i, value in zip(numbers, given, strict=True):
            new[i] = value
        return function(*new, **kwargs)

    return partial, tuple(args[i] for i in numbers)


def _nested(like: Any, tensors: Sequence[Tensor]) -> Any:
    rest = iter(tensors)
    return tree.rebuild(like, lambda _: next(rest))


def _blocks(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Where each tensor's elements stand among those of all: (first, number)."""
    found, at = [], 0
    for t in tensors:
        found.append((at, t.numel()))
        at += t.numel()
    return found


def _unit_vectors(tensors: Sequence[Tensor]) -> list[Tensor]:
    """For each tensor [n, *shape]: entry i is 1 at element i of all n, wherever that stands, and else 0."""
    blocks = _blocks(tensors)
    total = sum(count for _, count in blocks)
    found = []
    for t, (first, count) in zip(tensors, blocks, strict=True):
        above, below = zeros(first, count, dtype=t.dtype), zeros(total - first - count, count, dtype=t.dtype)
        found.append(cat([above, eye(count, dtype=t.dtype), below]).reshape(total, *t.shape))
    return found


def _rows_of(rows: Any, block: tuple[int, int], out: Tensor) -> Any:
    first, count = block
    return tree.rebuild(rows, lambda t: t.narrow(0, first, count).reshape(*out.shape, *t.shape[1:]))


def _columns_of(stack: Tensor, block: tuple[int, int], argument: Tensor) -> Tensor:
    return stack.narrow(0, *block).movedim(0, -1).reshape(*stack.shape[1:], *argument.shape)
