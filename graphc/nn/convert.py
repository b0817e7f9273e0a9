"""Changing the dtype of a tree of modules: `to`, `float`, `double`, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.functions.convert import check_device
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.ir.types import BY_NAME, DType, float32, float64

C = TypeVar("C", bound="Conversion")


def _parse_to(args: tuple, kwargs: dict[str, Any]) -> DType | None:
    """The dtype asked for by the arguments of `to`; devices other than the CPU are an error."""
    known = {"device", "dtype", "non_blocking", "copy", "memory_format", "tensor", "other"}
    for name in kwargs:
        if name not in known:
            raise TypeError(f"to() got an unexpected keyword argument '{name}'")
    dtype = None
    for value in (*args, *(kwargs.get(k) for k in ("device", "dtype", "tensor", "other"))):
        if isinstance(value, DType):
            dtype = value
        elif isinstance(value, Tensor):
            dtype = value.dtype
        elif value is not None and not isinstance(value, bool):
            check_device(value)
    if dtype is not None and not dtype.is_float:
        raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}")
    return dtype


class Conversion:
    """The methods of `Module` that replace the values of parameters and buffers."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]

    def _apply(self: C, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> C:
        """Replace every parameter's data, its gradient, and every buffer by `fn` of it."""
        if recurse:
            for child in self.children():  # type: ignore[attr-defined]
                child._apply(fn)
        for parameter in self._parameters.values():
            if parameter is None:
                continue
            with no_grad():
                parameter.data = fn(parameter.data)
                if parameter.grad is not None:
                    needs_grad = parameter.grad.requires_grad
                    parameter.grad = fn(parameter.grad).requires_grad_(needs_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self: C, *args: Any, **kwargs: Any) -> C:
        """`to(dtype)`, `to(device)`, `to(tensor)`, `to(memory_format=...)`: in place; returns self.

        Only floating-point parameters and buffers change dtype. The one device is "cpu"; memory formats are
        accepted and without effect, since the compiler chooses layouts.
        """
        dtype = _parse_to(args, kwargs)
        return self if dtype is None else self._cast(dtype)

    def _cast(self: C, dtype: DType) -> C:
        return self._apply(lambda t: t.to(dtype) if t.dtype.is_float else t)

    def type(self: C, dst_type: DType | str) -> C:
        """Cast all parameters and buffers, whatever they are, to `dst_type`."""
        dtype = BY_NAME.get(dst_type.rpartition(".")[2]) if isinstance(dst_type, str) else dst_type
        if not isinstance(dtype, DType):
            raise TypeError(f"type() expects a graphc dtype, got {dst_type!r}")
        return self._apply(lambda t: t.to(dtype))

    def float(self: C) -> C:
        """Cast floating-point parameters and buffers to float32."""
        return self._cast(float32)

    def double(self: C) -> C:
        """Cast floating-point parameters and buffers to float64."""
        return self._cast(float64)

    def cpu(self: C) -> C:
        """Does nothing: everything is on the CPU."""
        return self

    def cuda(self: C, device: Any = None) -> C:
        """RuntimeError: graphc computes on the CPU."""
        raise fail(RuntimeError, "graphc computes on the CPU only: there is no CUDA device")

    def share_memory(self: C) -> C:
        """Does nothing: threads share all memory."""
        return self
