"""Element types and tensor types: what every value in the IR is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. There is one instance per type, so compare with `is`.

    `kind` is NumPy's letter: ``f`` float, ``i`` signed, ``u`` unsigned, ``b`` bool.
    `short` is the spelling used in printed IR (``f32``).
    """

    name: str
    kind: str
    itemsize: int
    short: str
    numpy: np.dtype = field(repr=False)

    @property
    def is_float(self) -> bool:
        """Whether numbers of this dtype have a fraction."""
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """Whether this is a dtype of whole numbers (bool is none)."""
        return self.kind in "iu"

    @property
    def is_floating_point(self) -> bool:
        """PyTorch's spelling of `is_float`."""
        return self.kind == "f"

    def __repr__(self) -> str:
        return f"graphc.{self.name}"

    def __reduce__(self) -> str:  # copy.deepcopy keeps the one instance
        return self.name

    def __copy__(self) -> DType:
        return self

    def __deepcopy__(self, memo: dict) -> DType:
        return self


def _dtype(name: str, short: str) -> DType:
    dt = np.dtype(name)
    return DType(name, dt.kind, dt.itemsize, short, dt)


float32 = _dtype("float32", "f32")
float64 = _dtype("float64", "f64")
int64 = _dtype("int64", "i64")
int32 = _dtype("int32", "i32")
uint8 = _dtype("uint8", "u8")
uint32 = _dtype("uint32", "u32")  # random bits; not part of the public tensor API
bool_ = DType("bool", "b", 1, "bool", np.dtype(np.bool_))

DTYPES = (float32, float64, int64, int32, uint8, uint32, bool_)
BY_NAME = {t.name: t for t in DTYPES}
BY_SHORT = {t.short: t for t in DTYPES}
_BY_NUMPY = {t.numpy: t for t in DTYPES}

Shape = tuple[int, ...]


def from_numpy_dtype(dtype: np.dtype | type) -> DType:
    """The DType of a NumPy dtype; TypeError when graphc has none for it."""
    try:
        return _BY_NUMPY[np.dtype(dtype)]
    except KeyError:
        supported = ", ".join(t.name for t in DTYPES if t is not uint32)
        raise TypeError(f"no graphc dtype for NumPy {np.dtype(dtype)} (supported: {supported})") from None


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type of a value. Shapes are static tuples of ints."""

    shape: Shape
    dtype: DType

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"


def row_major_strides(shape: Shape) -> Shape:
    """Strides, in elements, of a dense row-major array of this shape."""
    strides = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))
