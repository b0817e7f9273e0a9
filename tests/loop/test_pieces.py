"""Functions along an axis that others follow, from memory: pieces of many columns are swept in its order."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.loop.inplace import inplace_pairs, statements
from graphc.loop.ir import Accumulate, Alloc
from graphc.passes.fuse import partition
from graphc.threads import get_num_threads, set_num_threads

from . import models as m
from .running import NARROW, WIDE, calls_of, check


def _column_softmax(x: Node) -> Node:
    kept = tuple(a for a in range(x.type.rank) if a != 1)
    power = ops.exp(ops.sub(x, m.spread(ops.reduce_max(x, (1,)), x, kept)))
    return ops.div(power, m.spread(ops.reduce_sum(power, (1,)), x, kept))


def _softmax(*shape: int) -> Graph:
    x = m.leaf("x", *shape)
    return m.graph([x], [_column_softmax(x)])


@pytest.mark.parametrize("shape", [(4, 24, 64, 64), (3, 37, 5120), (1, 20, 16384)])
def test_pieces_are_swept_along_rows_of_memory(shape: tuple[int, ...]) -> None:
    graph = _softmax(*shape)
    parts = partition(graph, WIDE)
    (call,) = calls_of(parts)
    assert call.kernel.name == "pieces"
    around = [loops for s, loops in statements(call.kernel.body) if isinstance(s, Accumulate)]
    assert [loops[-1].mode for loops in around] == ["vector", "vector"]
    assert all(loops[-2].mode == "serial" for loops in around)  # the elements of a column
    scratch = sum(
        s.buffer.dtype.itemsize * int(np.prod(s.buffer.shape))
        for s, _ in statements(call.kernel.body)
        if isinstance(s, Alloc)
    )
    assert scratch <= WIDE.l2_bytes // 2
    check(graph, parts)


def test_a_result_may_take_the_operands_place() -> None:
    (call,) = calls_of(partition(_softmax(4, 24, 64, 64), WIDE))
    assert inplace_pairs(call.kernel)


@pytest.mark.parametrize("shape", [(2, 16, 40, 64), (4, 500, 32, 32), (4, 24, 61, 67), (700, 24, 40)])
def test_what_is_in_cache_or_has_short_runs_stays_in_registers(shape: tuple[int, ...]) -> None:
    graph = _softmax(*shape)
    parts = partition(graph, WIDE)
    assert all(call.kernel.name != "pieces" for call in calls_of(parts))


@pytest.mark.parametrize(("dear", "name"), [(1, "pieces"), (2, "columns")])
def test_pieces_keep_what_single_vectors_would_keep(dear: int, name: str) -> None:
    x = m.leaf("x", 8, 150, 64, 64)
    value = ops.exp(x) if dear == 1 else ops.mul(ops.exp(x), ops.tanh(x))
    beside = value if dear == 1 else ops.sub(ops.exp(x), ops.tanh(x))  # so that the product will not do
    result = ops.div(beside, m.spread(ops.reduce_sum(value, (1,)), x, (0, 2, 3)))
    (call,) = calls_of(partition(m.graph([x], [result]), WIDE))
    assert call.kernel.name == name
    kept = [s for s, _ in statements(call.kernel.body) if isinstance(s, Alloc) and len(s.buffer.shape) == 2]
    assert len(kept) == dear


def test_narrow_vectors() -> None:
    graph = _softmax(4, 24, 64, 64)
    check(graph, partition(graph, NARROW), NARROW)


def test_gradients() -> None:
    x, ct = m.leaf("x", 3, 20, 80, 64), m.leaf("ct", 3, 20, 80, 64)
    y = _column_softmax(x)
    graph = m.graph([x, ct], [y, *m.with_gradients(y, [x], ct)])
    parts = partition(graph, WIDE)
    assert "pieces" in [call.kernel.name for call in calls_of(parts)]
    check(graph, parts)


def _segmentation(threads: int, x: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    before = get_num_threads()
    try:
        set_num_threads(threads)
        scores = graphc.from_numpy(x).requires_grad_()
        loss = F.cross_entropy(scores, graphc.from_numpy(target), ignore_index=3, label_smoothing=0.1)
        loss.backward()
        assert scores.grad is not None
        return [loss.detach().numpy(), scores.grad.numpy()]
    finally:
        set_num_threads(before)


def test_cross_entropy_of_images() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 70, 64, 96)).astype(np.float32)
    target = rng.integers(0, 70, (2, 64, 96))
    found = [_segmentation(n, x, target) for n in (1, 2, 3)]
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    torch = pytest.importorskip("torch")
    scores = torch.from_numpy(x).double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        scores, torch.from_numpy(target), ignore_index=3, label_smoothing=0.1
    )
    loss.backward()
    np.testing.assert_allclose(found[0][0], loss.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(found[0][1], scores.grad.numpy(), rtol=1e-4, atol=1e-10)
