"""Kernels that no node asks for: copies of whole values, and the test of check flags."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.types import TensorType, bool_, int64
from graphc.loop.ir import (
    Buffer,
    Check,
    Expr,
    For,
    Kernel,
    Store,
    Var,
    binary,
    index_const,
    load,
)
from graphc.loop.lowered import Arg, KernelCall

CHUNK = 1 << 14  # elements a copy task moves
LANES = 16


def copy_call(source: Arg, target: Arg) -> KernelCall:
    """A call that copies a value; chunks go to different threads."""
    return KernelCall(copy_kernel(source.type), (source, target), (1,))


def copy_kernel(type_: TensorType) -> Kernel:
    """target[i] = source[i] for dense values of `type_`, seen as one dimension."""
    size = type_.size
    tasks = max(1, -(-size // CHUNK))
    chunk = -(-size // tasks)
    tasks = max(1, -(-size // chunk)) if chunk else 1
    source, target = (Buffer(name, type_.dtype, (size,)) for name in ("source", "target"))
    task, i = Var(int64, "t", tasks), Var(int64, "i", chunk)
    extent: Expr = index_const(chunk)
    index: Expr = i
    if tasks > 1:
        start = binary("mul", task, index_const(chunk))
        index = binary("add", start, i)
        if size % chunk:
            extent = binary("min", extent, binary("sub", index_const(size), start))
    store = Store(target, (index,), load(source, (index,)))
    body = (For(i, extent, (store,), "vector", LANES),)
    return Kernel("copy", (source, target), task, tasks, body, bytes=2.0 * type_.nbytes)


def check_call(flags: Sequence[Arg]) -> KernelCall:
    """A call that puts the number (from 1) of the first false flag in the status word."""
    buffers = tuple(Buffer(f"flag{i}", bool_, ()) for i in range(len(flags)))
    checks = [Check(load(buffer, ()), i + 1) for i, buffer in enumerate(buffers)]
    kernel = Kernel("check", buffers, Var(int64, "t", 1), 1, tuple(reversed(checks)))
    return KernelCall(kernel, tuple(flags), ())
