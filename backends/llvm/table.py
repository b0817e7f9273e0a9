"""The call table that native code walks: plain words, with each call's dependencies as one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm import walker
from graphc.backends.llvm.rows import Address, Rows, Spot, locate, write_out
from graphc.program import Loop

# Estimates of one thread, only good enough to tell microseconds from milliseconds.
_FLOPS_PER_US = 10_000.0
_BYTES_PER_US = 12_000.0
_CALL_US = 0.05
_MOST_TASKS = 1 << 30  # they are counted in 32 bits
SERIAL_US = 2.0  # a call cheaper than this is not worth sharing
SHARED_US = 30.0  # a call dearer than this is shared out in chunks
ALONE_US = 15.0  # a program cheaper than this is not worth waking the team
SHORT_US = 1_000.0  # one cheaper than this may be faster without it: that is measured
TURNED_US = 1.0  # tasks that are dearer than this may run in both directions
TURNING_US = 1000.0  # a program dearer than this leaves nothing in the caches that its next run reads first


@dataclass(frozen=True)
class TableCall:
    """One call: kernel number, its tasks, the place of each arg, the plan's barrier, cost in us."""

    kernel: int
    tasks: int
    args: tuple[Spot, ...]
    barrier: bool
    cost: float


def estimate(flops: float, size: float) -> float:
    """Microseconds on one thread of a kernel of so many operations and bytes of traffic."""
    return _CALL_US + max(flops / _FLOPS_PER_US, size / _BYTES_PER_US)


def call_flags(calls: Sequence[TableCall]) -> list[int]:
    """The walker's flags of each call: cheap calls and calls of one task are serial, dear ones shared."""
    flags = []
    for call in calls:
        serial = call.tasks == 1 or call.cost < SERIAL_US
        flags.append(walker.SERIAL if serial else walker.SHARED * (call.cost > SHARED_US))
    return flags


def call_needs(tasks: np.ndarray, barriers: np.ndarray) -> np.ndarray:
    """How many of the program's tasks must be completed before each call, as they run, may start.

    A call waits for everything before the last barrier at or before it. Since nothing behind that barrier
    can start earlier either, the number of tasks before it tells that they are all completed.
    """
    before = np.cumsum(tasks) - tasks
    return np.maximum.accumulate(np.where(barriers, before, 0))


class CallTable:
    """The words of a table and of its slots, kept alive for native code.

    count   calls as they run, those in loops on every trip
    call    which of the given calls each of them is
    claims  how many of them are parallel: words of claims for each worker
    gate    the given gate, counted in calls as they run
    parallel, short  whether the team can help, and whether it may take longer than the calling thread alone
    """

    def __init__(
        self, calls: Sequence[TableCall], gate: int, addresses: Sequence[int], loops: Sequence[Loop] = ()
    ) -> None:
        """`addresses` are the kernels' entry points."""
        rows = write_out(len(calls), loops)
        self.call = rows.call
        self.count = len(rows.call)
        self.gate = int(np.count_nonzero(rows.call < gate))
        self.widest = max((len(call.args) for call in calls), default=1)
        tasks = np.array([call.tasks for call in calls], np.int64)[rows.call]
        self.tasks = int(tasks.sum())
        flags = np.array(call_flags(calls), np.int64)[rows.call]
        flags[_turned(calls, rows, loops)] |= walker.BACKWARDS
        flags[_turning(calls, rows, loops)] |= walker.TURNING
        helped = (flags & walker.SERIAL) == 0
        self.claims = int(np.count_nonzero(helped))
        flags += (np.cumsum(helped) - helped) << walker.CLAIM_SHIFT
        barriers = np.array([call.barrier for call in calls], bool)[rows.call]
        barriers[self.gate : self.gate + 1] = True  # the gate is one too
        args = np.array([len(call.args) for call in calls], np.int64)[rows.call]
        first = np.cumsum(args) - args
        entry = np.array([addresses[call.kernel] for call in calls], np.int64)[rows.call]
        words = (entry, tasks, first, args, flags, call_needs(tasks, barriers))
        self.rows = np.stack(words, axis=1) if self.count else np.zeros((0, walker.CALL_WORDS), np.int64)
        self.slots = _slots(calls, rows, args, first)
        cost = np.array([call.cost for call in calls])[rows.call].sum()
        self.parallel = self.claims > 0 and bool(cost > ALONE_US) and self.tasks < _MOST_TASKS
        self.short = bool(cost < SHORT_US)


def _turned(calls: Sequence[TableCall], rows: Rows, loops: Sequence[Loop]) -> np.ndarray:
    """The rows whose tasks run backwards: every other trip of loops with dear calls."""
    turned = np.zeros(len(rows.call), bool)
    for number, loop in enumerate(loops):
        for i in range(loop.start, loop.stop):
            if _can_turn(calls[i]):
                turned |= (rows.call == i) & (rows.trips[:, number] % 2 == 1)
    return turned


def _turning(calls: Sequence[TableCall], rows: Rows, loops: Sequence[Loop]) -> np.ndarray:
    """The rows whose tasks run backwards in every other run: dear calls of short programs, outside of loops.

    A run begins with what the one before has read last. Two cores' second-level caches hold about half of the
    weights of a 784-512-512-10 network then: its forward pass takes 0.91 of the time.
    """
    if sum(call.cost for call in calls) > TURNING_US:
        return np.zeros(len(rows.call), bool)
    inside = {i for loop in loops for i in range(loop.start, loop.stop)}
    turning = [i not in inside and _can_turn(call) for i, call in enumerate(calls)]
    return np.array(turning, bool)[rows.call]


def _can_turn(call: TableCall) -> bool:
    """Whether a call has several tasks, each of them long enough to be called on its own."""
    return call.tasks > 1 and call.cost > TURNED_US * call.tasks


def _slots(calls: Sequence[TableCall], rows: Rows, args: np.ndarray, first: np.ndarray) -> np.ndarray:
    """int64[args of all rows, 2]: base number and offset of every argument."""
    given = [
        (spot.base, spot.offset) if isinstance(spot, Address) else (0, 0)
        for call in calls
        for spot in call.args
    ]
    words = np.array(given, np.int64).reshape(-1, walker.SLOT_WORDS)
    if not rows.trips.shape[1]:
        return words
    widths = np.array([len(call.args) for call in calls], np.int64)
    start = (np.cumsum(widths) - widths)[rows.call]
    slots = words[np.repeat(start - first, args) + np.arange(int(args.sum()))]
    for mine in rows.groups():
        for position, spot in enumerate(calls[rows.call[mine[0]]].args):
            if not isinstance(spot, Address) or spot.steps:
                slots[first[mine] + position] = locate(spot, rows.trips[mine])
    return slots
