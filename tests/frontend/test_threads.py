"""Values that several threads want at once: each gets them, whoever computes them."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphc as gc
from graphc.ir.node import site_of

THREADS = 6


@pytest.fixture(autouse=True)
def often_interrupted() -> Iterator[None]:
    """Python's threads take turns every few instructions, so that races are met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(work: Callable[[int], None]) -> list[str]:
    """Where `work(0)`, `work(1)` ... fail, in a thread each."""
    raised: list[str] = []
    ready = threading.Barrier(THREADS)

    def run(number: int) -> None:
        ready.wait()
        try:
            work(number)
        except BaseException:
            raised.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_a_pending_tensor_may_be_read_by_many_threads() -> None:
    base = np.arange(400, dtype=np.float32).reshape(100, 4)
    for _ in range(60):
        tensors = [gc.from_numpy(base) * (2 + k) + 1 for k in range(3)]

        def read(number: int, tensors: list[gc.Tensor] = tensors) -> None:
            k = number % 3
            np.testing.assert_array_equal(tensors[k].numpy(), base * (2 + k) + 1)

        assert at_once(read) == []


def test_an_array_of_one_tensor_may_be_wanted_by_many_threads() -> None:
    base = np.arange(40, dtype=np.float32)
    for _ in range(400):
        tensor = gc.from_numpy(base) * 2

        def read(number: int, tensor: gc.Tensor = tensor) -> None:
            np.testing.assert_array_equal(tensor.numpy(), base * 2)

        assert at_once(read) == []


def test_threads_that_compute_alike_have_results_of_their_own() -> None:
    """One program serves all: nobody is given the memory of another's result."""
    for _ in range(40):

        def read(number: int) -> None:
            x = gc.full((64,), float(number)) + 0.5
            found = [(x * k).numpy() for k in range(4)]
            np.testing.assert_array_equal(found, np.full((4, 64), number + 0.5) * np.arange(4)[:, None])

        assert at_once(read) == []


def test_threads_that_compile_at_once_keep_the_lines_of_errors() -> None:
    def compile_one(number: int) -> None:
        x = gc.full((3, 5 + number), 1.0)
        for k in range(6):
            (x[:, : 4 + k % 3].sum() * x.max()).item()

    assert at_once(compile_one) == []
    with pytest.raises(RuntimeError, match=r"test_threads\.py"):
        gc.zeros(2) + gc.zeros(3)
    made = gc.zeros(5).exp()
    assert "test_threads.py" in str(site_of(made._cell.node))


def test_a_compiled_function_may_be_called_by_many_threads() -> None:
    step = gc.compile(lambda x: (x * 2 + 1, x.sum()))
    step(gc.zeros(64))

    def call(number: int) -> None:
        for i in range(40):
            made, total = step(gc.full((64,), float(number + i)))
            assert total.item() == 64.0 * (number + i)
            np.testing.assert_array_equal(made.numpy(), np.full(64, 2.0 * (number + i) + 1))

    assert at_once(call) == []
