"""Loops in call tables: rows written out, arguments that move, needs and claims of what is written out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from plans import BYTES, SHAPE, affine_kernel, chain_numpy

from graphc import threads
from graphc.backends.llvm import Backend, walker
from graphc.backends.llvm.image import _spot_in, _spot_out
from graphc.backends.llvm.rows import Address, locate, write_out
from graphc.backends.llvm.table import CallTable, TableCall
from graphc.ir.types import TensorType, float32, int64
from graphc.loop.ir import Accumulate, Buffer, Const, For, Kernel, Var, index_const, load
from graphc.program import Call, Loop, Plan, Slot, Turn


def looped_chain(length: int, cost: float = 1e9) -> Plan:
    """out = x * 1.5 + 1, `length` times over: two places take turns, the last of them is the output."""
    rest = (Slot("output", 0), Slot("arena", 0))
    if length % 2 == 0:
        rest = rest[::-1]
    call = Call(0, (Turn(0, Slot("input", 0), rest), Turn(0, None, rest)))
    kind = TensorType(SHAPE, float32)
    kernels = (affine_kernel(1.5, 1.0, cost=cost),)
    return Plan(kernels, (call,), (kind,), (kind,), arena_bytes=BYTES, loops=(Loop(0, 1, length),))


@pytest.mark.parametrize("cost", [1.0, 1e9])
@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_a_loop_of_one_call(length: int, cost: float) -> None:
    executable = Backend().compile(None, looped_chain(length, cost))
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    before = threads.get_num_threads()
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            out = np.zeros(SHAPE, np.float32)
            assert executable([x], [out]) == 0
            np.testing.assert_allclose(out, chain_numpy(x, length), rtol=1e-5)
    finally:
        threads.set_num_threads(before)


def test_rows_of_nested_loops() -> None:
    loops = [Loop(1, 5, 2), Loop(2, 4, 3), Loop(6, 7, 2)]
    rows = write_out(7, loops)
    inner = [2, 3] * 3
    assert rows.call.tolist() == [0, 1, *inner, 4, 1, *inner, 4, 5, 6, 6]
    assert rows.trips[:, 0].tolist() == [0] * 9 + [1] * 8 + [0] * 3
    assert rows.trips[:, 1].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0]
    assert rows.trips[:, 2].tolist() == [0] * 18 + [0, 1]


def test_places_move_with_trips() -> None:
    trips = np.array([[a, b] for a in range(3) for b in range(4)])
    slide = Address(2, 100, ((0, 1000), (1, -10)))
    assert locate(slide, trips).tolist() == [[2, 100 + 1000 * a - 10 * b] for a, b in trips.tolist()]
    turn = Turn(1, slide, (Address(5, 1), Turn(0, None, (Address(6, 2), Address(7, 3)))))
    expected = []
    for a, b in trips.tolist():
        if b == 0:
            expected.append([2, 100 + 1000 * a])
        elif b % 2:
            expected.append([5, 1])
        else:
            expected.append([6, 2] if a % 2 == 0 else [7, 3])
    assert locate(turn, trips).tolist() == expected
    assert _spot_in(_spot_out(turn)) == turn


def table_of(calls: list[TableCall], loops: list[Loop], gate: int = 0) -> CallTable:
    return CallTable(calls, gate, [11, 22, 33], loops)


def test_table_of_a_loop() -> None:
    still = (Address(0, 0),)
    moving = (Address(0, 0), Address(1, 8, ((0, 4),)))
    calls = [
        TableCall(0, 4, still, True, 10.0),
        TableCall(1, 3, moving, True, 10.0),
        TableCall(2, 1, still, False, 10.0),
        TableCall(0, 4, still, True, 10.0),
    ]
    table = table_of(calls, [Loop(1, 3, 3)], gate=3)
    entry, tasks, first, args, flags, need = table.rows.T.tolist()
    assert entry == [11, 22, 33, 22, 33, 22, 33, 11]
    assert tasks == [4, 3, 1, 3, 1, 3, 1, 4]
    assert args == [1, 2, 1, 2, 1, 2, 1, 1]
    assert first == [0, 1, 3, 4, 6, 7, 9, 10]
    assert need == [0, 4, 4, 8, 8, 12, 12, 16]
    assert [f & walker.SERIAL for f in flags] == [0, 0, 1, 0, 1, 0, 1, 0]
    claims = [f >> walker.CLAIM_SHIFT for f in flags if not f & walker.SERIAL]
    assert claims == list(range(5))
    assert table.claims == 5  # serial calls are claimed by nobody
    assert table.gate == 7
    assert [table.slots[2 + 3 * t].tolist() for t in range(3)] == [[1, 8 + 4 * t] for t in range(3)]


def test_table_without_calls() -> None:
    table = table_of([], [])
    assert (table.count, table.tasks, table.parallel) == (0, 0, False)


def test_profile_adds_up_trips() -> None:
    executable = Backend().compile(None, looped_chain(40))
    x, out = np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    executable.bind_input(0, x)
    executable.bind_output(0, out)
    ((name, loop),) = executable.profile(3)
    once = Backend().compile(None, looped_chain(1))
    once.bind_input(0, x)
    once.bind_output(0, out)
    ((_, single),) = once.profile(3)
    assert name == "affine"
    assert loop > 10 * single


def test_dear_tasks_run_backwards_on_every_other_trip() -> None:
    """So that a trip begins with what the one before has left in the cache."""
    args = (Address(0, 0),)
    dear, cheap = TableCall(0, 4, args, True, 100.0), TableCall(1, 4, args, True, 3.0)
    single = TableCall(2, 1, args, True, 100.0)
    table = table_of([dear, dear, cheap, single, dear], [Loop(1, 4, 3)])
    backwards = [bool(flags & walker.BACKWARDS) for flags in table.rows[:, 4].tolist()]
    assert backwards == [False, *[False] * 3, *[True, False, False], *[False] * 3, False]


def test_dear_tasks_of_short_programs_turn_from_run_to_run() -> None:
    args = (Address(0, 0),)
    dear, cheap = TableCall(0, 4, args, True, 100.0), TableCall(1, 4, args, True, 3.0)
    single, long = TableCall(2, 1, args, True, 100.0), TableCall(0, 4, args, True, 2000.0)

    def turning(calls: list[TableCall], loops: list[Loop]) -> list[bool]:
        return [bool(flags & walker.TURNING) for flags in table_of(calls, loops).rows[:, 4].tolist()]

    assert turning([dear, cheap, single, dear], []) == [True, False, False, True]
    assert turning([dear, dear], [Loop(1, 2, 2)]) == [True, False, False]
    assert turning([dear, long], []) == [False, False]


def order_kernel(cost: float = 1e9) -> Kernel:
    """The value of every task is the sum of all values before it, and one: it depends on the order."""
    x = Buffer("x", float32, (4,))
    task, i = Var(int64, "t", 4), Var(int64, "i", 4)
    add = Accumulate(x, (task,), "add", load(x, (i,)))
    body = (Accumulate(x, (task,), "add", Const(float32, 1.0)), For(i, index_const(4), (add,)))
    return Kernel("order", (x,), task, 4, body, cost, cost)


def run_orders(*orders: tuple[int, ...]) -> np.ndarray:
    """What `order_kernel` leaves if its tasks are run in these orders, one after the other."""
    values = np.zeros(4, np.float32)
    for tasks in orders:
        for task in tasks:
            values[task] += 1
            for i in range(4):
                values[task] += values[i]
    return values


FORWARDS, BACKWARDS = (0, 1, 2, 3), (3, 2, 1, 0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = threads.get_num_threads()
    threads.set_num_threads(1)
    yield
    threads.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_backwards_calls_run_their_last_task_first() -> None:
    kind = TensorType((4,), float32)
    call = Call(0, (Slot("output", 0),))
    executable = Backend().compile(
        None, Plan((order_kernel(),), (call,), (), (kind,), loops=(Loop(0, 1, 2),))
    )
    out = np.zeros(4, np.float32)
    assert executable([], [out]) == 0
    np.testing.assert_array_equal(out, run_orders(FORWARDS, BACKWARDS))


@pytest.mark.usefixtures("one_thread")
def test_turning_calls_run_backwards_in_every_other_run() -> None:
    kind, call = TensorType((4,), float32), Call(0, (Slot("output", 0),))
    executable = Backend().compile(None, Plan((order_kernel(1e6),), (call,), (), (kind,)))
    seen = []
    for _ in range(4):
        out = np.zeros(4, np.float32)
        assert executable([], [out]) == 0
        seen.append(out.tolist())
    one, other = run_orders(FORWARDS).tolist(), run_orders(BACKWARDS).tolist()
    assert seen in ([one, other, one, other], [other, one, other, one])
