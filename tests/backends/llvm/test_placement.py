"""Helpers stay off the CPU of the thread that they help, and the caller's own affinity is left alone."""

from __future__ import annotations

import os

import numpy as np
import pytest
from plans import SHAPE, chain_numpy, chain_plan

from graphc import threads
from graphc.backends.llvm import Backend
from graphc.backends.llvm import runtime as runtime_module
from graphc.backends.llvm.runtime import get_runtime
from graphc.backends.llvm.target import get_target

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs and a system with affinity")


@pytest.fixture(autouse=True)
def _fresh_team(monkeypatch):
    """A team made while this thread may use all CPUs; everything is put back afterwards."""
    monkeypatch.setattr(threads, "_chosen", threads._chosen)
    get_runtime(get_target()).stop_team()
    yield
    os.sched_setaffinity(0, CPUS)
    get_runtime(get_target()).stop_team()


def _run_twice(executable) -> None:
    for _ in range(2):  # a caller that is seen on a CPU once may be on its way to another
        out, total = np.empty(SHAPE, np.float32), np.empty(1, np.float32)
        assert executable([X], [out, total]) == 0
        np.testing.assert_allclose(out, chain_numpy(X), rtol=1e-6)


def _helpers_may_use() -> list[set[int]]:
    team = get_runtime(get_target()).team()
    return [os.sched_getaffinity(thread.native_id) for thread in team.threads]


def test_helpers_leave_the_callers_cpu_and_may_come_back():
    threads.set_num_threads(2)
    executable = Backend().compile(None, chain_plan())
    get_runtime(get_target()).team()
    for cpu in (*CPUS[:2], CPUS[0]):
        os.sched_setaffinity(0, {cpu})
        _run_twice(executable)
        assert _helpers_may_use() == [set(CPUS) - {cpu}]
        assert os.sched_getaffinity(0) == {cpu}


def test_more_threads_than_cpus_are_left_to_the_system(monkeypatch):
    monkeypatch.setattr(runtime_module, "available_cpus", lambda: 2)
    threads.set_num_threads(3)
    executable = Backend().compile(None, chain_plan())
    get_runtime(get_target()).team()
    os.sched_setaffinity(0, {CPUS[0]})
    _run_twice(executable)
    assert _helpers_may_use() == [set(CPUS)] * 2
