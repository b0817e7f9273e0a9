"""Groups that reduce along rows and across them: taken where they should be, values, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphc as gc
from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, float32, float64
from graphc.loop.lower.reductions.crossing import across_rows
from graphc.loop.verify import verify_kernel
from graphc.passes.fuse import partition
from graphc.threads import get_num_threads, set_num_threads

from . import models as m
from .running import NARROW, WIDE, calls_of, check


def total(x: Node, axes: tuple[int, ...]) -> Node:
    return ops.reduce_sum(x, axes)


def spread(v: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """A value of each row, or of each column, at every element of `x`."""
    return ops.broadcast(v, x.shape, axes)


def both(rows: int, elements: int, dtype: DType = float32) -> Graph:
    """x less its mean over each row, and two sums across the rows: of that and of y."""
    x, y = m.leaf("x", rows, elements, dtype=dtype), m.leaf("y", rows, elements, dtype=dtype)
    centred = ops.sub(x, spread(m.scale(total(x, (1,)), 1 / elements), x, (0,)))
    product = ops.mul(centred, y)
    return m.graph([x, y], [product, total(product, (0,)), m.scale(total(y, (0,)), 2.0)])


def folded(*shape: int) -> Graph:
    """The same for rows in several axes, of elements in several."""
    x, y = m.leaf("x", *shape), m.leaf("y", *shape)
    scaled = ops.mul(y, spread(ops.rsqrt(total(ops.mul(x, x), (2, 3))), x, (0, 1)))
    return m.graph([x, y], [scaled, total(ops.mul(scaled, x), (0, 1))])


def only_across(rows: int, elements: int) -> Graph:
    x = m.leaf("x", rows, elements)
    return m.graph([x], [total(x, (0,)), total(ops.mul(x, x), (0,))])


def unrelated(rows: int, elements: int) -> Graph:
    x, y = m.leaf("x", rows, elements), m.leaf("y", rows, elements)
    return m.graph([x, y], [total(x, (1,)), total(y, (0,))])


def feeding(rows: int, elements: int) -> Graph:
    """The sums across the rows are needed by the rows: two passes."""
    x = m.leaf("x", rows, elements)
    centred = ops.sub(x, spread(m.scale(total(x, (0,)), 1 / rows), x, (1,)))
    return m.graph([x], [total(centred, (1,))])


def added(n: int) -> Graph:
    """Row i and column i added up: only what comes after the sums of columns needs those of rows."""
    x, y = m.leaf("x", n, n), m.leaf("y", n)
    turned = ops.mul(x, spread(y, x, (0,)))
    return m.graph([x, y], [ops.add(total(ops.mul(x, spread(y, x, (1,))), (1,)), total(turned, (0,)))])


NESTS: dict[str, tuple[Callable[[], Graph], bool]] = {
    "both": (lambda: both(64, 100), True),
    "one task": (lambda: both(16, 8), True),
    "rows that do not divide": (lambda: both(67, 33), True),
    "doubles": (lambda: both(64, 50, float64), True),
    "several axes": (lambda: folded(4, 12, 5, 7), True),
    "sums of rows for those of columns": (lambda: added(64), True),
    "few rows": (lambda: both(8, 300), False),
    "only across": (lambda: only_across(40, 150), False),
    "unrelated": (lambda: unrelated(40, 150), False),
    "sums that rows need": (lambda: feeding(40, 150), False),
}


@pytest.mark.parametrize("name", NESTS)
def test_nest(name: str) -> None:
    build, crosses = NESTS[name]
    graph = build()
    parts = partition(graph, WIDE)
    calls = calls_of(parts)
    names = [c.kernel.name for c in calls]
    assert names == ["crossing", "combine"] if crosses else "crossing" not in names
    for call in calls:
        verify_kernel(call.kernel)
    check(graph, parts)
    check(graph, partition(graph, NARROW), NARROW)


def rules(*nodes: Node) -> dict:
    return {n: n.op.lower(n) for n in nodes}  # type: ignore[misc]


def test_across_rows() -> None:
    x, cube, other = m.leaf("x", 6, 4), m.leaf("c", 2, 3, 4), m.leaf("o", 6, 5)
    along, across = total(x, (1,)), total(x, (0,))
    assert across_rows(rules(along, across)) == (across,)
    assert across_rows(rules(total(cube, (2,)), across)) == (across,)  # as many rows of as many elements
    assert across_rows(rules(along)) == across_rows(rules(across)) == ()
    assert across_rows(rules(along, total(other, (0,)))) == ()
    assert across_rows(rules(total(cube, (1,)), total(cube, (0, 2)))) == ()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def norm_step(T, dtype: np.dtype, shape: tuple[int, ...], rms: bool, wrap: Callable) -> list[np.ndarray]:
    """The gradients of a norm over the last dim and its weight after a step of descent."""
    rng = np.random.default_rng(3)
    x, up = [T.from_numpy(rng.standard_normal(shape).astype(dtype)) for _ in range(2)]
    w, b = [T.from_numpy(rng.standard_normal(shape[-1]).astype(dtype)) for _ in range(2)]

    def step(x, w, b, up):
        F = T.nn.functional
        y = F.rms_norm(x, (shape[-1],), w) if rms else F.layer_norm(x, (shape[-1],), w, b)
        leaves = [x, w] if rms else [x, w, b]
        grads = T.autograd.grad(y, leaves, up)
        return (*grads, w.detach() - 0.1 * grads[1])

    found = wrap(step)(*[t.requires_grad_() for t in (x, w, b)], up)
    return [t.detach().numpy() for t in found]


@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("shape", [(64, 768), (37, 50), (3, 16, 33), (200, 7)], ids=str)
def test_norms_beside_torch(shape: tuple[int, ...], dtype: np.dtype, rms: bool) -> None:
    torch = pytest.importorskip("torch")
    own = norm_step(gc, dtype, shape, rms, gc.compile)
    other = norm_step(torch, dtype, shape, rms, lambda f: f)
    scale = 2e-5 if dtype is np.float32 else 1e-12
    for a, b in zip(own, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=scale, atol=20 * scale)


def test_bits_do_not_depend_on_threads(threads: Callable[[int], None]) -> None:
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(norm_step(gc, np.float32, (1500, 96), False, gc.compile))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
