"""PyTorch's names of layouts and memory formats.

Values have no strides here: where elements lie is the compiler's choice. So every format is accepted
and none has an effect, as the README's table of differences says.
"""

from __future__ import annotations


class _Named:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"graphc.{self.name}"


class memory_format(_Named):
    """How PyTorch would order the dimensions in memory; accepted, without effect."""

    __slots__ = ()


class layout(_Named):
    """The kind of storage of a tensor: `graphc.strided` is the only one."""

    __slots__ = ()


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")
strided = layout("strided")
