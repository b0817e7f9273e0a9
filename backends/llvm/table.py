"""The call table that native code walks, with barriers only where threads must meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm import walker

# Estimates of one thread, only good enough to tell microseconds from milliseconds.
_FLOPS_PER_US = 10_000.0
_BYTES_PER_US = 8_000.0
_CALL_US = 0.05
SERIAL_US = 2.0  # a call cheaper than this is not worth two barriers
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
    """The walker's flags of each call.

    Cheap calls and calls of one task are serial: worker 0 runs them alone, and between two of them its own
    order is barrier enough. A barrier the plan asks for is kept when work of another thread may be
    unfinished: a serial call waits for parallel calls, a parallel call also for serial ones, even if the
    plan's barrier between them was one that was dropped.
    """
    flags = []
    parallel_open = serial_open = serial_owed = False
    for number, call in enumerate(calls):
        serial = call.tasks == 1 or call.cost < SERIAL_US
        if serial:
            meet = call.barrier and parallel_open
            serial_owed |= call.barrier and serial_open
        else:
            meet = serial_owed or (call.barrier and (parallel_open or serial_open))
        if meet:
            parallel_open = serial_open = serial_owed = False
        serial_open |= serial
        parallel_open |= not serial
        shared = not serial and call.cost > SHARED_US
        flags.append(walker.BARRIER * (meet and number > 0) + walker.SERIAL * serial + walker.SHARED * shared)
    return flags


class CallTable:
    """The words of a table and of its slots, kept alive for native code."""

    def __init__(self, calls: Sequence[TableCall], addresses: Sequence[int]) -> None:
        """`addresses` are the kernels' entry points."""
        self.count = len(calls)
        self.widest = max((len(call.args) for call in calls), default=1)
        rows: list[tuple[int, ...]] = []
        slots: list[tuple[int, int]] = []
        for call, flags in zip(calls, call_flags(calls), strict=True):
            rows.append((addresses[call.kernel], call.tasks, len(slots), len(call.args), flags))
            slots.extend(call.args)
        self.rows = np.array(rows, np.int64).reshape(-1, walker.CALL_WORDS)
        self.slots = np.array(slots, np.int64).reshape(-1, walker.SLOT_WORDS)
        self.parallel = sum(call.cost for call in calls) > ALONE_US and any(
            not row[4] & walker.SERIAL for row in rows
        )

    @property
    def barriers(self) -> int:
        """How many barriers the table holds."""
        return int((self.rows[:, 4] & walker.BARRIER).sum())
