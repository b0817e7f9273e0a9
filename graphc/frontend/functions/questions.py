"""Questions about a tensor's place, kind and storage, and changes of its shape in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.creation import arange
from graphc.frontend.functions.elementwise import result_dtype
from graphc.frontend.functions.joining import cat
from graphc.frontend.functions.linalg import matmul
from graphc.frontend.functions.methods import attach, method
from graphc.frontend.functions.placement import placed
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import shape_args
from graphc.frontend.tensor import Tensor, from_array, inplace
from graphc.ir.types import DType


@method(only_function=True)
def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype of arithmetic on two tensors or numbers."""
    return result_dtype(tensor1, tensor2)


@method("get_device")
def get_device(input: Tensor) -> int:
    """-1: tensors are on the CPU."""
    return -1


@method("data_ptr", function=False)
def data_ptr(self: Tensor) -> int:
    """The address of the tensor's values: equal for tensors on the same storage (views: that of the whole).

    It holds until the tensor is changed. A copy that nobody has changed may have the same address.
    """
    cell = self._cell
    while cell.view is not None:
        cell = cell.view.cell
    array = value(self if cell is self._cell else _handle(cell, self))
    return int(array.__array_interface__["data"][0])


def _handle(cell: Any, view: Tensor) -> Tensor:
    made = object.__new__(Tensor)
    made._cell = cell
    return made


@method("storage_offset", function=False)
def storage_offset(self: Tensor) -> int:
    """0: values have no strides and no offset here."""
    return 0


for _name, _answer, _doc in (
    ("is_conj", False, "False: there are no complex numbers."),
    ("is_neg", False, "False: negation is computed, never noted."),
    ("is_shared", False, "False: loader workers are threads, which share everything."),
    ("is_pinned", False, "False: there is no other device."),
    ("is_inference", False, "False: every tensor may be used in recorded work."),
):

    def _question(self: Tensor, _answer: bool = _answer) -> bool:
        return _answer

    _question.__name__ = _question.__qualname__ = _name
    _question.__doc__ = _doc
    method(_name, only_function=False)(_question)

for _name in ("is_meta", "is_mps", "is_nested", "is_sparse_csr", "is_xla", "is_xpu", "is_mkldnn"):
    attach(**{_name: False})


@method("conj", "conj_physical", "resolve_conj", "resolve_neg", "real")
def conj(input: Tensor) -> Tensor:
    """The tensor itself: there are no complex numbers."""
    return input


_NOT_BUILT = {
    **dict.fromkeys(
        ("half", "bfloat16"), "float16 and bfloat16 are not built; there are float() and double()"
    ),
    **dict.fromkeys(("char", "short"), "int8 and int16 are not built; there are byte(), int() and long()"),
    **dict.fromkeys(("imag", "cfloat", "cdouble"), "complex numbers are not built"),
    **dict.fromkeys(
        ("as_strided", "as_strided_", "untyped_storage", "storage"), "values have no strides here"
    ),
    **dict.fromkeys(("to_sparse", "indices", "values", "coalesce"), "sparse tensors are not built"),
    **dict.fromkeys(("svd", "qr", "eig", "pinverse"), "singular values and eigenvalues are not built"),
}


def _missing(self: Tensor, name: str) -> Any:
    why = f" ({_NOT_BUILT[name]})" if name in _NOT_BUILT else ""
    raise AttributeError(
        f"{type(self).__name__!r} object has no attribute {name!r}{why}", name=name, obj=self
    )


attach(__getattr__=_missing)

method("detach", only_function=True)(Tensor.detach)


@method("share_memory_", function=False)
def share_memory_(self: Tensor) -> Tensor:
    """The tensor itself: loader workers are threads, which share everything."""
    return self


@method("to_dense", function=False)
def to_dense(self: Tensor, dtype: DType | None = None) -> Tensor:
    """The tensor itself: every tensor is dense."""
    return self if dtype is None else self.to(dtype)


@method("resize_", function=False)
def resize_(self: Tensor, *shape: Any, memory_format: Any = None) -> Tensor:
    """Give the tensor another shape in place: its first elements stay, new ones are zeros.

    RuntimeError for tensors that require grad.
    """
    if self.requires_grad:
        raise fail(RuntimeError, "cannot resize variables that require grad")
    extents = shape_args(shape)
    wanted = int(np.prod(extents, dtype=np.int64))
    if tuple(extents) != tuple(self.shape):
        flat = self.reshape(-1)[:wanted]
        if flat.shape[0] < wanted:
            flat = cat([flat, self.new_zeros((wanted - flat.shape[0],))])
        self.data = flat.reshape(extents)
    return self


@method("resize_as_", function=False)
def resize_as_(self: Tensor, other: Tensor, memory_format: Any = None) -> Tensor:
    """`resize_` to the shape of another tensor."""
    return resize_(self, *other.shape)


@method("sum_to_size", function=False)
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum over what broadcasting from `size` to this shape has repeated."""
    wanted = shape_args(size)
    lead = self.ndim - len(wanted)
    if lead < 0 or any(w not in (1, e) for w, e in zip(wanted, self.shape[lead:], strict=True)):
        raise fail(RuntimeError, f"size {{{list(wanted)}}} is not expandable to size {{{list(self.shape)}}}.")
    if not self.ndim:
        return self.sum()
    found = self.sum(tuple(range(lead))) if lead else self
    axes = tuple(i for i, (w, e) in enumerate(zip(wanted, found.shape, strict=True)) if w == 1 != e)
    return found.sum(axes, keepdim=True) if axes else found


def _elementwise(name: str, self: Tensor, others: Sequence[Tensor], function: Callable[..., Any]) -> Tensor:
    """Change `self` to a Python function of its elements and those of others, outside traces."""
    if MODE.trace is not None:
        raise MODE.trace.needs_value(f"{name} of {describe(self)}")
    arrays = [np.broadcast_to(value(t.detach()), tuple(self.shape)) for t in (self, *others)]
    made = [function(*[v.item() for v in items]) for items in zip(*[a.flat for a in arrays], strict=True)]
    found = np.array(made, self.dtype.numpy).reshape(tuple(self.shape))
    return inplace(self, from_array(found), name)


@method("apply_", function=False)
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace every element by a Python function of it: slow, as in PyTorch."""
    return _elementwise("apply_", self, (), callable)


@method("map_", function=False)
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace every element by a Python function of it and of another tensor's."""
    return _elementwise("map_", self, (tensor,), callable)


@method(only_function=True)
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of matrices, from left to right (`linalg.multi_dot` chooses the order)."""
    found = matrices[0]
    for matrix in matrices[1:]:
        found = matmul(found, matrix)
    return found


@placed
def range_(start: float, end: float | None = None, step: float = 1, *, dtype: DType | None = None) -> Tensor:
    """Numbers from `start` to `end`, both included (deprecated in PyTorch for `arange`)."""
    first, last = (0, start) if end is None else (start, end)
    count = int((last - first) / step) + 1
    found = arange(count, dtype=dtype) * step + first
    return found.to(dtype) if dtype is not None else found.float()


method("range", only_function=True)(range_)
