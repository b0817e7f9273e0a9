"""Padding layers. `functional.pad` says what they compute."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.frontend.errors import fail
from graphc.frontend.tensor import Tensor
from graphc.nn import functional as F
from graphc.nn.module import Module

Ints = int | Sequence[int]


class _PadNd(Module):
    """Pads the last `_rank` dims; an int pads all sides alike."""

    _rank: int
    _mode: str
    padding: Ints

    def __init__(self, padding: Ints) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self._rank) if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        if self._mode == "circular" and input.ndim not in (self._rank + 1, self._rank + 2):
            wanted = f"{self._rank + 1}D or {self._rank + 2}D"
            raise fail(ValueError, f"expected {wanted} input (got {input.ndim}D input)")
        return F.pad(input, self.padding, self._mode)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    _mode = "constant"
    value: float

    def __init__(self, padding: Ints, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Pads [N, C, L] with a value."""

    _rank = 1


class ZeroPad1d(ConstantPad1d):
    """Pads [N, C, L] with zeros."""

    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad2d(_ConstantPadNd):
    """Pads [N, C, H, W] with a value."""

    _rank = 2


class ZeroPad2d(ConstantPad2d):
    """Pads [N, C, H, W] with zeros."""

    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad3d(_ConstantPadNd):
    """Pads [N, C, D, H, W] with a value."""

    _rank = 3


class ZeroPad3d(ConstantPad3d):
    """Pads [N, C, D, H, W] with zeros."""

    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ReflectionPad1d(_PadNd):
    """Pads [N, C, L] with its mirror image."""

    _rank = 1
    _mode = "reflect"


class ReflectionPad2d(_PadNd):
    """Pads [N, C, H, W] with its mirror image."""

    _rank = 2
    _mode = "reflect"


class ReflectionPad3d(_PadNd):
    """Pads [N, C, D, H, W] with its mirror image."""

    _rank = 3
    _mode = "reflect"


class ReplicationPad1d(_PadNd):
    """Pads [N, C, L] with its edges."""

    _rank = 1
    _mode = "replicate"


class ReplicationPad2d(_PadNd):
    """Pads [N, C, H, W] with its edges."""

    _rank = 2
    _mode = "replicate"


class ReplicationPad3d(_PadNd):
    """Pads [N, C, D, H, W] with its edges."""

    _rank = 3
    _mode = "replicate"


class CircularPad1d(_PadNd):
    """Pads [N, C, L] with its other end."""

    _rank = 1
    _mode = "circular"


class CircularPad2d(_PadNd):
    """Pads [N, C, H, W] with its other end."""

    _rank = 2
    _mode = "circular"


class CircularPad3d(_PadNd):
    """Pads [N, C, D, H, W] with its other end."""

    _rank = 3
    _mode = "circular"
