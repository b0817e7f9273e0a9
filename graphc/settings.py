"""Settings of PyTorch that allow less than graphc gives: it runs on CPUs, in full precision, repeatably."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.convert import Device, check_device, device
from graphc.frontend.promotion import set_default_dtype
from graphc.ir.types import float32, float64

_PRECISIONS = ("highest", "high", "medium")


class _Settings:
    deterministic = False
    precision = "highest"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for the same bits in every run: graphc's programs give them anyway. TypeError unless a bool."""
    if type(mode) is not bool:
        raise fail(TypeError, f"use_deterministic_algorithms(): mode must be a bool, got {mode!r}")
    _Settings.deterministic = mode


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms` has been asked for."""
    return _Settings.deterministic


def set_float32_matmul_precision(precision: str) -> None:
    """Allow products of float32 to be less precise: graphc's are not. ValueError for an unknown precision."""
    if precision not in _PRECISIONS:
        raise fail(ValueError, f"precision must be one of {', '.join(_PRECISIONS)}, got {precision!r}")
    _Settings.precision = precision


def get_float32_matmul_precision() -> str:
    """The precision that is allowed: 'highest', 'high' or 'medium'."""
    return _Settings.precision


def set_default_device(name: Any) -> None:
    """Make new tensors on a device: the CPU, where they are anyway. RuntimeError for any other."""
    check_device(name)


def get_default_device() -> Device:
    """The CPU."""
    return device("cpu")


def set_default_tensor_type(kind: Any) -> None:
    """Make new tensors of floats of this kind: `graphc.FloatTensor` or `DoubleTensor`, or the name of one
    ("torch.FloatTensor" too). TypeError for any other."""
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))
    dtype = {"FloatTensor": float32, "DoubleTensor": float64}.get(name.rpartition(".")[2])
    if dtype is None:
        raise fail(TypeError, f"only FloatTensor and DoubleTensor can be the default tensor type, got {name}")
    set_default_dtype(dtype)


def get_num_interop_threads() -> int:
    """How many operations run at once: one, on all threads of `set_num_threads`."""
    return 1


def set_num_interop_threads(count: int) -> None:
    """Allow so many operations at once, of which one is used. RuntimeError unless it is a positive int."""
    if type(count) is not int or count < 1:
        raise fail(RuntimeError, f"set_num_interop_threads expects a positive integer, got {count!r}")
