"""The reference backend as an Executable: checks, donation, memory."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.backends.reference import Backend
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float32, int64

X = ops.input_("x", TensorType((4,), float32))
I = ops.input_("i", TensorType((3,), int64))  # noqa: E741


def test_failed_check_gives_its_number_and_writes_nothing() -> None:
    first = ops.check_index(I, 0, 10, "first")
    second = ops.check_index(first, 0, 4, "second")
    graph = Graph((X, I), (ops.take(X, second, 0), ops.neg(X)))
    run = Backend().compile(graph)
    assert [c.attrs.message for c in run.checks] == ["first", "second"]
    x = np.arange(4, dtype=np.float32)
    outputs = [np.full(3, 9, np.float32), np.full(4, 9, np.float32)]
    assert run([x, np.array([0, 11, 1])], outputs) == 1
    assert run([x, np.array([0, 4, 1])], outputs) == 2
    assert all((o == 9).all() for o in outputs)
    assert run([x, np.array([0, 3, 1])], outputs) == 0
    np.testing.assert_array_equal(outputs[0], [0, 3, 1])


def test_donated_outputs_may_be_the_memory_of_inputs() -> None:
    y = ops.input_("y", TensorType((4,), float32))
    run = Backend().compile(Graph((X, y), (ops.add(X, y), ops.sub(X, y))))
    x, other = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
    assert run([x, other], [x, other]) == 0
    np.testing.assert_array_equal(x, [1, 2, 3, 4])
    np.testing.assert_array_equal(other, [-1, 0, 1, 2])


def test_values_are_forgotten_after_their_last_use() -> None:
    node = X
    for _ in range(5):
        node = ops.sin(node)
    run = Backend().compile(Graph((X,), (node, X)))
    dropped = [n for dead in run._last for n in dead]
    assert len(dropped) == 4
    assert node not in dropped
    assert X not in dropped


def test_views_of_inputs_are_copied_out() -> None:
    run = Backend().compile(Graph((X,), (ops.flip(X, (0,)),)))
    x = np.arange(4, dtype=np.float32)
    assert run([x], [x]) == 0
    np.testing.assert_array_equal(x, [3, 2, 1, 0])
