"""The call table that native code walks: plain words, with each call's dependencies as one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm import walker

# Estimates of one thread, only good enough to tell microseconds from milliseconds.
_FLOPS_PER_US = 10_000.0
_BYTES_PER_US = 12_000.0
_CALL_US = 0.05
_MOST_TASKS = 1 << 30  # they are counted in 32 bits
SERIAL_US = 2.0  # a call cheaper than this is not worth sharing
SHARED_US = 30.0  # a call dearer than this is shared out in chunks
ALONE_US = 15.0  # a program cheaper than this is not worth waking the team


@dataclass(frozen=True)
class TableCall:
    """One call: kernel number, its tasks, (base, byte offset) of each arg, the plan's barrier, cost in us."""

    kernel: int
    tasks: int
    args: tuple[tuple[int, int], ...]
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


def call_needs(calls: Sequence[TableCall], gate: int) -> list[int]:
    """How many of the program's tasks must be completed before each call may start.

    A call waits for everything before the last barrier at or before it (the gate is one too). Since nothing
    behind that barrier can start earlier either, the number of tasks before it tells that they are all
    completed.
    """
    needs = []
    before = need = 0
    for number, call in enumerate(calls):
        if call.barrier or number == gate:
            need = before
        needs.append(need)
        before += call.tasks
    return needs


class CallTable:
    """The words of a table and of its slots, kept alive for native code."""

    def __init__(self, calls: Sequence[TableCall], gate: int, addresses: Sequence[int]) -> None:
        """`addresses` are the kernels' entry points."""
        self.count = len(calls)
        self.tasks = sum(call.tasks for call in calls)
        self.widest = max((len(call.args) for call in calls), default=1)
        rows: list[tuple[int, ...]] = []
        slots: list[tuple[int, int]] = []
        words = zip(calls, call_flags(calls), call_needs(calls, gate), strict=True)
        for call, flags, need in words:
            rows.append((addresses[call.kernel], call.tasks, len(slots), len(call.args), flags, need))
            slots.extend(call.args)
        self.rows = np.array(rows, np.int64).reshape(-1, walker.CALL_WORDS)
        self.slots = np.array(slots, np.int64).reshape(-1, walker.SLOT_WORDS)
        helped = any(not flags & walker.SERIAL for flags in self.rows[:, 4])
        dear = sum(call.cost for call in calls) > ALONE_US
        self.parallel = helped and dear and self.tasks < _MOST_TASKS
