"""Between torch's values and ours, and the comparison of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import graphc

from .databases import torch

DTYPES: dict[Any, graphc.dtype] = {
    torch.float32: graphc.float32,
    torch.float64: graphc.float64,
    torch.int64: graphc.int64,
    torch.int32: graphc.int32,
    torch.uint8: graphc.uint8,
    torch.bool: graphc.bool,
}
FORMATS = (torch.contiguous_format, torch.preserve_format)
# (relative, absolute): what two orders of the same sums may differ by on the numbers that make_tensor draws.
TOLERANCE = {"float32": (1e-4, 2e-5), "float64": (1e-7, 1e-8)}

LOOSE = (2e-3, 2e-3)


class Outside(Exception):
    """The sample uses something that is not in the contract (a dtype, a layout, a memory format)."""


def rebuild(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """`value` with `leaf` applied to all that is no list, tuple or dict (named tuples stay what they are)."""
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (list, tuple)):
        made = [rebuild(v, leaf) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    if isinstance(value, dict):
        return {k: rebuild(v, leaf) for k, v in value.items()}
    return leaf(value)


def leaves(value: Any) -> Iterator[Any]:
    """What is in nested lists, tuples and dicts, in order."""
    if isinstance(value, (list, tuple)):
        for v in value:
            yield from leaves(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from leaves(v)
    else:
        yield value


def to_graphc(value: Any) -> Any:
    """A torch value as ours; Outside if the contract has no such thing."""
    if isinstance(value, torch.Tensor):
        if value.dtype not in DTYPES or value.layout is not torch.strided or value.is_quantized:
            raise Outside(f"{value.dtype} {value.layout}")
        if value.ndim > 64:
            raise Outside("more dims than an array can have")
        array = value.detach().resolve_conj().resolve_neg().numpy().copy()
        made = graphc.from_numpy(array) if array.ndim else graphc.tensor(array[()], dtype=DTYPES[value.dtype])
        return made.requires_grad_(value.requires_grad) if value.requires_grad else made
    if isinstance(value, torch.dtype):
        if value not in DTYPES:
            raise Outside(str(value))
        return DTYPES[value]
    if isinstance(value, torch.memory_format):
        if value not in FORMATS:
            raise Outside(str(value))
        return graphc.preserve_format if value is torch.preserve_format else graphc.contiguous_format
    if isinstance(value, torch.layout):
        if value is not torch.strided:
            raise Outside(str(value))
        return graphc.strided
    if isinstance(value, torch.device):
        if value.type != "cpu":
            raise Outside(str(value))
        return graphc.device("cpu")
    if isinstance(value, complex):
        raise Outside("complex")
    if isinstance(value, torch.nn.Module):
        return getattr(graphc.nn, type(value).__name__)()
    if callable(value) and getattr(value, "__module__", "").startswith("torch"):
        if not hasattr(graphc.nn.functional, getattr(value, "__name__", "")):
            raise Outside(f"torch's own function {value}")
        return getattr(graphc.nn.functional, value.__name__)
    return value


def fresh(value: Any) -> Any:
    """A torch value whose tensors are leaves of their own."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    return value


def difference(ours: Any, theirs: Any, exact: bool = True, loose: bool = False) -> str | None:
    """How two results differ, or None. With exact=False (random values) only shapes and dtypes count."""
    if isinstance(theirs, torch.Tensor):
        return _tensors(ours, theirs, exact, loose)
    if isinstance(theirs, (list, tuple)):
        if not isinstance(ours, (list, tuple)) or len(ours) != len(theirs):
            return f"{_short(ours)} instead of {len(theirs)} values"
        found = [difference(a, b, exact, loose) for a, b in zip(ours, theirs, strict=True)]
        return next((f"[{i}]: {d}" for i, d in enumerate(found) if d), None)
    if isinstance(theirs, torch.dtype):
        return None if ours is DTYPES.get(theirs) else f"{ours} instead of {theirs}"
    if isinstance(theirs, float) and isinstance(ours, float):
        same = np.isclose(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)
        return None if same or not exact else f"{ours} instead of {theirs}"
    if not exact:
        return None if type(ours) is type(theirs) else f"{type(ours)} instead of {type(theirs)}"
    return None if type(ours) is type(theirs) and ours == theirs else f"{ours!r} instead of {theirs!r}"


def _tensors(ours: Any, theirs: Any, exact: bool, loose: bool) -> str | None:
    if not isinstance(ours, graphc.Tensor):
        return f"{_short(ours)} instead of a tensor"
    if tuple(ours.shape) != tuple(theirs.shape):
        return f"shape {list(ours.shape)} instead of {list(theirs.shape)}"
    if DTYPES.get(theirs.dtype) is not ours.dtype:
        return f"{ours.dtype} instead of {theirs.dtype}"
    return close(ours.detach().numpy(), theirs.detach().contiguous().numpy(), loose) if exact else None


def close(a: np.ndarray, b: np.ndarray, loose: bool = False) -> str | None:
    """How two arrays of one shape and dtype differ."""
    if b.dtype.kind != "f":
        bad = a != b
    else:
        rtol, atol = LOOSE if loose else TOLERANCE[b.dtype.name]
        with np.errstate(invalid="ignore"):
            bad = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if not bad.any():
        return None
    at = np.unravel_index(int(bad.argmax()), bad.shape)
    return (
        f"{int(bad.sum())} of {bad.size} values differ, first at {[int(i) for i in at]}: {a[at]} for {b[at]}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}"
