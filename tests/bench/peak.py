"""Measures what this machine can do: multiply-adds a second in registers, and bytes a second from memory.

Run as a program to print the figures of one thread; benchmarks call `fma_peak` and `bandwidth` in the same
run as what they measure, since both drift with the machine's clock and neighbours.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache

import numpy as np

from graphc.backends.llvm.engine import get_engine
from graphc.backends.llvm.objects import build_object
from graphc.backends.llvm.target import get_target

CHAINS = 14  # independent accumulators: enough to cover the latency of two units, few enough for 16 registers
STREAM_BYTES = 256 << 20


def fma_peak(dtype: str = "f32", seconds: float = 0.2) -> float:
    """GFLOP/s of one thread multiplying and adding in registers; the best of several short runs.

    dtype is "f32" or "f64". On targets with wide vectors both the full and the half width are tried.
    """
    target = get_target()
    itemsize = 4 if dtype == "f32" else 8
    lanes = target.machine.lanes(itemsize)
    best = 0.0
    for width in (lanes, lanes // 2):
        call = _function(f"graphc_peak_{dtype}_{width}", "fma", dtype, width)
        rounds, spent = 20_000, 0.0
        while spent < seconds / 2:
            start = time.perf_counter()
            call(0, 0, rounds)
            took = time.perf_counter() - start
            spent += took
            best = max(best, 2.0 * CHAINS * width * rounds * 4 / took)
    return best / 1e9


def bandwidth(kind: str = "copy", seconds: float = 0.5, size: int = STREAM_BYTES) -> float:
    """GB/s of one thread over `size` bytes in all; kind is "read" or "copy" (read plus written)."""
    lanes = get_target().machine.lanes(4)
    call = _function(f"graphc_peak_{kind}_{lanes}", kind, "f32", lanes)
    source, sink = _stream_arrays(size)
    best, spent = 0.0, 0.0
    moved = source.nbytes * (2 if kind == "copy" else 1)
    while not spent or spent < seconds:
        start = time.perf_counter()
        call(sink.ctypes.data, source.ctypes.data, source.size // (4 * lanes))
        took = time.perf_counter() - start
        spent += took
        best = max(best, moved / took)
    return best / 1e9


@cache
def _stream_arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    count = size // 8
    return np.ones(count, np.float32), np.ones(count, np.float32)


@cache
def _function(symbol: str, kind: str, dtype: str, width: int):
    target = get_target()
    text = {"fma": _fma_text, "read": _read_text, "copy": _copy_text}[kind](symbol, dtype, width)
    code = get_engine(target).load({symbol: build_object(text, target)})
    kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    function = ctypes.CFUNCTYPE(None, *kinds)(code.address(symbol))
    function.code = code
    return function


def _vector(dtype: str, width: int) -> tuple[str, str]:
    scalar = "float" if dtype == "f32" else "double"
    return f"<{width} x {scalar}>", f"llvm.fma.v{width}{dtype}"


def _fma_text(symbol: str, dtype: str, width: int) -> str:
    """`rounds` times four rounds over CHAINS accumulators: x = x * a + b, all in registers."""
    vector, fma = _vector(dtype, width)
    phis, body, now = [], [], [f"%x{i}.0" for i in range(CHAINS)]
    for step in range(4):
        for i in range(CHAINS):
            new = f"%x{i}.{step + 1}"
            body.append(f"  {new} = call {vector} @{fma}({vector} {now[i]}, {vector} %a, {vector} %b)")
            now[i] = new
    for i in range(CHAINS):
        phis.append(f"  %x{i}.0 = phi {vector} [ %a, %entry ], [ {now[i]}, %loop ]")
    total, sums = now[0], []
    for i in range(1, CHAINS):
        sums.append(f"  %s{i} = fadd {vector} {total}, {now[i]}")
        total = f"%s{i}"
    lines = (
        f"define void @{symbol}(ptr %c, ptr %d, i64 %rounds) {{",
        "entry:",
        f"  %place = alloca {vector}",
        f"  store volatile {vector} zeroinitializer, ptr %place",
        f"  %a = load volatile {vector}, ptr %place",
        f"  %b = load volatile {vector}, ptr %place",
        "  br label %loop",
        "loop:",
        "  %n = phi i64 [ 0, %entry ], [ %n1, %loop ]",
        *phis,
        *body,
        "  %n1 = add i64 %n, 1",
        "  %more = icmp ult i64 %n1, %rounds",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *sums,
        f"  store volatile {vector} {total}, ptr %place",
        "  ret void",
        "}",
        f"declare {vector} @{fma}({vector}, {vector}, {vector})",
    )
    return "\n".join(lines)


def _stream_text(symbol: str, dtype: str, width: int, use: str) -> str:
    """A loop over groups of four vectors of d; `use` handles each loaded vector."""
    vector, _ = _vector(dtype, width)
    lines = [f"define void @{symbol}(ptr %c, ptr %d, i64 %groups) {{", "entry:", "  br label %loop", "loop:"]
    lines.append("  %n = phi i64 [ 0, %entry ], [ %n1, %loop ]")
    if use == "read":
        lines += [f"  %s{i} = phi {vector} [ zeroinitializer, %entry ], [ %t{i}, %loop ]" for i in range(4)]
    lines.append("  %first = mul i64 %n, 4")
    for i in range(4):
        lines.append(f"  %i{i} = add i64 %first, {i}")
        lines.append(f"  %p{i} = getelementptr {vector}, ptr %d, i64 %i{i}")
        lines.append(f"  %v{i} = load {vector}, ptr %p{i}, align 4")
        if use == "read":
            lines.append(f"  %t{i} = fadd {vector} %s{i}, %v{i}")
        else:
            lines.append(f"  %q{i} = getelementptr {vector}, ptr %c, i64 %i{i}")
            lines.append(f"  store {vector} %v{i}, ptr %q{i}, align 4")
    lines += ["  %n1 = add i64 %n, 1", "  %more = icmp ult i64 %n1, %groups"]
    lines += ["  br i1 %more, label %loop, label %done", "done:"]
    if use == "read":
        lines += [f"  store {vector} %t{i}, ptr %c, align 4" for i in range(4)]
    return "\n".join([*lines, "  ret void", "}"])


def _read_text(symbol: str, dtype: str, width: int) -> str:
    return _stream_text(symbol, dtype, width, "read")


def _copy_text(symbol: str, dtype: str, width: int) -> str:
    return _stream_text(symbol, dtype, width, "copy")


def main() -> None:
    """Print the figures."""
    print(f"FMA float32  {fma_peak('f32'):7.1f} GFLOP/s, one thread")
    print(f"FMA float64  {fma_peak('f64'):7.1f} GFLOP/s, one thread")
    print(f"memory read  {bandwidth('read'):7.1f} GB/s, one thread")
    print(f"memory copy  {bandwidth('copy'):7.1f} GB/s, one thread (read + written)")


if __name__ == "__main__":
    main()
