"""Where a kernel's scratch buffers lie in its thread's scratch memory."""

from __future__ import annotations

import math

from graphc.loop.ir import Alloc, Block, Buffer, For, If, Kernel

ALIGNMENT = 64


def scratch_layout(kernel: Kernel) -> tuple[dict[Buffer, int], int]:
    """Byte offset of every scratch buffer, and the total number of bytes.

    Buffers of blocks that cannot be alive together share memory.
    """
    offsets: dict[Buffer, int] = {}
    total = 0
    stack: list[tuple[Block, int]] = [(kernel.body, 0)]
    while stack:
        body, top = stack.pop()
        for stmt in body:
            if isinstance(stmt, Alloc) and stmt.buffer.space == "scratch":
                offsets[stmt.buffer] = top
                nbytes = math.prod(stmt.buffer.shape) * stmt.buffer.dtype.itemsize
                top += -(-nbytes // ALIGNMENT) * ALIGNMENT
                total = max(total, top)
            elif isinstance(stmt, For | If):
                stack.append((stmt.body, top))
    return offsets, total


def scratch_bytes(kernel: Kernel) -> int:
    """Bytes of scratch memory a kernel needs."""
    return scratch_layout(kernel)[1]
