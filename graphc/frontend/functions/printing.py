"""`repr` of tensors: PyTorch's text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.methods import attach
from graphc.frontend.modes import MODE
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bool_, int64


class _Options:
    precision = 4
    threshold: float = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}
OPTIONS = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How tensors are printed; the arguments are PyTorch's."""
    settings = dict(_PROFILES[profile]) if profile else {}
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    settings.update({k: v for k, v in given.items() if v is not None})
    for name, setting in settings.items():
        setattr(OPTIONS, name, setting)
    OPTIONS.sci_mode = sci_mode


class _Formatter:
    """One width and one notation for all elements shown."""

    def __init__(self, array: np.ndarray) -> None:
        self.floating = array.dtype.kind == "f"
        self.whole = True
        self.scientific = False
        self.width = 1
        if not self.floating:
            self.width = max([1, *[len(str(v)) for v in array.ravel().tolist()]])
            return
        found = array[np.isfinite(array) & (array != 0)].astype(np.float64)
        if found.size == 0:
            return
        size = np.abs(found)
        low, high = float(size.min()), float(size.max())
        self.whole = bool((found == np.ceil(found)).all())
        auto = high / low > 1000.0 or high > 1.0e8 or low < 1.0e-4
        self.scientific = auto if OPTIONS.sci_mode is None else OPTIONS.sci_mode
        extra = 1 if self.whole and not self.scientific else 0
        spec = (
            f".{OPTIONS.precision}e" if self.scientific else ".0f" if self.whole else f".{OPTIONS.precision}f"
        )
        self.width = max([1, *[len(format(v, spec)) + extra for v in found.tolist()]])

    def text(self, v: Any) -> str:
        """One element, padded."""
        if not self.floating:
            found = str(v)
        elif self.scientific:
            found = format(v, f"{self.width}.{OPTIONS.precision}e")
        elif self.whole:
            found = format(v, ".0f") + ("" if math.isinf(v) or math.isnan(v) else ".")
        else:
            found = format(v, f".{OPTIONS.precision}f")
        return found.rjust(self.width)


def _vector(array: np.ndarray, indent: int, summarize: bool, formatter: _Formatter) -> str:
    edge = OPTIONS.edgeitems
    per_line = max(1, (OPTIONS.linewidth - indent) // (formatter.width + 2))
    if summarize and array.shape[0] > 2 * edge:
        head = [formatter.text(v) for v in array[:edge].tolist()]
        items = [*head, " ...", *[formatter.text(v) for v in array[-edge:].tolist()]]
    else:
        items = [formatter.text(v) for v in array.tolist()]
    lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(array: np.ndarray, indent: int, summarize: bool, formatter: _Formatter) -> str:
    if array.ndim == 0:
        return formatter.text(array.item())
    if array.ndim == 1:
        return _vector(array, indent, summarize, formatter)
    edge, n = OPTIONS.edgeitems, array.shape[0]
    if summarize and n > 2 * edge:
        shown = [*range(edge), None, *range(n - edge, n)]
    else:
        shown = list(range(n))
    parts = ["..." if i is None else _nested(array[i], indent + 1, summarize, formatter) for i in shown]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements a summary shows."""
    edge = OPTIONS.edgeitems
    for axis, extent in enumerate(array.shape):
        if extent > 2 * edge:
            array = np.take(array, [*range(edge), *range(extent - edge, extent)], axis)
    return array


def contents(array: np.ndarray, indent: int) -> str:
    """The elements, as PyTorch prints them after `tensor(`."""
    if array.size == 0:
        return "[]"
    summarize = array.size > OPTIONS.threshold
    return _nested(array, indent, summarize, _Formatter(_edges(array) if summarize else array))


def _suffixed(text: str, suffixes: list[str], indent: int) -> str:
    parts = [text]
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > OPTIONS.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            length = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            length += len(suffix) + 2
    return "".join(parts) + ")"


def tensor_text(self: Tensor) -> str:
    """What `repr` gives. A traced tensor shows its type: it has no value."""
    kind = self._cell.node.type
    if MODE.trace is not None and not isinstance(self._cell.node.bound, np.ndarray):
        return f"<traced tensor {kind.dtype.name}{list(kind.shape)}>"
    array = value(self)
    prefix = "tensor("
    suffixes = []
    if array.size == 0 and array.ndim != 1:
        suffixes.append(f"size={tuple(array.shape)}")
    if kind.dtype not in (get_default_dtype(), int64, bool_) or (array.size == 0 and kind.dtype is int64):
        suffixes.append(f"dtype={kind.dtype!r}")
    if self._cell.fn is not None:
        suffixes.append(f"grad_fn=<{self._cell.fn.name()}>")
    elif self.requires_grad:
        suffixes.append("requires_grad=True")
    return _suffixed(prefix + contents(array, len(prefix)), suffixes, len(prefix))


def _format(self: Tensor, spec: str) -> str:
    if self.ndim == 0 and spec:
        return format(value(self).item(), spec)
    if self.ndim == 0:
        return str(value(self).item())
    if spec:
        what = f"unsupported format string {spec!r} passed to Tensor.__format__"
        raise fail(TypeError, f"{what}: {describe(self)} is more than a number")
    return tensor_text(self)


attach(__repr__=tensor_text, __format__=_format)
