"""Constants, and facts about dtypes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.frontend.errors import fail
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
newaxis = None


def is_tensor(value: Any) -> bool:
    """Whether `value` is a Tensor."""
    return isinstance(value, Tensor)


class finfo:
    """Limits of a floating-point dtype: bits, eps, max, min, tiny, smallest_normal, resolution."""

    def __init__(self, dtype: DType | None = None) -> None:
        dtype = dtype or get_default_dtype()
        if not dtype.is_float:
            raise fail(TypeError, f"finfo() requires a floating point input type, got {dtype!r}; use iinfo()")
        facts = np.finfo(dtype.numpy)
        self.dtype = dtype.name
        self.bits = facts.bits
        self.eps, self.max, self.min = float(facts.eps), float(facts.max), float(facts.min)
        self.tiny = self.smallest_normal = float(facts.tiny)
        self.resolution = float(facts.resolution)


class iinfo:
    """Limits of an integer dtype: bits, max, min."""

    def __init__(self, dtype: DType) -> None:
        if not dtype.is_integer:
            raise fail(TypeError, f"iinfo() requires an integer input type, got {dtype!r}; use finfo()")
        facts = np.iinfo(dtype.numpy)
        self.dtype = dtype.name
        self.bits, self.max, self.min = facts.bits, int(facts.max), int(facts.min)
