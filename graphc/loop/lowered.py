"""What lowering a group gives: calls of kernels on values and temporaries."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.loop.ir import Kernel


@dataclass(frozen=True, eq=False)
class Temp:
    """Memory that lives only between the kernels of one group (packed operands, partial sums)."""

    name: str
    type: TensorType


@dataclass(frozen=True, eq=False)
class KernelCall:
    """A kernel and, for each of its params, the value or temporary it works on.

    `writes` are the positions of params that the kernel writes.
    """

    kernel: Kernel
    args: tuple[Node | Temp, ...]
    writes: tuple[int, ...]
