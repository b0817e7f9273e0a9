"""`vmap`: a function of one example, applied to every entry of a dimension at once.

The function becomes the body of a loop that carries nothing (`graphc.scan`). The compiler moves out of such a
loop what it can do for all steps together, contractions first, and fuses what stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from graphc.frontend import tree
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.scan import scan
from graphc.frontend.nodes import normal_axis
from graphc.frontend.tensor import Tensor

Dims = Any  # an int, None, or the same nested in tuples, lists and dicts


def vmap(
    func: Callable[..., Any], in_dims: Dims = 0, out_dims: Dims = 0, randomness: str = "error"
) -> Callable[..., Any]:
    """`func` over a dimension of its arguments: entry i of the results is what it gives for entry i of them.

    in_dims     which dimension of each argument is mapped over; None: the argument is the same for every
                entry. One for all arguments, or a tuple of one for each, nested like the argument or one for
                all tensors in it. Keyword arguments are the same for every entry
    out_dims    where the results get the new dimension: one for all, or one for each of a tuple of results
    randomness  only "error": random numbers are drawn before, and given as an argument

    ValueError when in_dims does not fit the arguments, names no tensor, or sizes differ; TypeError when the
    function returns something other than tensors; what else a loop's body must not do is told by
    `graphc.scan`. Calls nest, and combine with `grad`, `vjp`, `jvp` in any order.

    >>> per_sample = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs, targets)
    """
    if randomness != "error":
        raise fail(
            RuntimeError,
            f"vmap: randomness={randomness!r} is not supported: draw the random numbers before the call, and "
            "pass them as an argument with its dimension in in_dims",
        )

    @wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        stacks: list[Tensor] = []
        forms = [_Form(arg, dim, stacks) for arg, dim in zip(args, _each(in_dims, len(args)), strict=True)]
        if not stacks:
            raise fail(
                ValueError, f"vmap: in_dims={in_dims} maps over no tensor; one of them must not be None"
            )
        sizes = sorted({len(t) for t in stacks})
        if len(sizes) != 1:
            raise fail(ValueError, f"vmap: the mapped dimensions must be of one size, got {sizes}")

        def one(carry: None, entries: list[Tensor]) -> tuple[None, Any]:
            rest = iter(entries)
            return None, _checked(func(*[form.of(rest) for form in forms], **kwargs))

        _, results = scan(one, None, stacks)
        return _placed(results, out_dims)

    return mapped


class _Form:
    """An argument with its mapped tensors taken out: `of(entries)` puts one entry of each in their places."""

    def __init__(self, value: Any, dims: Dims, stacks: list[Tensor]) -> None:
        self.value = value
        self.mapped = dims is not None
        self.parts: dict[Any, _Form] | None = None
        if isinstance(value, Tensor):
            if self.mapped:
                stacks.append(_in_front(value, dims))
        elif isinstance(value, (tuple, list, dict)) and self.mapped:
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            nested = isinstance(dims, (tuple, list, dict))
            if nested and len(dims) != len(keys):
                raise fail(ValueError, f"vmap: in_dims has {dims} for an argument of {len(keys)} parts")
            self.parts = {k: _Form(value[k], (dims[k] if nested else dims), stacks) for k in keys}
        elif self.mapped:
            raise fail(
                ValueError,
                f"vmap: in_dims has {dims} for {describe(value)}, which is no tensor; give it None",
            )

    def of(self, entries: Any) -> Any:
        if self.parts is not None:
            made = {key: part.of(entries) for key, part in self.parts.items()}
            if isinstance(self.value, dict):
                return type(self.value)(made)
            kind = type(self.value)
            return kind(*made.values()) if hasattr(kind, "_fields") else kind(made.values())
        return next(entries) if self.mapped else self.value


def _in_front(tensor: Tensor, dim: Any) -> Tensor:
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise fail(ValueError, f"vmap: in_dims must hold ints and None, got {dim!r} for {describe(tensor)}")
    if not tensor.ndim:
        raise fail(ValueError, f"vmap: in_dims has {dim} for {describe(tensor)}, which has no dimension")
    return tensor.movedim(normal_axis(dim, tensor.ndim), 0)


def _each(dims: Dims, count: int) -> Sequence[Dims]:
    """One entry of in_dims for each argument."""
    if not isinstance(dims, (tuple, list)):
        return [dims] * count
    if len(dims) != count:
        raise fail(ValueError, f"vmap: in_dims has {len(dims)} entries for {count} arguments")
    return dims


def _checked(value: Any) -> Any:
    for leaf in tree.leaves(value):
        if not isinstance(leaf, Tensor):
            raise fail(
                TypeError, f"vmap: the function must return tensors, got {type(leaf).__name__} {leaf!r}"
            )
    return value


def _placed(results: Any, dims: Dims) -> Any:
    """Results with their mapped dimension moved from the front to where `dims` wants it."""
    if isinstance(dims, int):
        return tree.rebuild(results, lambda t: t.movedim(0, dims)) if dims else results
    if not isinstance(results, (tuple, list)) or len(dims) != len(results):
        raise fail(ValueError, f"vmap: out_dims={dims} does not fit the function's results")
    return type(results)(_placed(r, d) for r, d in zip(results, dims, strict=True))
