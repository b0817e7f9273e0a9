"""PyTorch's dtype promotion: dimensioned tensors outrank 0-d tensors, which outrank Python numbers."""

from __future__ import annotations

from graphc.frontend.errors import fail
from graphc.ir.types import DType, bool_, float32, float64, int32, int64, uint8

Number = int | float | bool
_default = [float32]

_CATEGORY = {bool_: 0, uint8: 1, int32: 1, int64: 1, float32: 2, float64: 2}
_RANK = {bool_: 0, uint8: 1, int32: 2, int64: 3, float32: 4, float64: 5}


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats."""
    return _default[0]


def set_default_dtype(dtype: DType) -> None:
    """Make `dtype` (float32 or float64) the one of tensors made from Python floats."""
    if not dtype.is_float:
        raise fail(TypeError, f"only floating-point types are supported as the default type, got {dtype!r}")
    _default[0] = dtype


def promote_types(a: DType, b: DType) -> DType:
    """The dtype of a binary operation on two tensors with dimensions."""
    return a if _RANK[a] >= _RANK[b] else b


def number_dtype(value: Number) -> DType:
    """The dtype a Python number has by itself."""
    if isinstance(value, bool):
        return bool_
    return int64 if isinstance(value, int) else _default[0]


def _merge(high: DType | None, low: DType | None) -> DType | None:
    """Combine two priorities: the lower one counts only if its category is higher."""
    if high is None or low is None:
        return high or low
    return high if _CATEGORY[high] >= _CATEGORY[low] else promote_types(high, low)


class Promotion:
    """Collects operands, then gives the result dtype."""

    __slots__ = ("dims", "numbers", "zeros")

    def __init__(self) -> None:
        self.dims: DType | None = None
        self.zeros: DType | None = None
        self.numbers: DType | None = None

    def tensor(self, dtype: DType, rank: int) -> None:
        if rank:
            self.dims = dtype if self.dims is None else promote_types(self.dims, dtype)
        else:
            self.zeros = dtype if self.zeros is None else promote_types(self.zeros, dtype)

    def number(self, dtype: DType) -> None:
        self.numbers = dtype if self.numbers is None else promote_types(self.numbers, dtype)

    def result(self) -> DType:
        found = _merge(_merge(self.dims, self.zeros), self.numbers)
        assert found is not None
        return found


def can_cast(source: DType, target: DType) -> bool:
    """Whether an in-place operation may store a result of dtype `source` in a tensor of `target`."""
    if source is target:
        return True
    return _CATEGORY[source] <= _CATEGORY[target]
