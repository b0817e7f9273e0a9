"""Making tensors from nothing, from Python data and from arrays.

Outside traces, values are made at once as arrays (there is nothing to compile); inside a
trace they are nodes, constants of the program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.convert import clone, convert
from graphc.frontend.functions.joining import stack
from graphc.frontend.functions.methods import attach, method
from graphc.frontend.functions.placement import placed
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import shape_args
from graphc.frontend.promotion import get_default_dtype, number_dtype
from graphc.frontend.tensor import Tensor, from_array, from_node
from graphc.ir.types import DType, Shape, bool_, float32, float64, from_numpy_dtype, int32, int64, uint8

_NUMBERS = (int, float)


def constant_array(array: np.ndarray, requires_grad: bool = False) -> Tensor:
    """A tensor that takes over `array`: a leaf outside traces, a constant inside one."""
    if MODE.trace is None:
        return from_array(array, requires_grad)
    tensor = from_node(ops.constant(array, from_numpy_dtype(array.dtype)))
    return tensor.requires_grad_() if requires_grad else tensor


def _filled(shape: Shape, value: Any, dtype: DType, requires_grad: bool) -> Tensor:
    if any(extent < 0 for extent in shape):
        bad = next(e for e in shape if e < 0)
        raise fail(RuntimeError, f"Trying to create tensor with negative dimension {bad}: {list(shape)}")
    if MODE.trace is None:
        array = np.zeros(shape, dtype.numpy) if value == 0 else _full(shape, value, dtype)
        return from_array(array, requires_grad)
    tensor = from_node(ops.full(shape, value, dtype))
    return tensor.requires_grad_() if requires_grad else tensor


def _full(shape: Shape, value: Any, dtype: DType) -> np.ndarray:
    """`value` everywhere; a negative number in an unsigned dtype wraps round, as PyTorch's do."""
    if dtype is uint8 and -256 < value < 0:
        value = int(value) & 255
    return np.full(shape, value, dtype.numpy)


def _finish(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.requires_grad_() if requires_grad else tensor


# ------------------------------------------------------------------- from data


def _nested(data: Any) -> np.ndarray:
    """Nested sequences of numbers as an array; ValueError with PyTorch's text if they are ragged."""
    try:
        array = np.array(data)
    except ValueError:
        raise fail(ValueError, _ragged(data)) from None
    if array.dtype.kind not in "fiub":
        if array.dtype.kind == "O" and any(v is not None and hasattr(v, "__len__") for v in array.flat):
            raise fail(ValueError, _ragged(data))
        kind = type(array.flat[0]).__name__.rstrip("_") if array.size else array.dtype.name
        raise fail(TypeError, f"new(): invalid data type '{kind}'")
    return array


def _ragged(data: Any) -> str:
    """Where nested sequences are of different lengths first, in PyTorch's words."""
    level, dim = [data], 0
    while any(hasattr(part, "__len__") for part in level):
        lengths = [len(part) if hasattr(part, "__len__") else None for part in level]
        for length in lengths:
            if length != lengths[0]:
                got = "a number" if None in (length, lengths[0]) else length
                expected = lengths[0] if lengths[0] is not None else length
                return f"expected sequence of length {expected} at dim {dim} (got {got})"
        level, dim = [item for part in level for item in part], dim + 1
    return "expected nested sequences of numbers"


def _holds_tensors(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, Tensor)


def _own_dtype(data: Any, array: np.ndarray) -> DType:
    """The dtype of Python data: the default float dtype for floats, int64 for ints."""
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if isinstance(first, (np.generic, np.ndarray)):
        return from_numpy_dtype(array.dtype)
    return {"f": get_default_dtype(), "b": bool_}.get(array.dtype.kind, int64)


@placed
def tensor(
    data: Any,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new leaf with a copy of `data`: numbers, nested sequences, arrays or a tensor."""
    if isinstance(data, Tensor):
        copied = clone(data.detach())
        return _finish(convert(copied, dtype) if dtype else copied, requires_grad)
    if isinstance(data, np.ndarray):
        array = data.astype((dtype or from_numpy_dtype(data.dtype)).numpy, order="C", copy=True)
        return constant_array(array, requires_grad)
    if isinstance(data, np.generic):
        return tensor(np.asarray(data), dtype=dtype, requires_grad=requires_grad)
    if isinstance(data, (list, tuple)) and _holds_tensors(data):
        return _finish(_stack_nested(data, dtype), requires_grad)
    if isinstance(data, (bool, *_NUMBERS)):
        return constant_array(np.asarray(data, (dtype or number_dtype(data)).numpy), requires_grad)
    if not isinstance(data, (list, tuple)) and hasattr(data, "__array__"):
        return tensor(np.asarray(data), dtype=dtype, requires_grad=requires_grad)
    if not isinstance(data, (list, tuple, range)):
        raise fail(TypeError, f"tensor(): cannot make a tensor of {type(data).__name__}")
    array = _nested(list(data) if isinstance(data, range) else data)
    if array.size == 0 and array.dtype.kind == "f":
        found = dtype or get_default_dtype()
    else:
        found = dtype or _own_dtype(data, array)
    return constant_array(array.astype(found.numpy), requires_grad)


def _stack_nested(data: Any, dtype: DType | None) -> Tensor:
    if isinstance(data, Tensor):
        return data.detach()
    stacked = stack([_stack_nested(d, None) for d in data])
    return convert(stacked, dtype) if dtype else stacked


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor with a copy of a NumPy array. (PyTorch shares memory.)"""
    if not isinstance(array, np.ndarray):
        raise fail(TypeError, f"expected np.ndarray (got {type(array).__name__})")
    try:
        from_numpy_dtype(array.dtype)
    except TypeError as error:
        raise fail(
            TypeError,
            f"can't convert np.ndarray of type {array.dtype}. The only supported types are: float64, "
            f"float32, "
            "int64, int32, uint8, and bool.",
        ) from error
    return constant_array(np.array(array, order="C", copy=True))


@placed
def as_tensor(data: Any, dtype: DType | None = None) -> Tensor:
    """`data` as a tensor; a tensor of the right dtype is returned as it is."""
    if isinstance(data, Tensor):
        return convert(data, dtype or data.dtype)
    return tensor(data, dtype=dtype)


asarray = as_tensor


def from_dlpack(source: Any) -> Tensor:
    """A tensor with a copy of any array that speaks DLPack."""
    return from_numpy(np.from_dlpack(source))


@placed
def scalar_tensor(value: Any, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor of the default float dtype (or `dtype`)."""
    return full((), value, dtype=dtype or get_default_dtype(), requires_grad=requires_grad)


# --------------------------------------------------------------------- filled


@placed
def zeros(
    *size: Any,
    dtype: DType | None = None,
    requires_grad: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Zeros."""
    made = _filled(shape_args(size), 0, dtype or get_default_dtype(), requires_grad)
    return made if out is None else out.copy_(made)


@placed
def ones(*size: Any, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Ones."""
    return _filled(shape_args(size), 1, dtype or get_default_dtype(), requires_grad)


@placed
def empty(
    *size: Any,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Zeros (there is no uninitialised memory in graphc)."""
    return zeros(*size, dtype=dtype, requires_grad=requires_grad)


@placed
def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Every element `fill_value`."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    number: Any = fill_value
    if not isinstance(number, int | float | complex | np.number | np.bool_):
        raise fail(
            TypeError, f"full(): argument 'fill_value' must be Number, not {type(fill_value).__name__}"
        )
    return _filled(shape_args((size,)), fill_value, dtype or number_dtype(fill_value), requires_grad)


def _like(input: Tensor, value: Any, dtype: DType | None, requires_grad: bool) -> Tensor:
    return _filled(input._cell.node.type.shape, value, dtype or input.dtype, requires_grad)


@method(only_function=True)
@placed
def zeros_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Zeros with the shape and dtype of `input`."""
    return _like(input, 0, dtype, requires_grad)


@method(only_function=True)
@placed
def ones_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones with the shape and dtype of `input`."""
    return _like(input, 1, dtype, requires_grad)


@method(only_function=True)
@placed
def empty_like(input: Tensor, **options: Any) -> Tensor:
    """Zeros with the shape and dtype of `input`."""
    return zeros_like(input, **options)


@method(only_function=True)
@placed
def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`fill_value` with the shape and dtype of `input`."""
    return _like(input, fill_value, dtype, requires_grad)


@method("new_zeros", function=False)
@placed
def new_zeros(self: Tensor, *size: Any, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros of this dtype."""
    return zeros(*size, dtype=dtype or self.dtype, requires_grad=requires_grad)


@method("new_ones", function=False)
@placed
def new_ones(self: Tensor, *size: Any, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Ones of this dtype."""
    return ones(*size, dtype=dtype or self.dtype, requires_grad=requires_grad)


@method("new_empty", function=False)
@placed
def new_empty(self: Tensor, *size: Any, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros of this dtype."""
    return zeros(*size, dtype=dtype or self.dtype, requires_grad=requires_grad)


@method("new_full", function=False)
@placed
def new_full(
    self: Tensor,
    size: Sequence[int],
    fill_value: Any,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`fill_value` of this dtype."""
    return full(size, fill_value, dtype=dtype or self.dtype, requires_grad=requires_grad)


@method("new_tensor", function=False)
@placed
def new_tensor(self: Tensor, data: Any, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """A copy of `data` with this dtype."""
    return tensor(data, dtype=dtype or self.dtype, requires_grad=requires_grad)


# --------------------------------------------------------------------- ranges


@placed
def arange(*args: Any, dtype: DType | None = None, requires_grad: bool = False, **named: Any) -> Tensor:
    """start, start + step, ... below `end` (arange(end), arange(start, end), arange(start, end, step))."""
    values = list(args)
    if "end" in named:
        values = [named.get("start", values[0] if values else 0), named["end"]]
    if "step" in named:
        values = [*([0, *values] if len(values) == 1 else values[:2]), named["step"]]
    start, end, step = (0, values[0], 1) if len(values) == 1 else (*values, 1)[:3]
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if step == 0:
        raise fail(RuntimeError, "step must be nonzero")
    for v in (start, end):
        if not math.isfinite(v):
            raise fail(RuntimeError, f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise fail(RuntimeError, "upper bound and lower bound inconsistent with step sign")
    whole = all(isinstance(v, int) for v in (start, end, step))
    dtype = dtype or (int64 if whole else get_default_dtype())
    if dtype is int64:
        start, end, step = int(start), int(end), int(step)
    count = math.ceil((end - start) / step)
    if not dtype.is_float:
        start, step = int(start), int(step)
    steps = np.arange(count, dtype=np.float64 if dtype.is_float else np.int64)
    return constant_array((start + step * steps).astype(dtype.numpy), requires_grad)


@placed
def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` evenly spaced values from `start` to `end`, both included."""
    if isinstance(steps, float):
        raise fail(TypeError, f"linspace(): argument 'steps' must be int, not {type(steps).__name__}")
    if steps < 0:
        raise fail(RuntimeError, "number of steps must be non-negative")
    dtype = dtype or get_default_dtype()
    start, end = (v.item() if isinstance(v, Tensor) else v for v in (start, end))
    kind = dtype.numpy if dtype.is_float else np.dtype(np.float64)
    first, last = (np.asarray(v).astype(dtype.numpy).astype(kind) for v in (start, end))
    step = (last - first) / np.asarray(max(steps - 1, 1), kind)
    i = np.arange(steps, dtype=np.int64)
    values = np.where(
        i < max(steps // 2, 1), first + step * i, last - step * (steps - 1 - i)
    )  # from both ends
    return constant_array(values.astype(dtype.numpy), requires_grad)


@placed
def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """base ** linspace(start, end, steps)."""
    if steps < 0:
        raise fail(RuntimeError, "number of steps must be non-negative")
    dtype = dtype or get_default_dtype()
    start, end, base = (v.item() if isinstance(v, Tensor) else v for v in (start, end, base))
    if not dtype.is_float:
        start, end = int(start), int(end)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.power(float(base), np.linspace(start, end, steps, dtype=np.float64))
        return constant_array(values.astype(dtype.numpy), requires_grad)


@placed
def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones on the main diagonal, zeros elsewhere."""
    for name, extent in (("n", n), ("m", n if m is None else m)):
        if extent < 0:
            raise fail(RuntimeError, f"{name} must be greater or equal to 0, got {extent}")
    return constant_array(
        np.eye(n, n if m is None else m, dtype=(dtype or get_default_dtype()).numpy), requires_grad
    )


@method(only_function=True)
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of vectors."""
    found = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)
    swap = indexing == "xy" and len(found) >= 2
    if indexing not in ("ij", "xy"):
        raise fail(
            RuntimeError, f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}'
        )
    if swap:
        found[0], found[1] = found[1], found[0]
    shape = tuple(t.shape[0] if t.ndim else 1 for t in found)
    grids = [
        t.reshape([-1 if i == k else 1 for i in range(len(found))]).expand(shape) for k, t in enumerate(found)
    ]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def _made(dtype: DType, data: tuple[Any, ...]) -> Tensor:
    """A tensor of data, or of a size."""
    if len(data) == 1 and not isinstance(data[0], int):
        return tensor(data[0], dtype=dtype)
    return zeros(*data, dtype=dtype)


def _construct(cls: type[Tensor], *data: Any) -> Tensor:
    """`Tensor(data)` or `Tensor(2, 3)`: of the default dtype."""
    if cls is not Tensor:
        return object.__new__(cls)
    return _made(get_default_dtype(), data) if data else zeros(0)


attach(__new__=staticmethod(_construct))


class _OfDtype(type):
    """The class of PyTorch's classes by dtype: its instances are all tensors of `dtype`, and make such."""

    dtype: DType

    def __call__(cls, *data: Any) -> Tensor:
        return _made(cls.dtype, data)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype


def _class(name: str, dtype: DType) -> _OfDtype:
    fields = {
        "dtype": dtype,
        "__module__": "graphc",
        "__doc__": f"A {dtype.name} tensor of data, or of a size.",
    }
    return _OfDtype(name, (), fields)


FloatTensor, DoubleTensor = _class("FloatTensor", float32), _class("DoubleTensor", float64)
LongTensor, IntTensor = _class("LongTensor", int64), _class("IntTensor", int32)
ByteTensor, BoolTensor = _class("ByteTensor", uint8), _class("BoolTensor", bool_)
