"""Leaves: program inputs and constants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from math import copysign
from typing import Any

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import DType, Shape, TensorType, float32, from_numpy_dtype, int64
from graphc.loop.ir import Const, Expr
from graphc.ops.op import fail, register
from graphc.ops.sample import ErrorSample, Sample, Typed, mistake

Scalar = int | float | bool


@dataclass(frozen=True, eq=False)
class InputAttrs(Attrs):
    """`name` tells inputs of equal type apart: unique within a program."""

    name: str
    shape: Shape
    dtype: DType


def _infer_input(types: Sequence[TensorType], attrs: InputAttrs) -> TensorType:
    if any(extent < 0 for extent in attrs.shape):
        raise fail("input", f"negative extent in shape {attrs.shape}")
    return TensorType(attrs.shape, attrs.dtype)


def _input_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: x, [(2, 3)])
    yield ErrorSample(lambda: input_("x", TensorType((2, -1), float32)), ValueError, "input: negative extent")


INPUT = register("input", Kind.INPUT, infer=_infer_input, attrs=InputAttrs, samples=_input_samples)


def input_(name: str, type_: TensorType) -> Node:
    """A value given from outside. Equal names and types are the same node."""
    return make(INPUT, (), InputAttrs(name, type_.shape, type_.dtype))


@dataclass(frozen=True, eq=False)
class ConstantAttrs(Attrs):
    """`value` is a Python number for rank 0, else the row-major bytes of the array.

    A number is already rounded (floats) or wrapped (integers) to `dtype`.
    """

    dtype: DType
    shape: Shape
    value: Scalar | bytes

    @cached_property
    def array(self) -> np.ndarray:
        """The value as a read-only array of `shape`."""
        if isinstance(self.value, bytes):
            return np.frombuffer(self.value, self.dtype.numpy).reshape(self.shape)
        array = np.array(self.value, self.dtype.numpy)
        array.flags.writeable = False
        return array


def _infer_constant(types: Sequence[TensorType], attrs: ConstantAttrs) -> TensorType:
    type_ = TensorType(attrs.shape, attrs.dtype)
    if isinstance(attrs.value, bytes) and len(attrs.value) != type_.nbytes:
        raise fail("constant", f"{len(attrs.value)} bytes cannot fill {type_}, which has {type_.nbytes}")
    if not isinstance(attrs.value, bytes) and attrs.shape:
        raise fail("constant", f"a number has shape (), not {attrs.shape}; broadcast it")
    return type_


def _lower_constant(node: Node, index: tuple[Expr, ...], reads: Sequence) -> Expr:
    """Scalars only: an array constant is memory."""
    return Const(node.dtype, node.attrs.value)


def _constant_samples() -> Iterable[Sample | ErrorSample]:
    for value in (0.1, -0.0, float("inf"), 3):
        yield Sample(lambda x, v=value: constant(v, x.dtype), [()], gradient=False)
    yield Sample(lambda: constant(np.arange(6).reshape(2, 3), int64), dtypes=(int64,))
    bad = ConstantAttrs(float32, (2,), b"\0\0\0\0")
    yield ErrorSample(lambda: make(CONSTANT, (), bad), ValueError, "constant: 4 bytes cannot fill f32[2]")
    yield ErrorSample(
        lambda: make(CONSTANT, (), ConstantAttrs(float32, (2,), 1.0)),
        ValueError,
        "constant: a number has shape ()",
    )
    yield ErrorSample(lambda: constant("one", float32), TypeError, "constant: cannot make float32 of 'one'")


CONSTANT = register(
    "constant",
    Kind.CONSTANT,
    infer=_infer_constant,
    evaluate=lambda arrays, attrs: attrs.array,
    lower=_lower_constant,
    attrs=ConstantAttrs,
    samples=_constant_samples,
)


@lru_cache(4096, typed=True)
def _canonical(value: Scalar, dtype: DType) -> ConstantAttrs:
    """Interned attributes of a non-zero, non-NaN scalar (a dict cannot tell 0.0 from -0.0)."""
    return ConstantAttrs(dtype, (), np.asarray(value).astype(dtype.numpy).item())


@cache
def _zero(dtype: DType, negative: bool) -> ConstantAttrs:
    """The same of 0.0 and -0.0."""
    return ConstantAttrs(dtype, (), np.asarray(-0.0 if negative else 0.0).astype(dtype.numpy).item())


def constant(value: Any, dtype: DType | None = None) -> Node:
    """A constant of `dtype` (default: the value's own). Python number or array; arrays are copied.

    Raises TypeError for values that are no numbers.
    """
    if dtype is not None and isinstance(value, int | float):
        if not value:
            return make(CONSTANT, (), _zero(dtype, copysign(1.0, value) < 0))
        if value == value:
            return make(CONSTANT, (), _canonical(value, dtype))
        return make(CONSTANT, (), ConstantAttrs(dtype, (), np.asarray(value).astype(dtype.numpy).item()))
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise fail(
            "constant", f"cannot make {dtype.name if dtype else 'a tensor'} of {value!r}", error=TypeError
        )
    dtype = dtype or from_numpy_dtype(array.dtype)
    array = array.astype(dtype.numpy)
    return make(
        CONSTANT, (), ConstantAttrs(dtype, array.shape, array.tobytes() if array.ndim else array.item())
    )


def wrong(
    function: Callable[..., Node], *args: Typed | Shape, says: str, error: type[Exception] = ValueError
) -> ErrorSample:
    """An error sample: `function` of inputs of the given shapes must fail, saying `says`."""
    return mistake(input_, function, *args, says=says, error=error)
