"""The process's thread team, arena and scratch, and the one lock that programs enter through.

Programs run one at a time (`Runtime.lock`), so one arena and one scratch area serve all of them. The team's
workers are daemon threads that wait inside native code, without the GIL. A forked child has only the
forking thread: it drops the team, and builds its own when it first runs something big.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from functools import cache

import numpy as np

from graphc.backends.llvm import walker
from graphc.backends.llvm.engine import Loaded, get_engine
from graphc.backends.llvm.memory import Block, GrowingBlock
from graphc.backends.llvm.objects import compile_runtime
from graphc.backends.llvm.placement import MASK_BYTES
from graphc.backends.llvm.target import Target
from graphc.threads import available_cpus, get_num_threads

_SPINS = 2000  # pauses of about 20 ns: 40 microseconds, then half a millisecond in which others are let run
_SPINS_CROWDED = 20  # more threads than CPUs: the one waited for may need this CPU
_SCRATCH_GAP = 4096 + 192  # keeps two workers' scratch out of each other's cache sets


class Team:
    """`workers - 1` native threads beside the calling one.

    `keep[r]` holds what native code may still read in round r: a straggler can be inside a round after its
    run.
    """

    def __init__(self, code: Loaded, workers: int) -> None:
        self.workers = workers
        self.rounds = workers + 1  # more than can have stragglers, so one is always free
        self.keep: list[object] = [None] * self.rounds
        self._memory = Block(walker.team_bytes(self.rounds))
        self.address = self._memory.address
        self._set("rounds", self.rounds)
        crowded = workers > available_cpus()
        self._set("spins", _SPINS_CROWDED if crowded else _SPINS)
        self._stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address(walker.STOP))
        self._enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address(walker.WORKER))
        self.threads = [
            threading.Thread(target=self._work, args=(w,), name=f"graphc-worker-{w}", daemon=True)
            for w in range(1, workers)
        ]
        for thread in self.threads:
            thread.start()
        if hasattr(os, "sched_getaffinity") and not crowded:
            self._place_threads()

    def _place_threads(self) -> None:
        """Say who the threads are and where they may run, so that callers can keep them off their own CPU."""
        cpus = sum(1 << cpu for cpu in os.sched_getaffinity(0) if cpu < 8 * MASK_BYTES)
        self._cpus = np.frombuffer(cpus.to_bytes(MASK_BYTES, sys.byteorder), np.uint8)
        self._ids = np.array([thread.native_id for thread in self.threads], np.int32)
        self._set("avoided_cpu", -1)
        self._set("cpus", self._cpus.ctypes.data)
        self._set("thread_ids", self._ids.ctypes.data)

    def _set(self, word: str, value: int) -> None:
        ctypes.c_int64.from_address(self.address + walker.team_offset(word)).value = value

    def _work(self, index: int) -> None:
        """A worker's life; it holds on to the team, and so to the team's memory."""
        self._enter(self.address, index)

    def stop(self) -> None:
        """End the threads. No program may be running."""
        self._stop(self.address)
        for thread in self.threads:
            thread.join(timeout=1.0)


class Runtime:
    """Everything programs share. Use `get_runtime`; hold `lock` around `prepare` and the native call."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.engine = get_engine(target)
        self._code = self.engine.load(compile_runtime(target))
        self.lock = threading.Lock()
        self.native_run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(
            self._code.address(walker.RUN)
        )
        self._team: Team | None = None
        self.moves = 0  # how often the arena or the scratch has got another address
        self._arena = GrowingBlock()
        self._scratch = GrowingBlock()

    def team(self) -> Team:
        """The team of as many workers as `get_num_threads` says now."""
        wanted = get_num_threads()
        if self._team is None or self._team.workers != wanted:
            self.stop_team()
            self._team = Team(self._code, wanted)
        return self._team

    def stop_team(self) -> None:
        """End the team's threads, if there is a team."""
        if self._team is not None:
            self._team.stop()
            self._team = None

    @property
    def workers_alive(self) -> int:
        """Threads of the team, the calling one not counted."""
        return self._team.workers - 1 if self._team else 0

    def arena(self, size: int) -> int:
        """Address of the arena, grown to at least `size` bytes."""
        return self._at_least(self._arena, size)

    def _at_least(self, block: GrowingBlock, size: int) -> int:
        before = block.size
        address = block.at_least(size)
        self.moves += block.size != before
        return address

    @property
    def arena_bytes(self) -> int:
        """Present size of the arena."""
        return self._arena.size

    def scratch(self, size: int, workers: int) -> tuple[int, int]:
        """Address of worker 0's scratch of `size` bytes, and the distance to the next worker's."""
        stride = -(-size // 4096) * 4096 + _SCRATCH_GAP
        return self._at_least(self._scratch, stride * workers), stride

    def forget_threads(self) -> None:
        """In a forked child: the threads are gone, and the lock may have been held by one of them."""
        self.lock = threading.Lock()
        self._team = None


_runtimes: list[Runtime] = []


@cache
def get_runtime(target: Target) -> Runtime:
    """The runtime of this process."""
    runtime = Runtime(target)
    _runtimes.append(runtime)
    return runtime


def _after_fork() -> None:
    for runtime in _runtimes:
        runtime.forget_threads()


def _at_exit() -> None:
    for runtime in _runtimes:
        if runtime.lock.acquire(timeout=1.0):  # a daemon thread may be inside a program for ever
            runtime.stop_team()
            runtime.lock.release()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def pointer(array: np.ndarray) -> int:
    """The address of an array's data."""
    return _read_pointer(id(array) + _DATA).value if _DATA else array.ctypes.data


def _find_data_offset() -> int:
    """Where an ndarray object keeps its data pointer: right after the object header, in every NumPy so far.

    Reading it there takes 0.16 us; `array.ctypes.data` takes 1 us, which is too much for programs with many
    arguments. 0 (use the slow way) if this interpreter's or NumPy's layout is different.
    """
    offset = object.__basicsize__
    samples = [np.zeros(n, np.float32) for n in (1, 5, 100)]
    same = all(ctypes.c_size_t.from_address(id(a) + offset).value == a.ctypes.data for a in samples)
    return offset if same else 0


_read_pointer = ctypes.c_size_t.from_address
_DATA = _find_data_offset()
