"""Properties of views, for random chains of them: adjoints, and the finest split of a reshape."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.autodiff import vjp
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float64
from graphc.ops.view import reshape_groups
from tests.ops.numeric import evaluate

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def factorisation(data: st.DataObject, size: int) -> tuple[int, ...]:
    """A random shape of `size` elements."""
    shape = []
    while size > 1:
        factor = data.draw(st.sampled_from([d for d in range(2, size + 1) if size % d == 0]))
        shape.append(factor)
        size //= factor
    for _ in range(data.draw(st.integers(0, 2))):
        shape.insert(data.draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


def step(data: st.DataObject, x: Node) -> Node:
    """A random view of x that is linear in its elements."""
    shape, rank = x.shape, len(x.shape)
    kind = data.draw(
        st.sampled_from(["reshape", "transpose", "slice", "flip", "pad", "concat", "broadcast", "window"])
    )
    if kind == "reshape" or not rank:
        return ops.reshape(x, factorisation(data, prod(shape)))
    if kind == "transpose":
        return ops.transpose(x, tuple(data.draw(st.permutations(range(rank)))))
    if kind == "slice":
        start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
        return ops.slice_(x, start, stop, tuple(data.draw(st.integers(1, 3)) for _ in shape))
    if kind == "flip":
        return ops.flip(x, data.draw(st.sets(st.integers(0, rank - 1))))
    if kind == "pad":
        low, high = (tuple(data.draw(st.integers(0, 2)) for _ in shape) for _ in range(2))
        return ops.pad(x, low, high, 0)
    if kind == "concat":
        return ops.concat([x, ops.flip(x, (0,)), x], data.draw(st.integers(0, rank - 1)))
    if kind == "broadcast":
        at = data.draw(st.integers(0, rank))
        wide = (*shape[:at], 2, *shape[at:])
        return ops.broadcast(x, wide, tuple(d for d in range(rank + 1) if d != at))
    size, dilation, low, high = (data.draw(st.integers(*span)) for span in ((1, 3), (1, 2), (0, 2), (0, 2)))
    if shape[-1] + low + high < dilation * (size - 1) + 1:
        return x
    return ops.window(x, (size,), (data.draw(st.integers(1, 2)),), (low,), (high,), (dilation,), 0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_vjp_of_a_chain_of_views_is_its_adjoint(data: st.DataObject) -> None:
    """<f(x), y> = <x, f'(y)> for linear f, at small integers, so exactly."""
    x = ops.input_("x", TensorType(data.draw(SHAPES), float64))
    y = x
    for _ in range(data.draw(st.integers(1, 4))):
        if y.type.size > 400:
            break
        y = step(data, y)
    ct = ops.input_("ct", y.type)
    (back,) = vjp([y], [ct], [x])
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 9, n.shape).astype(np.float64) for n in (x, ct)]
    there, again = evaluate(Graph((x, ct), (y, back)), arrays)
    assert np.vdot(there, arrays[1]) == np.vdot(arrays[0], again)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reshape_groups_is_the_finest_split(data: st.DataObject) -> None:
    source = data.draw(SHAPES)
    target = factorisation(data, prod(source))
    groups = reshape_groups(source, target)
    covered = [[i for pair in groups for i in pair[side]] for side in range(2)]
    assert covered == [list(range(len(source))), list(range(len(target)))]
    for ins, outs in groups:
        left, right = [source[i] for i in ins], [target[j] for j in outs]
        assert prod(left) == prod(right)
        inner = {prod(left[:k]) for k in range(1, len(left))} & {
            prod(right[:k]) for k in range(1, len(right))
        }
        assert not inner - {1, prod(left)}


def test_reshape_groups_of_a_known_case() -> None:
    assert reshape_groups((2, 3, 4), (6, 2, 2)) == [(range(2), range(1)), (range(2, 3), range(1, 3))]
