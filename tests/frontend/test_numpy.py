"""Temporaries give their arrays away; memory of results that nobody holds is used again.

(Arrays that share memory with a tensor: test_shared_memory.py.)"""

from __future__ import annotations

import numpy as np
import pytest

import graphc

N = 1 << 18


def test_a_temporary_gives_its_array_away() -> None:
    x = graphc.ones(N)
    with graphc.no_grad():
        array = (x * 2).numpy()
    array[:] = 5
    assert x[0].item() == 1


def test_a_view_of_a_living_tensor_is_copied() -> None:
    y = graphc.ones(4, 4) * 2
    y.view(16).numpy()[:] = 5
    assert y.tolist() == [[2.0] * 4] * 4


def test_results_that_are_held_are_never_written_over() -> None:
    double = graphc.compile(lambda x: x * 2)
    held, parts = [], []
    with graphc.no_grad():
        for i in range(6):
            x = graphc.full((N,), float(i))
            held.append(double(x))
            parts.append(double(x + 1).numpy()[5:7])
    for i in range(6):
        assert held[i][0].item() == 2 * i
        assert parts[i].tolist() == [2 * i + 2] * 2


def test_results_that_are_dropped_are_used_again() -> None:
    double = graphc.compile(lambda x: x * 2)
    x = graphc.ones(N)
    with graphc.no_grad():
        seen = {double(x).numpy().ctypes.data for _ in range(8)}
    assert len(seen) <= 3


def test_numpy_of_a_tensor_that_requires_grad() -> None:
    with pytest.raises(RuntimeError, match=r"detach\(\)"):
        graphc.ones(2, requires_grad=True).numpy()
    assert isinstance(graphc.ones(2, requires_grad=True).detach().numpy(), np.ndarray)
