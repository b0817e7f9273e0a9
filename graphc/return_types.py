"""What operations with several results return: tuples with names, printed as PyTorch prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor


def _text(self: tuple) -> str:
    fields = self._fields  # type: ignore[attr-defined]
    listed = ",\n".join(f"{name}={value!r}" for name, value in zip(fields, self, strict=True))
    return f"graphc.return_types.{type(self).__name__}(\n{listed})"


class ValuesIndices(NamedTuple):
    """Values along a dim, and the positions they came from."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        return _text(self)


class max(ValuesIndices):
    """The largest values along a dim, and where they are."""


class min(ValuesIndices):
    """The smallest values along a dim, and where they are."""


class sort(ValuesIndices):
    """Values in order, and the positions they came from."""


class topk(ValuesIndices):
    """The largest or smallest values, and where they are."""


class kthvalue(ValuesIndices):
    """The k-th smallest values, and where they are."""


class median(ValuesIndices):
    """Medians, and where they are."""


class nanmedian(ValuesIndices):
    """Medians of what is not NaN, and where they are."""


class mode(ValuesIndices):
    """The commonest values, and where they are."""


class cummax(ValuesIndices):
    """The largest values so far, and where they are."""


class cummin(ValuesIndices):
    """The smallest values so far, and where they are."""


class aminmax(NamedTuple):
    """The smallest and the largest values."""

    min: Tensor
    max: Tensor

    def __repr__(self) -> str:
        return _text(self)


class slogdet(NamedTuple):
    """The sign of a determinant and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor

    def __repr__(self) -> str:
        return _text(self)


class histogram(NamedTuple):
    """How many elements fall between edges (hist), and the edges."""

    hist: Tensor
    bin_edges: Tensor

    def __repr__(self) -> str:
        return _text(self)
