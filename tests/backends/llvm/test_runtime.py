"""The thread team, the call table and executables: same bits at any thread count, and no way to hang."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from plans import BYTES, SHAPE, affine_kernel, chain_numpy, chain_plan, matmul_plan

from graphc import threads
from graphc.backends.llvm import Backend, walker
from graphc.backends.llvm import runtime as runtime_module
from graphc.backends.llvm.memory import HUGE_PAGE, Block, GrowingBlock
from graphc.backends.llvm.objects import build_object
from graphc.backends.llvm.rows import Address
from graphc.backends.llvm.runtime import get_runtime, pointer
from graphc.backends.llvm.table import CallTable, TableCall, call_flags
from graphc.backends.llvm.target import get_target
from graphc.ir.types import TensorType, float32
from graphc.program import Call, Plan, Slot


@pytest.fixture(autouse=True)
def _restore_threads(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", threads._chosen)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def run(executable, x):
    out, total = np.full(SHAPE, np.nan, np.float32), np.full(1, np.nan, np.float32)
    status = executable([x], [out, total])
    return status, out, total


def test_chain_is_right(x):
    status, out, total = run(Backend().compile(None, chain_plan()), x)
    assert status == 0
    np.testing.assert_allclose(out, chain_numpy(x), rtol=1e-6)
    np.testing.assert_allclose(total[0], out[:, 0].sum(dtype=np.float64), rtol=1e-5)


def test_same_bits_with_any_number_of_threads(x):
    executable = Backend().compile(None, chain_plan(20))
    assert executable.table.parallel
    results = []
    for count in (1, 2, 3, 5, 2, 1):
        threads.set_num_threads(count)
        for _ in range(20):
            status, out, total = run(executable, x)
            assert status == 0
            results.append(out.tobytes() + total.tobytes())
    assert len(set(results)) == 1


def test_tile_and_constants():
    target = get_target()
    rows, vectors = target.machine.tiles[0]
    lanes = vectors * target.machine.lanes(4)
    rng = np.random.default_rng(1)
    w = rng.standard_normal((37, lanes)).astype(np.float32)
    a = rng.standard_normal((9, rows, 37)).astype(np.float32)
    executable = Backend().compile(None, matmul_plan(rows, lanes, 37, 9, w))
    out = np.zeros((9, rows, lanes), np.float32)
    threads.set_num_threads(2)
    assert executable([a], [out]) == 0
    np.testing.assert_allclose(out, a @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_failed_check_stops_at_the_gate(x, count):
    threads.set_num_threads(count)
    executable = Backend().compile(None, chain_plan(check=True))
    assert run(executable, x)[0] == 0
    bad = x.copy()
    bad[17, 33] = 5000.0
    status, out, total = run(executable, bad)
    assert status == 1
    assert np.isnan(out).all()
    assert np.isnan(total).all()
    status, out, _ = run(executable, x)
    assert status == 0
    np.testing.assert_allclose(out, chain_numpy(x), rtol=1e-6)


def test_small_programs_stay_on_the_calling_thread(x):
    executable = Backend().compile(None, chain_plan(3, cost=1.0))
    assert not executable.table.parallel
    runtime = get_runtime(get_target())
    runtime.stop_team()
    assert run(executable, x)[0] == 0
    assert runtime.workers_alive == 0


def test_bound_arrays_are_read_and_written_in_place(x):
    executable = Backend().compile(None, chain_plan(1))
    total = np.zeros(1, np.float32)
    executable.bind_input(0, x)
    executable.bind_output(0, x)
    executable.bind_output(1, total)
    want = chain_numpy(chain_numpy(x, 1), 1)
    assert executable.run() == 0
    assert executable.run() == 0
    np.testing.assert_allclose(x, want, rtol=1e-6)


def test_profile_runs_the_program_call_by_call(x):
    executable = Backend().compile(None, chain_plan(3))
    with pytest.raises(RuntimeError, match="not bound"):
        executable.profile()
    out, total = np.zeros(SHAPE, np.float32), np.zeros(1, np.float32)
    executable.bind_input(0, x)
    executable.bind_output(0, out)
    executable.bind_output(1, total)
    times = executable.profile(repeat=2)
    assert [name for name, _ in times] == ["affine", "affine", "affine", "total"]
    assert all(0 < us < 1e6 for _, us in times)
    np.testing.assert_allclose(out, chain_numpy(x, 3), rtol=1e-6)


def test_arrays_of_a_call_are_not_kept(x):
    executable = Backend().compile(None, chain_plan(1))
    array = x.copy()
    watch = weakref.ref(array)
    run(executable, array)
    del array
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize(
    "bad,error,message",
    [
        ([1.0], TypeError, "expected a NumPy array, got list"),
        (np.zeros(SHAPE), ValueError, r"expected f32\[64, 512\], got float64\[64, 512\]"),
        (np.zeros((2, 2), np.float32), ValueError, r"got float32\[2, 2\]"),
        (np.zeros((512, 64), np.float32).T, ValueError, "C-contiguous"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(bad, error, message):
    with pytest.raises(error, match=message):
        Backend().compile(None, chain_plan()).bind_input(0, bad)


def test_read_only_output_is_refused(x):
    x.flags.writeable = False
    executable = Backend().compile(None, chain_plan())
    executable.bind_input(0, x)
    with pytest.raises(ValueError, match="writable"):
        executable.bind_output(0, x)


def test_unbound_arguments_are_refused(x):
    executable = Backend().compile(None, chain_plan())
    executable.bind_input(0, x)
    with pytest.raises(RuntimeError, match="output 0 is not bound"):
        executable.run()


def test_python_threads_may_call_at_once(x):
    threads.set_num_threads(2)
    executables = [Backend().compile(None, chain_plan(n)) for n in (4, 9)]
    wrong = []

    def work(executable, length):
        want = chain_numpy(x, length)
        for _ in range(50):
            status, out, _ = run(executable, x)
            if status or not np.allclose(out, want, rtol=1e-5):
                wrong.append(length)

    crew = [
        threading.Thread(target=work, args=(e, n))
        for e, n in zip(executables, (4, 9), strict=True)
        for _ in "ab"
    ]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not wrong


def test_workers_sleep_when_there_is_nothing_to_do(x):
    threads.set_num_threads(3)
    executable = Backend().compile(None, chain_plan())
    run(executable, x)
    for _ in range(100):  # until then they wait in other ways, as long as the machine is busy
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.01:
            break
    else:
        pytest.fail("the workers never sleep")
    assert run(executable, x)[0] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_child_builds_its_own_team(x):
    threads.set_num_threads(2)
    executable = Backend().compile(None, chain_plan())
    want = run(executable, x)[1]
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            same = np.array_equal(run(executable, x)[1], want)
            os._exit(0 if same else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(run(executable, x)[1], want)


_SCRIPT = """
import sys; sys.path.insert(0, {folder!r})
import numpy as np, threading
from plans import SHAPE, chain_plan
from graphc import threads
from graphc.backends.llvm import Backend
threads.set_num_threads(3)
program = Backend().compile(None, chain_plan(40))
x, out, total = np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32), np.ones(1, np.float32)
program([x], [out, total])
{extra}
print("end")
"""
_FOREVER = """
def forever():
    while True:
        program([x], [out.copy(), total.copy()])
threading.Thread(target=forever, daemon=True).start()
"""


@pytest.mark.parametrize("extra", ["", _FOREVER], ids=["idle", "busy"])
def test_interpreter_exits(extra):
    """Also while a daemon thread is inside a program."""
    script = _SCRIPT.format(folder=os.path.dirname(__file__), extra=extra)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def call(tasks=8, barrier=True, cost=1e6):
    return TableCall(0, tasks, (Address(0, 0),), barrier, cost)


def test_flags_follow_the_cost():
    calls = [call(cost=0.1), call(cost=10.0), call(cost=1e3), call(tasks=1)]
    assert call_flags(calls) == [walker.SERIAL, 0, walker.SHARED, walker.SERIAL]


def test_needs_count_the_tasks_before_the_last_barrier():
    meet, free = call(tasks=8), call(tasks=5, barrier=False)

    def needs(calls, gate):
        return CallTable(calls, gate, [0]).rows[:, 5].tolist()

    assert needs([meet, meet, meet], 0) == [0, 8, 16]
    assert needs([meet, free, free, meet], 0) == [0, 0, 0, 18]
    assert needs([free, meet, free], 0) == [0, 5, 5]
    assert needs([free, free, free, free], 2) == [0, 0, 10, 10]  # the gate is a barrier


def random_plan(seed):
    """A random dependency graph of cheap and dear calls with as few barriers as it needs, and its result."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 30))
    kernels, calls, sources = [], [], []
    written_since: set[int] = set()
    for step in range(count):
        source = int(rng.integers(-1, step)) if step else -1
        cost = float(rng.choice([1.0, 1e5, 1e9]))
        kernels.append(affine_kernel(0.5, float(step), name=f"k{step}", cost=cost))
        barrier = source in written_since
        if barrier:
            written_since.clear()
        written_since.add(step)
        place = Slot("input", 0) if source < 0 else Slot("arena", 0, BYTES * source)
        calls.append(Call(step, (place, Slot("arena", 0, BYTES * step)), barrier))
        sources.append(source)
    kernels.append(affine_kernel(1.0, 0.0))
    calls.append(Call(count, (Slot("arena", 0, BYTES * (count - 1)), Slot("output", 0))))
    kind = TensorType(SHAPE, float32)
    return Plan(tuple(kernels), tuple(calls), (kind,), (kind,), arena_bytes=BYTES * count), sources


@pytest.mark.parametrize("seed", range(8))
def test_dependencies_hold_in_random_programs(x, seed):
    plan, sources = random_plan(seed)
    values = []
    for step, source in enumerate(sources):
        values.append((x if source < 0 else values[source]) * np.float32(0.5) + np.float32(step))
    executable = Backend().compile(None, plan)
    for count in (1, 2, 3, 4):
        threads.set_num_threads(count)
        for _ in range(15):
            out = np.zeros(SHAPE, np.float32)
            assert executable([x], [out]) == 0
            np.testing.assert_allclose(out, values[-1], rtol=1e-5, atol=1e-5)


def test_blocks_are_aligned():
    assert Block(100).address % 4096 == 0
    big = Block(3 * HUGE_PAGE)
    assert big.address % HUGE_PAGE == 0
    growing = GrowingBlock()
    first = growing.at_least(10)
    assert growing.at_least(5) == first
    assert growing.at_least(1 << 20) % 4096 == 0
    assert growing.size == 1 << 20


def test_arena_is_shared_by_programs(x):
    runtime = get_runtime(get_target())
    run(Backend().compile(None, chain_plan(4)), x)
    assert runtime.arena_bytes >= 2 * BYTES
    size = runtime.arena_bytes
    run(Backend().compile(None, chain_plan(5)), x)
    assert runtime.arena_bytes == size


def test_pointer_is_the_arrays_address():
    array = np.arange(100.0).reshape(10, 10)
    for view in (array, array[3:], array[::2, 1:]):
        assert pointer(view) == view.ctypes.data


@pytest.mark.parametrize("spins", [1, 50])
def test_no_wakeup_is_lost(x, spins, monkeypatch):
    """Threads that hardly spin sleep at nearly every barrier and between runs."""
    monkeypatch.setattr(runtime_module, "_SPINS", spins)
    monkeypatch.setattr(runtime_module, "_SPINS_CROWDED", spins)
    runtime = get_runtime(get_target())
    runtime.stop_team()
    executable = Backend().compile(None, chain_plan(8))
    want = chain_numpy(x, 8)
    for count in (2, 4):
        threads.set_num_threads(count)
        for _ in range(300):
            status, out, _ = run(executable, x)
            assert status == 0
        np.testing.assert_allclose(out, want, rtol=1e-5)
    runtime.stop_team()


@pytest.mark.parametrize(
    "arch,triple",
    [
        ("x86_64", "x86_64-unknown-linux-gnu"),
        ("x86_64", "x86_64-pc-windows-msvc"),
        ("aarch64", "aarch64-unknown-linux-gnu"),
        ("aarch64", "arm64-apple-darwin"),
    ],
)
def test_walker_compiles_for_every_system(arch, triple):
    target = replace(get_target("x86-64-v3" if arch == "x86_64" else "aarch64"), triple=triple)
    assert len(build_object(walker.emit_walker(target), target)) > 500


def test_unknown_system_is_named():
    with pytest.raises(RuntimeError, match="no sleep and wake calls are known for x86_64-unknown-haiku"):
        walker.emit_walker(replace(get_target("x86-64-v3"), triple="x86_64-unknown-haiku"))
