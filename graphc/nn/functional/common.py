"""What the families of functions share: argument forms, dtype checks, elementwise functions, reductions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.convert import convert
from graphc.frontend.nodes import broadcast_shapes, cast, expand, spread
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply, inplace
from graphc.ir.node import Node
from graphc.ir.types import bool_
from graphc.nn.arith import Num

Ints = int | Sequence[int]


def tuple_of(value: Any, rank: int, name: str) -> tuple[int, ...]:
    """An int, or a sequence of one or `rank` ints, as `rank` ints."""
    if isinstance(value, int):
        return (value,) * rank
    found = tuple([int(v) for v in value])
    if len(found) == 1:
        return found * rank
    if len(found) != rank:
        raise fail(ValueError, f"{name} must be an int or {rank} ints, got {tuple(value)}")
    return found


def need_float(name: str, *tensors: Tensor) -> None:
    """NotImplementedError with PyTorch's text unless all dtypes are floating point."""
    need_tensors(name, *tensors)
    for t in tensors:
        if not t.dtype.is_float:
            what = f"\"{name}\" not implemented for '{title(t.dtype)}'"
            raise fail(NotImplementedError, f"{what} (given {describe(*tensors)})")


def need_numbers(name: str, *tensors: Tensor) -> None:
    """NotImplementedError with PyTorch's text for bools."""
    need_tensors(name, *tensors)
    for t in tensors:
        if t.dtype is bool_:
            what = f"\"{name}\" not implemented for 'Bool'"
            raise fail(NotImplementedError, f"{what} (given {describe(*tensors)})")


def as_floats(name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Integers as the default float dtype, as PyTorch's arithmetic with floats makes them."""
    need_numbers(name, *tensors)
    return tuple([t if t.dtype.is_float else convert(t, get_default_dtype()) for t in tensors])


def elementwise(
    name: str,
    label: str,
    formula: Callable[[Num], Num],
    input: Tensor,
    change: bool = False,
    integers: bool = False,
) -> Tensor:
    """A scalar function of each element; with `change`, stored in `input`. `integers`: of them too."""
    (need_numbers if integers else need_float)(name, input)
    out = apply(label, lambda n: formula(Num(n)).node, input)
    return inplace(input, out, name) if change else out


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """PyTorch's deprecated `size_average` and `reduce` as a `reduction`.

    TypeError for tensors: somebody called the class of a loss, not a loss.
    """
    if size_average is None and reduce is None:
        return reduction
    if isinstance(size_average, Tensor) or isinstance(reduce, Tensor):
        raise fail(
            TypeError,
            "size_average and reduce are flags, but got a Tensor: a loss is made first and called then, as "
            "in nn.MSELoss()(input, target)",
        )
    average = True if size_average is None else size_average
    found = "none" if reduce is False else ("mean" if average else "sum")
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{found}' instead.",
        stacklevel=4,
    )
    return found


def check_reduction(reduction: str) -> None:
    """ValueError for a word that is no reduction."""
    if reduction not in ("none", "mean", "sum"):
        raise fail(ValueError, f"{reduction} is not a valid value for reduction")


def mean_all(node: Node) -> Node:
    """The mean of all elements."""
    total = ops.reduce_sum(node, range(node.type.rank))
    count = node.type.size
    return ops.mul(total, ops.like(total, 1.0 / count if count else math.nan))


def reduced(node: Node, reduction: str) -> Node:
    """ "none", "mean" or "sum" of a node of losses; ValueError for another word."""
    if reduction == "none":
        return node
    if reduction == "sum":
        return ops.reduce_sum(node, range(node.type.rank))
    if reduction == "mean":
        return mean_all(node)
    raise fail(ValueError, f"{reduction} is not a valid value for reduction")


def together(*nodes: Node) -> tuple[Node, ...]:
    """The nodes broadcast to one shape and cast to the widest of their float dtypes."""
    shape = broadcast_shapes(*[n.shape for n in nodes])
    floats = [n.dtype for n in nodes if n.dtype.is_float]
    dtype = max(floats, key=lambda d: d.itemsize) if floats else nodes[0].dtype
    return tuple([expand(cast(n, dtype), shape) for n in nodes])


def log_softmax_node(n: Node, axis: int) -> Node:
    """x - max - log(sum(exp(x - max))) along `axis`."""
    if n.type.size == 0:
        return n
    top = spread(ops.stop_gradient(ops.reduce_max(n, (axis,))), n.shape, axis)
    shifted = ops.sub(n, top)
    total = ops.reduce_sum(ops.exp(shifted), (axis,))
    return ops.sub(shifted, spread(ops.log(total), n.shape, axis))


def softmax_node(n: Node, axis: int) -> Node:
    """exp(x - max) / sum(exp(x - max)) along `axis`."""
    if n.type.size == 0:
        return n
    top = spread(ops.stop_gradient(ops.reduce_max(n, (axis,))), n.shape, axis)
    e = ops.exp(ops.sub(n, top))
    return ops.div(e, spread(ops.reduce_sum(e, (axis,)), n.shape, axis))
