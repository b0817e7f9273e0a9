"""Errors of the front end: PyTorch's text first, then where the mistake was made."""

from __future__ import annotations

from typing import TypeVar

from graphc.frontend.sites import current_site
from graphc.ir.types import DType

E = TypeVar("E", bound=Exception)


class TracerError(RuntimeError):
    """A traced tensor was used in a way that needs its value."""


def here() -> str:
    """`file:line in Module.path` of the user line being run, or an empty string."""
    site = current_site()
    return "" if site is None else str(site)


def fail(error: type[E], message: str) -> E:
    """An exception whose text ends with the user's file, line and module path."""
    place = here()
    return error(f"{message}\n  at {place}" if place else message)


_TITLES = {
    "float32": "Float", "float64": "Double", "int64": "Long", "int32": "Int", "uint8": "Byte", "bool": "Bool"
}  # fmt: skip


def title(dtype: DType) -> str:
    """What PyTorch's messages and tensor classes call a dtype: ``Float``, ``Long`` ..."""
    return _TITLES[dtype.name]


def describe(*tensors: object) -> str:
    """Shapes and dtypes of operands, for messages: ``float32[2, 3], int64[4]``."""
    return ", ".join(_one(t) for t in tensors)


def _one(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return f"{type(value).__name__} {value!r}"
    return f"{getattr(dtype, 'name', dtype)}{list(shape)}"
