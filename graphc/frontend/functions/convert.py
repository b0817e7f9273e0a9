"""Reading tensors as Python numbers and arrays, and changing their dtype."""

from __future__ import annotations

from collections.abc import Iterator
from sys import getrefcount
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.cell import Cell
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import memory, value
from graphc.frontend.functions.methods import attach, method
from graphc.frontend.functions.slicing import select
from graphc.frontend.layout import strided
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import cast
from graphc.frontend.sharing import show
from graphc.frontend.tensor import Tensor, apply, from_array
from graphc.ir.types import BY_NAME, DType, bool_, float32, float64, int32, int64, uint8


class Device:
    """The one device: the CPU."""

    type = "cpu"
    index = None

    def __repr__(self) -> str:
        return "device(type='cpu')"

    def __str__(self) -> str:
        return "cpu"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) or other == "cpu"

    def __hash__(self) -> int:
        return hash("cpu")


CPU = Device()


def device(name: Any = "cpu") -> Device:
    """The CPU. RuntimeError for any other name."""
    check_device(name)
    return CPU


def check_device(name: Any) -> None:
    """RuntimeError unless `name` is None or says CPU."""
    if name is None or isinstance(name, Device) or str(name).split(":")[0] == "cpu":
        return
    raise fail(RuntimeError, f"graphc computes on the CPU only; device {str(name)!r} is not available")


@method(function=False)
def item(self: Tensor) -> int | float | bool:
    """The one element as a Python number."""
    if self._cell.node.type.size != 1:
        raise fail(
            RuntimeError, f"a Tensor with {self._cell.node.type.size} elements cannot be converted to Scalar"
        )
    return value(self).item()


@method(function=False)
def tolist(self: Tensor) -> Any:
    """Nested lists of Python numbers."""
    return value(self).tolist()


@method(function=False)
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The value as a NumPy array, which shares the tensor's memory until the tensor gets another value in
    place: what is written to it before that, later operations see (`graphc.frontend.sharing` says more).
    A copy for views, for tensors with history and inside traces. RuntimeError for a tensor that requires
    grad, unless `force`."""
    if self.requires_grad and not force:
        raise fail(
            RuntimeError,
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.",
        )
    array, cell = memory(self), self._cell
    if not _can_share(cell):
        return array.copy()
    if getrefcount(self) <= TEMPORARY and _is_sole_owner(cell) and array.flags.writeable:
        return array  # as in model(x).numpy(): the tensor is gone after this call, so nobody else has it
    return show(cell)


def _can_share(cell: Cell) -> bool:
    """Whether a cell has storage of its own, no history, and a value that lasts."""
    return cell.view is None and cell.fn is None and MODE.trace is None


def _is_sole_owner(cell: Cell) -> bool:
    """Whether nothing but one tensor refers to a cell (the caller has a variable, too), and nothing but the
    cell to its value's node."""
    return not cell.vars and getrefcount(cell) <= 4 and getrefcount(cell.node) <= 2


class _Probe:
    def held(self) -> int:
        return getrefcount(self)


TEMPORARY = _Probe().held()  # references to the object of a method call that nobody else refers to


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    found = numpy(self)
    if copy is False and not (_can_share(self._cell) and (dtype is None or dtype == found.dtype)):
        raise fail(ValueError, "copy=False: this tensor, or this dtype of it, cannot share memory with NumPy")
    return found if dtype is None and not copy else found.astype(dtype or found.dtype, copy=bool(copy))


def _dlpack(self: Tensor, **options: Any) -> Any:
    options.pop("copy", None)
    return numpy(self).__dlpack__(**options)


def _scalar(self: Tensor, what: str) -> Any:
    if self._cell.node.type.size != 1:
        if what == "bool":
            raise fail(RuntimeError, "Boolean value of Tensor with more than one value is ambiguous")
        size = self._cell.node.type.size
        raise fail(
            ValueError, f"only one element tensors can be converted to Python scalars, not {size} elements"
        )
    return value(self).item()


def _index(self: Tensor) -> int:
    if self.dtype.is_float or self._cell.node.type.size != 1:
        raise fail(TypeError, "only integer tensors of a single element can be converted to an index")
    return int(_scalar(self, "int"))


def _len(self: Tensor) -> int:
    if self.ndim == 0:
        raise fail(TypeError, "len() of a 0-d tensor")
    return self.shape[0]


def _iterate(self: Tensor) -> Iterator[Tensor]:
    if self.ndim == 0:
        raise fail(TypeError, "iteration over a 0-d tensor")
    return iter([select(self, 0, i) for i in range(self.shape[0])])


def _contains(self: Tensor, element: Any) -> bool:
    return bool((self == element).any().item())


def _array_wrap(self: Tensor, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Tensor:
    """What a NumPy function gives of tensors is a tensor; truth is told in uint8, as PyTorch does."""
    found = np.asarray(array)
    return from_array(found.astype(np.uint8) if found.dtype == np.bool_ else found)


attach(
    __array__=_array,
    __array_wrap__=_array_wrap,
    __dlpack__=_dlpack,
    __dlpack_device__=lambda self: (1, 0),
    __bool__=lambda self: bool(_scalar(self, "bool")),
    __float__=lambda self: float(_scalar(self, "float")),
    __int__=lambda self: int(_scalar(self, "int")),
    __complex__=lambda self: complex(_scalar(self, "complex")),
    __index__=_index,
    __len__=_len,
    __iter__=_iterate,
    __contains__=_contains,
)


# ---------------------------------------------------------------------- dtypes


def convert(input: Tensor, dtype: DType, copy: bool = False) -> Tensor:
    """`input` with another dtype; itself if it has it already (unless `copy`)."""
    if input.dtype is dtype and not copy:
        return input
    if input.dtype is dtype:
        return clone(input)
    return apply("ToCopyBackward0", lambda n: cast(n, dtype), input)


@method()
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with storage of its own, with history."""
    return apply("CloneBackward0", lambda n: n, input)


@method(function=False)
def to(self: Tensor, *args: Any, dtype: DType | None = None, copy: bool = False, **options: Any) -> Tensor:
    """This tensor with another dtype, or that of another tensor; the device is always the CPU."""
    check_device(options.pop("device", None))
    for arg in args:
        if isinstance(arg, DType):
            dtype = arg
        elif isinstance(arg, Tensor):
            dtype = arg.dtype
        elif not isinstance(arg, bool):
            check_device(arg)
    return convert(self, dtype or self.dtype, copy)


@method("type", function=False)
def type_(self: Tensor, dtype: Any = None) -> Any:
    """The type's name, as PyTorch spells it; with a dtype, its name or class (`FloatTensor`), converted.

    ValueError for the name of no type, TypeError for anything else.
    """
    if dtype is None:
        return f"graphc.{_CLASSES[self.dtype.name]}"
    if isinstance(dtype, str):
        found = {v: k for k, v in _CLASSES.items()}.get(dtype.split(".")[-1])
        if found is None:
            raise fail(ValueError, f"invalid type: {dtype!r}")
        dtype = BY_NAME[found]
    dtype = getattr(dtype, "dtype", dtype)
    if not isinstance(dtype, DType):
        raise fail(TypeError, f"type(): dtype must be a dtype, its name or its class, got {dtype!r}")
    return convert(self, dtype)


_CLASSES = {
    "float32": "FloatTensor",
    "float64": "DoubleTensor",
    "int64": "LongTensor",
    "int32": "IntTensor",
    "uint8": "ByteTensor",
    "bool": "BoolTensor",
}


@method(function=False)
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """This tensor with the dtype of another."""
    return convert(self, other.dtype)


for _name, _dtype in (
    ("float", float32),
    ("double", float64),
    ("long", int64),
    ("int", int32),
    ("byte", uint8),
    ("bool", bool_),
):

    def _to_dtype(self: Tensor, memory_format: Any = None, _dtype: DType = _dtype) -> Tensor:
        return convert(self, _dtype)

    _to_dtype.__name__ = _to_dtype.__qualname__ = _name
    _to_dtype.__doc__ = f"This tensor as {_dtype.name}."
    method(_name, function=False)(_to_dtype)


@method(function=False)
def cpu(self: Tensor) -> Tensor:
    """This tensor: it is on the CPU already."""
    return self


@method(function=False)
def cuda(self: Tensor, *args: Any) -> Tensor:
    """RuntimeError: graphc computes on the CPU."""
    raise fail(RuntimeError, "graphc computes on the CPU only: there is no CUDA device")


@method(function=False)
def element_size(self: Tensor) -> int:
    """Bytes per element."""
    return self.dtype.itemsize


@method()
def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating-point one."""
    return input.dtype.is_float


@method()
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return input.dtype not in (uint8, bool_)


@method()
def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not zero; RuntimeError unless there is exactly one."""
    if input._cell.node.type.size != 1:
        raise fail(RuntimeError, "Boolean value of Tensor with more than one value is ambiguous")
    return bool(_scalar(input, "bool"))


@method(function=False)
def get_device(self: Tensor) -> int:
    """-1: the CPU."""
    return -1


@method(function=False)
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """This tensor: memory is pinned for copies to other devices, and there are none."""
    return self


@method()
def is_complex(input: Tensor) -> bool:
    """False: there are no complex tensors."""
    return False


attach(
    device=property(lambda self: CPU, doc="The CPU."),
    is_cuda=False,
    is_cpu=True,
    is_sparse=False,
    is_quantized=False,
    layout=strided,
    itemsize=property(lambda self: self.dtype.itemsize, doc="Bytes per element."),
    nbytes=property(lambda self: self._cell.node.type.nbytes, doc="Bytes of all elements."),
)


def _deepcopy(self: Tensor, memo: dict) -> Tensor:
    """A new leaf with a copy of the value."""
    if id(self) in memo:
        return memo[id(self)]
    if self._cell.fn is not None:
        raise fail(
            RuntimeError,
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at "
            "the moment",
        )
    copied = object.__new__(type(self))
    memo[id(self)] = copied
    copied._cell = from_array(value(self).copy())._cell
    copied._requires = self._requires
    for name, held in self.__dict__.items():
        if name not in _OWN:
            setattr(copied, name, held)
    if self.grad is not None:
        copied._grad = _deepcopy(self.grad, memo)
    return copied


def _copy(self: Tensor) -> Tensor:
    """Another handle on the same storage (and history)."""
    copied = object.__new__(type(self))
    self.grad  # noqa: B018 (a promise of a gradient is this tensor's alone)
    copied.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_acc", "_passes", "_seq")})
    return copied


_OWN = frozenset(
    ("_cell", "_requires", "_grad", "_var", "_acc", "_hooks", "_passes", "_retains", "_seq", "_weak")
)


def _no_pickle(self: Tensor, protocol: int) -> Any:
    raise fail(TypeError, "tensors are not pickled; save them with graphc.save (safetensors)")


attach(__copy__=_copy, __deepcopy__=_deepcopy, __reduce_ex__=_no_pickle)


def stop_gradient(input: Tensor) -> Tensor:
    """The value of `input`, as a constant to differentiation (a function; see also `detach`)."""
    return apply("", lambda n: ops.stop_gradient(n), input)
