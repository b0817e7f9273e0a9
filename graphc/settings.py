"""Settings of PyTorch that allow less than graphc gives: it runs on CPUs, in full precision, repeatably."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.convert import Device, check_device, device

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
