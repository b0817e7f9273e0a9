"""Rows that are runs far apart: large arrays are read in the order of memory, run by run of all rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, float32, float64, int64
from graphc.loop.verify import verify_kernel
from graphc.passes.fuse import partition
from graphc.program import Machine

from . import models as m
from .running import NARROW, WIDE, calls_of, check

SMALL = {wide: replace(wide, l2_bytes=2 << 10, l3_bytes=64 << 10) for wide in (WIDE, NARROW)}  # caches


def names_of(graph: Graph, machine: Machine) -> list[str]:
    """The kernels of a graph; they are verified and compute what NumPy does."""
    parts = partition(graph, machine)
    calls = calls_of(parts, machine)
    for call in calls:
        verify_kernel(call.kernel)
    check(graph, parts, machine)
    return [call.kernel.name for call in calls]


def centred(x: Node, axes: tuple[int, ...]) -> list[Node]:
    """(x - sum(x), sum((x - sum(x))^2)) by channels."""
    kept = tuple([a for a in range(x.type.rank) if a not in axes])
    near = ops.sub(x, m.spread(ops.reduce_sum(x, axes), x, kept))
    return [near, ops.reduce_sum(ops.mul(near, near), axes)]


@pytest.mark.parametrize("machine", SMALL)
@pytest.mark.parametrize(
    "shape,dtype", [((12, 40, 9), float32), ((5, 30, 37), float64), ((2, 3, 20, 1, 35), int64)]
)
def test_sums(shape: tuple[int, ...], dtype: DType, machine: Machine) -> None:
    """Of long arrays, in several tasks; of the same array in a large cache row by row."""
    x, y = m.leaf("x", *shape, dtype=dtype), m.leaf("y", *shape, dtype=dtype)
    axes = tuple([a for a in range(len(shape)) if a != len(shape) // 2])
    together = ops.reduce_sum(ops.mul(x, y), axes)
    graph = m.graph([x, y], [ops.add(together, ops.reduce_max(x, axes))])
    assert names_of(graph, SMALL[machine]) == ["runs", "combine"]
    assert "runs" not in names_of(graph, replace(machine, l2_bytes=8 << 20))


def test_one_task_finishes_the_rows() -> None:
    x = m.leaf("x", 5, 12, 20)
    graph = m.graph([x], [ops.neg(ops.reduce_sum(x, (0, 2)))])
    assert names_of(graph, SMALL[WIDE]) == ["runs"]


def test_sums_and_elements_of_one_sweep() -> None:
    x = m.leaf("x", 12, 9, 20)
    y = ops.mul(x, x)
    graph = m.graph([x], [y, ops.reduce_sum(y, (0, 2))])
    assert names_of(graph, SMALL[WIDE])[0] == "runs"


@pytest.mark.parametrize("other", ["row", "element", "transposed"])
def test_operands_beside(other: str) -> None:
    """A value for each row or each element of a run may be read beside; where runs lie otherwise in another
    operand, memory has no one order."""
    x = m.leaf("x", 12, 9, 20)
    shape, axes = {"row": ((9,), (1,)), "element": ((20,), (2,)), "transposed": ((20, 9, 12), None)}[other]
    y = m.leaf("y", *shape)
    wide = ops.transpose(y, (2, 1, 0)) if axes is None else ops.broadcast(y, x.shape, axes)
    graph = m.graph([x, y], [ops.reduce_sum(ops.mul(x, wide), (0, 2))])
    assert ("runs" in names_of(graph, SMALL[WIDE])) == (other != "transposed")


@pytest.mark.parametrize("shape,kernels", [
    ((60, 64, 20), ["runs", "combine", "runs", "combine"]),
    ((2, 64, 1100), ["rows"]),  # long runs
    ((26, 64, 20), ["rows"]),  # still in the last cache
])  # fmt: skip
def test_every_sweep_is_a_kernel(shape: tuple[int, ...], kernels: list[str]) -> None:
    x = m.leaf("x", *shape)
    machine = replace(SMALL[WIDE], l3_bytes=1 << 20)
    calls = calls_of(partition(m.graph([x], centred(x, (0, 2))), machine), machine)
    assert [call.kernel.name for call in calls if call.kernel.name != "points"] == kernels
