"""Stores past the caches: which results get them, right values wherever memory begins, fences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.emit_stream import streamed_params
from graphc.backends.llvm.target import Target
from graphc.loop.ir import Kernel
from graphc.loop.parser import parse_kernel

from .jit import NATIVE, TARGETS, Compiled, assembly

ROWS, WIDTH = 8, 96


def small_cache(target: Target) -> Target:
    """A target on which results of 2 KB are large."""
    return replace(target, machine=replace(target.machine, l3_bytes=4096))


def points(width: int = WIDTH, offset: int = 0, lanes: int = 16, rows: int = ROWS) -> Kernel:
    """y = -x, row by row, a row a task."""
    size = rows * width + offset
    return parse_kernel(
        f"kernel points(p0: f32[{size}], p1: f32[{size}]) tasks t < {rows}:\n"
        f"  for i < {width} vector {lanes}:\n"
        f"    x = p0[((t * {width}) + i)]\n"
        f"    p1[(((t * {width}) + i) + {offset})] = neg(x)\n"
    )


def turned(size: int) -> Kernel:
    """The transpose of a square."""
    return parse_kernel(
        f"kernel turned(p0: f32[{size * size}], p1: f32[{size * size}]) tasks t < 1:\n"
        f"  for i < {size}:\n"
        f"    for j < {size} vector 16:\n"
        f"      x = p0[((j * {size}) + i)]\n"
        f"      p1[((i * {size}) + j)] = x\n"
    )


def streams(kernel: Kernel, target: Target = NATIVE) -> bool:
    return "!nontemporal" in emit_kernel(kernel, small_cache(target))


def test_which_results() -> None:
    assert streams(points())
    assert not streams(points(rows=2))  # small
    assert not streams(points(offset=3))  # no vector on a line
    assert not streams(points(width=50))  # rows begin anywhere
    assert streams(points(width=80, lanes=32))  # the last group of a row is half as wide
    assert "!nontemporal" not in emit_kernel(points(), NATIVE)


@pytest.mark.parametrize(
    "body",
    ["p1[(t * 512)] add= x", "y = p1[0]\n    p1[((t * 512) + i)] = add(x, y)"],
    ids=["accumulated", "read"],
)
def test_results_that_are_read_stay_in_cache(body: str) -> None:
    kernel = parse_kernel(
        "kernel k(p0: f32[1024], p1: f32[1024]) tasks t < 2:\n"
        "  for i < 512 vector 16:\n"
        "    x = p0[((t * 512) + i)]\n"
        f"    {body}\n"
    )
    assert not streamed_params(kernel, small_cache(NATIVE).machine)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name}-{t.machine.masked}")
@pytest.mark.parametrize("shift", [0, 4, 32], ids=lambda s: f"{s} bytes off a line")
@pytest.mark.parametrize(
    "kernel",
    [
        points(),
        points(width=80, lanes=32),
        points(width=72, lanes=64),
        points(width=50),
        turned(48),
        turned(40),
    ],
    ids=["points", "half groups", "rests", "odd rows", "turned", "turned, rests"],
)
def test_values(kernel: Kernel, shift: int, target: Target) -> None:
    """The same as with ordinary stores, wherever the result begins; nothing beside it is written."""
    (size,) = kernel.params[1].shape
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    found = []
    for machine in (target, small_cache(target)):
        memory = np.full(4 * size + 256, 7, np.uint8)
        start = -memory.ctypes.data % 64 + shift
        y = memory[start : start + 4 * size].view(np.float32)
        assert Compiled(kernel, machine)(x, y) == 0
        assert (memory[:start] == 7).all()
        assert (memory[start + 4 * size :] == 7).all()
        found.append(y.copy())
    np.testing.assert_array_equal(*found)


def test_assembly() -> None:
    """Whole lines go past the caches, and a fence follows, before anybody is told."""
    text = assembly(points(), small_cache(NATIVE))
    if "avx" not in NATIVE.features:
        pytest.skip("x86 only")
    assert "vmovntps" in text
    assert "mfence" in text or "lock" in text
