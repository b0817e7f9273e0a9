"""Comparison, logic and bits: results without gradient."""

from __future__ import annotations

from collections.abc import Callable

from graphc import ops
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.elementwise import Build, Operand, binary, need, result_dtype
from graphc.frontend.functions.methods import method
from graphc.frontend.nodes import cast, number
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import bool_, uint8


def _compare(name: str, build: Build) -> Callable[[Operand, Operand], Tensor]:
    def compare(input: Operand, other: Operand) -> Tensor:
        need_tensors(name, input)
        return binary("", build, input, need(other, name))

    compare.__name__ = compare.__qualname__ = name
    compare.__doc__ = f"Elementwise comparison `{name}`, as a bool tensor."
    return compare


def _ordered(build: Build) -> Build:
    """Comparisons of bools, as of 0 and 1."""
    from_bool = lambda n: ops.cast(n, uint8) if n.dtype is bool_ else n  # noqa: E731
    return lambda a, b: build(from_bool(a), from_bool(b))


for _name, _aliases in {
    "eq": (),
    "ne": ("not_equal",),
    "lt": ("less",),
    "le": ("less_equal",),
    "gt": ("greater",),
    "ge": ("greater_equal",),
}.items():
    _build = getattr(ops, _name)
    method(_name, *_aliases, inplace=True, repeats=True)(_compare(_name, _ordered(_build)))


def truth(node: Node) -> Node:
    """Non-zero, as bool."""
    return node if node.dtype is bool_ else ops.ne(node, ops.zeros(node.type))


def _logical(name: str, build: Build) -> Callable[[Operand, Operand], Tensor]:
    def logical(input: Operand, other: Operand) -> Tensor:
        need_tensors(name, input, other)
        return binary("", lambda a, b: build(truth(a), truth(b)), input, other)

    logical.__name__ = logical.__qualname__ = name
    logical.__doc__ = f"Elementwise `{name}` of the operands' truth, as a bool tensor."
    return logical


method("logical_and", inplace=True)(_logical("logical_and", ops.bit_and))
method("logical_or", inplace=True)(_logical("logical_or", ops.bit_or))
method("logical_xor", inplace=True)(_logical("logical_xor", ops.bit_xor))


@method(inplace=True, repeats=True)
def logical_not(input: Tensor) -> Tensor:
    """Whether an element is zero."""
    return apply("", lambda n: ops.logical_not(truth(n)), input)


def _bitwise(name: str, build: Build) -> Callable[[Operand, Operand], Tensor]:
    def bitwise(input: Operand, other: Operand) -> Tensor:
        input, other = need(input, name), need(other, name)
        if result_dtype(input, other).is_float:
            what = f'"{name}_cpu" not implemented for floats'
            raise fail(NotImplementedError, f"{what}: {describe(input, other)}")
        return binary("", build, input, other)

    bitwise.__name__ = bitwise.__qualname__ = name
    bitwise.__doc__ = f"Elementwise `{name}` of integers or bools."
    return bitwise


method("bitwise_and", inplace=True)(_bitwise("bitwise_and", ops.bit_and))
method("bitwise_or", inplace=True)(_bitwise("bitwise_or", ops.bit_or))
method("bitwise_xor", inplace=True)(_bitwise("bitwise_xor", ops.bit_xor))
method("bitwise_left_shift", inplace=True)(_bitwise("bitwise_left_shift", ops.shl))
method("bitwise_right_shift", inplace=True)(_bitwise("bitwise_right_shift", ops.shr))


@method(inplace=True, repeats=True)
def bitwise_not(input: Tensor) -> Tensor:
    """All bits flipped; for bools, not."""
    if input.dtype.is_float:
        raise fail(NotImplementedError, f"\"bitwise_not_cpu\" not implemented for '{title(input.dtype)}'")
    if input.dtype is bool_:
        return logical_not(input)
    ones = 255 if input.dtype is uint8 else -1
    return apply("", lambda n: ops.bit_xor(n, number(ones, n.dtype, n.shape)), input)


@method()
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """|input - other| <= atol + rtol * |other|, elementwise."""
    need_tensors("isclose", input, other)
    for name, size in (("rtol", rtol), ("atol", atol)):
        if size < 0:
            raise fail(RuntimeError, f"{name} must be greater than or equal to zero, but got {size}")

    def build(a: Node, b: Node) -> Node:
        same = ops.eq(a, b)
        if not a.dtype.is_float:
            a, b = cast(a, get_default_dtype()), cast(b, get_default_dtype())
        size = ops.add(number(atol, a.dtype, a.shape), ops.mul(number(rtol, a.dtype, a.shape), ops.abs(b)))
        near = ops.bit_and(ops.isfinite(size), ops.le(ops.abs(ops.sub(a, b)), size))
        found = ops.bit_or(same, near)
        return ops.bit_or(found, ops.bit_and(ops.isnan(a), ops.isnan(b))) if equal_nan else found

    return binary("", build, input, other)


@method()
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether all elements are close; computes."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


@method()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are equal; computes."""
    return input.shape == other.shape and bool(binary("", ops.eq, input, other).all())
