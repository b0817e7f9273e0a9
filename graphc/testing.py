"""Tensors in tests, by the rules of `torch.testing`: `assert_close` compares, `make_tensor` draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import as_tensor
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.functions.random import rand, randint
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, bool_, float32, float64

__all__ = ["assert_close", "make_tensor"]

_LIMITS: dict[DType, tuple[float, float]] = {float32: (1.3e-6, 1e-5), float64: (1e-7, 1e-7)}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """AssertionError unless abs(actual - expected) <= atol + rtol * abs(expected) everywhere.

    Tensors, arrays and numbers, also nested in sequences and mappings of equal form. By default rtol and atol
    are 1.3e-6 and 1e-5 for float32, 1e-7 for float64 and 0 for other dtypes. ValueError if just one is given;
    TypeError for what cannot be compared.
    """
    if (rtol is None) != (atol is None):
        raise fail(ValueError, "rtol and atol must both be specified or both be unspecified")
    text = _difference(actual, expected, "", rtol, atol, equal_nan, check_dtype)
    if text is not None:
        raise AssertionError(text if msg is None else msg(text) if callable(msg) else msg)


def make_tensor(
    *shape: int | Sequence[int],
    dtype: DType,
    device: Any = None,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A tensor of uniform random values in [low, high), by default [-9, 9) (integers up to 9, uint8 from 0).

    With `exclude_zero`, zeros become the smallest positive number (1 for integers). How values lie in memory
    cannot be chosen: noncontiguous and memory_format change nothing. ValueError for an empty range.
    """
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    whole = tuple(int(size) for size in sizes)  # type: ignore[arg-type]
    usual = (0, 2) if dtype is bool_ else (0 if dtype.kind == "u" else -9, 9 if dtype.is_float else 10)
    first, last = usual[0] if low is None else low, usual[1] if high is None else high
    if first >= last:
        raise fail(ValueError, f"make_tensor: `low` must be less than `high`, but got {first} and {last}")
    if dtype.is_float:
        made = rand(whole, dtype=dtype, device=device) * (last - first) + first
    else:
        made = randint(math.ceil(first), math.ceil(last), whole, device=device).to(dtype)
    if exclude_zero:
        made = made.masked_fill(made == 0, finfo(dtype).tiny if dtype.is_float else 1)
    return made.detach().requires_grad_(requires_grad)


def _difference(
    a: Any, b: Any, path: str, rtol: float | None, atol: float | None, equal_nan: bool, check_dtype: bool
) -> str | None:
    """What is wrong, or None."""
    rest = (rtol, atol, equal_nan, check_dtype)
    where = f"\n\nThe failure occurred for item {path}" if path else ""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            keys = " != ".join(str(sorted(map(str, m))) for m in (a, b))
            return f"The keys of the mappings do not match: {keys}{where}"
        return next((t for k in a if (t := _difference(a[k], b[k], f"{path}[{k!r}]", *rest))), None)
    if _is_sequence(a) and _is_sequence(b):
        if len(a) != len(b):
            return f"The length of the sequences mismatch: {len(a)} != {len(b)}{where}"
        pairs = enumerate(zip(a, b, strict=True))
        return next((t for i, (x, y) in pairs if (t := _difference(x, y, f"{path}[{i}]", *rest))), None)
    found = _of_tensors(_tensor(a), _tensor(b), isinstance(a, Tensor) and isinstance(b, Tensor), *rest)
    return None if found is None else found + where


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor | np.ndarray | np.generic | int | float | bool):
        raise fail(TypeError, f"No comparison pair was able to handle inputs of type {type(value).__name__}")
    return as_tensor(value)


def _of_tensors(
    a: Tensor,
    b: Tensor,
    both: bool,
    rtol: float | None,
    atol: float | None,
    equal_nan: bool,
    check_dtype: bool,
) -> str | None:
    if tuple(a.shape) != tuple(b.shape):
        return f"The values for attribute 'shape' do not match: {a.shape} != {b.shape}."
    if both and check_dtype and a.dtype is not b.dtype:
        return f"The values for attribute 'dtype' do not match: {a.dtype} != {b.dtype}."
    x, y = a.detach().numpy(), b.detach().numpy()
    default = [_LIMITS.get(t.dtype, (0.0, 0.0)) for t in (a, b)]
    relative = max(d[0] for d in default) if rtol is None else rtol
    absolute = max(d[1] for d in default) if atol is None else atol
    same = np.isclose(x, y, relative, absolute, equal_nan=equal_nan)
    if same.all():
        return None
    wide = np.float64 if a.dtype.is_float or b.dtype.is_float else object
    apart = np.abs(x.astype(wide) - y.astype(wide))
    worst = float(apart[~same].astype(np.float64).max())
    count = int((~same).sum())
    kind = "close" if relative or absolute else "equal"
    return (
        f"Tensor-likes are not {kind}!\n\nMismatched elements: {count} / {same.size} "
        f"({100 * count / same.size:.1f}%)\nGreatest absolute difference: {worst} (up to {absolute} allowed, "
        f"with a relative tolerance of {relative})"
    )
