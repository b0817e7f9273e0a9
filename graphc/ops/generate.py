"""iota: positions as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import DType, Shape, TensorType, bool_, float32, int32, int64, uint32
from graphc.loop.ir import cast
from graphc.ops.op import fail, register
from graphc.ops.sample import ErrorSample, Sample


@dataclass(frozen=True, eq=False)
class IotaAttrs(Attrs):
    shape: Shape
    axis: int
    dtype: DType


def _infer_iota(types: Sequence[TensorType], attrs: IotaAttrs) -> TensorType:
    if not 0 <= attrs.axis < len(attrs.shape):
        raise fail("iota", f"axis {attrs.axis} is not a dim of shape {attrs.shape}")
    if attrs.dtype is bool_:
        raise fail("iota", "positions are numbers, not bools", error=TypeError)
    return TensorType(attrs.shape, attrs.dtype)


def _evaluate_iota(arrays: Sequence[np.ndarray], attrs: IotaAttrs) -> np.ndarray:
    extents = [1] * len(attrs.shape)
    extents[attrs.axis] = attrs.shape[attrs.axis]
    line = np.arange(attrs.shape[attrs.axis], dtype=attrs.dtype.numpy)
    return np.broadcast_to(line.reshape(extents), attrs.shape)


def _iota_samples() -> Iterable[Sample | ErrorSample]:
    for dtype in (int64, int32, float32, uint32):
        yield Sample(lambda t=dtype: iota((3, 4, 5), 1, t), dtypes=(dtype,), gradient=False)
    yield Sample(lambda: iota((7,), 0, int64), dtypes=(int64,), gradient=False, expect=lambda: np.arange(7))
    yield ErrorSample(lambda: iota((2,), 1, int64), ValueError, "iota: axis 1 is not a dim of shape (2,)")
    yield ErrorSample(lambda: iota((2,), 0, bool_), TypeError, "iota: positions are numbers")


IOTA = register(
    "iota",
    Kind.GENERATE,
    infer=_infer_iota,
    evaluate=_evaluate_iota,
    lower=lambda node, index, reads: cast(index[node.attrs.axis], node.type.dtype),
    attrs=IotaAttrs,
    samples=_iota_samples,
)


def iota(shape: Shape, axis: int, dtype: DType = int64) -> Node:
    """Each element is its own position along `axis`."""
    return make(IOTA, (), IotaAttrs(shape, axis, dtype))
