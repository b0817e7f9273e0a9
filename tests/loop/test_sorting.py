"""Argsort kernels of all three ways, against NumPy's stable order, interpreted and native."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import DType, TensorType, bool_, float32, float64, int32, int64, uint8, uint32
from graphc.loop.lower import lower_group
from graphc.loop.lower.sorting import lower_sort
from graphc.loop.lowered import KernelCall
from graphc.loop.verify import verify_kernel
from tests.loop.running import NARROW, WIDE, Memory

TYPES = (float32, float64, int64, int32, uint8, uint32, bool_)
TINY = replace(WIDE, l2_bytes=1 << 10)  # nothing fits its cache


def values(kind: DType, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Many ties, and of floats everything that is special."""
    if kind.is_float:
        some = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 1.5, -1.5]
        array = rng.standard_normal(shape).astype(kind.numpy)
        return np.where(rng.random(shape) < 0.5, rng.choice(np.array(some, kind.numpy), shape), array)
    if kind is bool_:
        return rng.random(shape) < 0.5
    limits = np.iinfo(kind.numpy)
    array = rng.integers(limits.min, limits.max, shape, kind.numpy, endpoint=True)
    return np.where(rng.random(shape) < 0.5, rng.integers(0, 5, shape).astype(kind.numpy), array)


def argsort(
    kind: DType, shape: tuple[int, ...], axis: int, descending: bool, kept: int | None = None
) -> Node:
    return ops.argsort(ops.input_("x", TensorType(shape, kind)), axis, descending, kept)


def kernels(node: Node, machine: graphc.program.Machine) -> tuple[KernelCall, ...]:
    calls = lower_sort(Group((node,), node.inputs, (node,)), machine)
    for call in calls:
        verify_kernel(call.kernel)
    return calls


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("kind", TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("machine", "shape", "axis", "name"),
    [
        (WIDE, (3, 21), 1, "sort_counted"),
        (NARROW, (17, 2), 0, "sort_counted"),
        (WIDE, (2, 301), 1, "sort_digits"),
        (TINY, (2, 310, 2), 1, "sort_begin"),
    ],
)
def test_every_way_is_a_stable_order(machine, shape, axis, name, kind, descending) -> None:
    node = argsort(kind, shape, axis, descending)
    calls = kernels(node, machine)
    assert calls[0].kernel.name == name
    array = values(kind, shape, np.random.default_rng(len(kind.name)))
    memory = Memory({node.inputs[0]: array})
    memory.run(calls, {})
    expected = node.op.evaluate([array], node.attrs)
    np.testing.assert_array_equal(memory.get(node), expected)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("kind", TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("machine", "shape", "axis", "kept", "name"),
    [
        (WIDE, (3, 21), 1, 9, "sort_counted"),
        (WIDE, (2, 301), 1, 250, "sort_digits"),
        (TINY, (2, 310, 2), 1, 250, "sort_begin"),
        (WIDE, (2, 1301), 1, 7, "sort_first"),
        (NARROW, (1205, 2), 0, 2, "sort_first"),
        (WIDE, (70_000,), 0, 20, "sort_first_begin"),
    ],
)
def test_the_first_few(machine, shape, axis, kept, name, kind, descending) -> None:
    node = argsort(kind, shape, axis, descending, kept)
    calls = kernels(node, machine)
    assert calls[0].kernel.name == name
    array = values(kind, shape, np.random.default_rng(len(kind.name)))
    memory = Memory({node.inputs[0]: array})
    memory.run(calls, {})
    np.testing.assert_array_equal(memory.get(node), node.op.evaluate([array], node.attrs))


@pytest.mark.parametrize("extreme", [np.nan, np.inf, -np.inf, 0.0])
def test_the_first_few_where_blocks_run_out(extreme: float) -> None:
    """All values of the first blocks are wanted, and they may have the key that comes last."""
    array = np.full((2, 1000), extreme, np.float32)
    array[1, 700:] = -1.0
    for descending in (False, True):
        node = argsort(float32, array.shape, 1, descending, 90)
        calls = kernels(node, WIDE)
        assert calls[0].kernel.name.startswith("sort_first")
        memory = Memory({node.inputs[0]: array})
        memory.run(calls, {})
        np.testing.assert_array_equal(memory.get(node), node.op.evaluate([array], node.attrs))


def test_blocks_of_a_long_line_keep_the_order_of_equal_elements() -> None:
    node = argsort(uint8, (50_000,), 0, False)
    calls = kernels(node, TINY)
    assert calls[0].kernel.tasks > 1
    array = values(uint8, (50_000,), np.random.default_rng(0))
    memory = Memory({node.inputs[0]: array})
    memory.run(calls, {})
    np.testing.assert_array_equal(memory.get(node), np.argsort(array, kind="stable"))


@pytest.mark.parametrize("machine", [WIDE, TINY], ids=["digits", "blocks"])
@pytest.mark.parametrize("span", [1, 5, 1000])
def test_digits_that_are_all_the_same_are_passed_over(span: int, machine: graphc.program.Machine) -> None:
    """Also in a line of one value; the other line of the batch takes the passes that it needs."""
    node = argsort(int64, (2, 900), 1, True)
    array = np.random.default_rng(span).integers(-(span // 2), span, (2, 900)) * 1000
    array[1, :] = 7
    memory = Memory({node.inputs[0]: array})
    memory.run(kernels(node, machine), {})
    np.testing.assert_array_equal(memory.get(node), node.op.evaluate([array], node.attrs))


def test_passes_of_one_line_share_their_kernels() -> None:
    calls = kernels(argsort(float64, (1 << 20,), 0, False), WIDE)
    assert len(calls) == 2 + 3 * 8
    assert len({call.kernel for call in calls}) == 5


def test_the_way_is_chosen_by_the_length_of_lines() -> None:
    def way(extent: int) -> str:
        node = argsort(float32, (4, extent), 1, False)
        return lower_group(Group((node,), node.inputs, (node,)), WIDE)[0].kernel.name

    assert [way(n) for n in (1, 64, 1000, 1 << 18)] == [
        "sort_counted",
        "sort_counted",
        "sort_digits",
        "sort_begin",
    ]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(37, 33), (9, 1000), (2, 100_000)])
def test_native_order_with_any_number_of_threads(threads: int, shape: tuple[int, int]) -> None:
    array = values(float32, shape, np.random.default_rng(7))
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        for axis in (0, 1):
            found = graphc.compile(lambda x, axis=axis: x.sort(axis))(graphc.from_numpy(array))
            expected = np.argsort(array, axis, kind="stable")
            np.testing.assert_array_equal(found.indices.numpy(), expected)
            np.testing.assert_array_equal(
                found.values.numpy(), np.take_along_axis(array, expected, axis), strict=True
            )
            kept = min(7, array.shape[axis])
            few = graphc.compile(lambda x, axis=axis, kept=kept: x.topk(kept, axis, largest=False))
            found = few(graphc.from_numpy(array)).indices.numpy()
            np.testing.assert_array_equal(found, np.take(expected, range(kept), axis))
    finally:
        graphc.set_num_threads(before)
