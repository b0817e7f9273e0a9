"""Python's operators on tensors, and in-place methods that are not twins of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.rounds import may_end
from graphc.frontend.functions import elementwise as e
from graphc.frontend.functions.methods import METHODS, attach, method
from graphc.frontend.modes import settle
from graphc.frontend.nodes import cast, expand
from graphc.frontend.tensor import Tensor, apply, from_node, inplace, needs_grad, register, share_cell


def _forward(f: Callable[..., Tensor]) -> Callable[[Tensor, Any], Any]:
    def operator(self: Tensor, other: Any) -> Any:
        operand = e.coerce(other)
        return NotImplemented if operand is None else f(self, operand)

    return operator


def _reflected(f: Callable[..., Tensor]) -> Callable[[Tensor, Any], Any]:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(self, Tensor):
            raise fail(TypeError, f"a reflected operator of Tensor does not apply to {type(self).__name__}")
        operand = e.coerce(other)
        return NotImplemented if operand is None else f(operand, self)

    return operator


def _inplace(f: Callable[..., Tensor], name: str) -> Callable[[Tensor, Any], Any]:
    def operator(self: Tensor, other: Any) -> Any:
        operand = e.coerce(other)
        if operand is None:
            return NotImplemented
        may_end(self)
        return inplace(self, f(self, operand), name)

    return operator


for _name, _of in {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
    "matmul": "matmul",
}.items():
    _f = METHODS[_of]
    setattr(Tensor, f"__{_name}__", _forward(_f))
    setattr(Tensor, f"__r{_name}__", _reflected(_f))
    setattr(Tensor, f"__i{_name}__", _inplace(_f, f"{_name}_"))

Tensor.__rdiv__ = _reflected(METHODS["div"])  # type: ignore[attr-defined]

for _name in ("lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _forward(METHODS[_name]))


def _eq(self: Tensor, other: Any) -> Any:
    operand = e.coerce(other)
    return False if operand is None else METHODS["eq"](self, operand)


def _ne(self: Tensor, other: Any) -> Any:
    operand = e.coerce(other)
    return True if operand is None else METHODS["ne"](self, operand)


attach(
    __eq__=_eq,
    __ne__=_ne,
    __hash__=object.__hash__,  # `==` is elementwise, so tensors in sets and dicts are told apart by identity
    __neg__=lambda self: METHODS["neg"](self),
    __pos__=lambda self: self,
    __abs__=lambda self: METHODS["abs"](self),
    __invert__=lambda self: METHODS["bitwise_not"](self),
)


@method("fill_", function=False)
def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element set to a number or a 0-d tensor."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise fail(
                RuntimeError,
                f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions.",
            )
        return copy_(self, value)
    kind = self._cell.node.type
    full = ops.full(kind.shape, value, kind.dtype)
    # What had history keeps it (its gradient is zero), so that backward() through it still works.
    new = apply("FillBackward0", lambda n: full, self) if needs_grad(self) else from_node(full)
    return inplace(self, new, "fill_")


@method("zero_", function=False)
def zero_(self: Tensor) -> Tensor:
    """Every element set to zero."""
    return fill_(self, 0)


@method("copy_", function=False)
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Elements taken over from `src`, cast and broadcast to this tensor."""
    source = e.need(src, "copy_")
    kind = self._cell.node.type
    if not isinstance(source, Tensor):
        return fill_(self, source)
    own, theirs = kind.shape, source._cell.node.type.shape
    fits = len(theirs) <= len(own) and all(a in (1, b) for a, b in zip(theirs[::-1], own[::-1], strict=False))
    if not fits:
        raise fail(
            RuntimeError,
            f"The size of tensor a ({own[-1] if own else 1}) must match the size of tensor b "
            f"({theirs[-1] if theirs else 1}): copy_ of {list(theirs)} into {list(own)}",
        )
    if needs_grad(self):  # its history stays, as in `fill_`
        moved = apply("CopyBackwards", lambda _, n: expand(cast(n, kind.dtype), own), self, source)
    elif theirs == own and source.dtype is kind.dtype:
        moved = source
    else:
        moved = apply("CopyBackwards", lambda n: expand(cast(n, kind.dtype), own), source)
    return inplace(self, moved, "copy_")


@method("set_", function=False)
def set_(self: Tensor, source: Tensor) -> Tensor:
    """This tensor with the storage of another."""
    settle()
    self._cell = source._cell
    share_cell(source, self)
    register(self)
    return self


@method("masked_scatter_", function=False)
def masked_scatter_(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Elements where `mask` holds taken from `source`, in order."""
    return inplace(self, METHODS["masked_scatter"](self, mask, source))
