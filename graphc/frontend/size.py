"""Size: the tuple that `Tensor.shape` is."""

from __future__ import annotations

import math


class Size(tuple):
    """A shape. Prints as PyTorch's does: ``torch.Size([2, 3])`` reads ``graphc.Size([2, 3])``."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"graphc.Size({list(self)})"

    def __getitem__(self, index):  # type: ignore[no-untyped-def,override]
        item = tuple.__getitem__(self, index)
        return Size(item) if isinstance(index, slice) else item

    def __add__(self, other: tuple) -> Size:  # type: ignore[override]
        return Size(tuple.__add__(self, tuple(other)))
