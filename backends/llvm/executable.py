"""A program ready to run: pointers in, one native call, status out.

Two ways to call it. `executable(inputs, outputs)` takes all arrays each time. A caller with long-lived
arrays (parameters, optimizer state) binds those once and pays only for what changes::

    executable.bind_input(i, array)      # once; the array is kept alive until the next bind of i
    executable.bind_output(o, array)     # the same array, for a donated output
    executable.bind_input(j, batch)      # each call, for the rest
    status = executable.run()

`bind` takes all arrays and binds those that have changed. Binding costs about 0.5 us, `run` about 1 us
beside the kernels. An array once bound must keep its memory
(NumPy arrays do, while somebody refers to them).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

import numpy as np

from graphc.backends.llvm import walker
from graphc.backends.llvm.image import Image
from graphc.backends.llvm.runtime import Runtime, Team, pointer
from graphc.backends.llvm.table import CallTable
from graphc.ir.types import TensorType


class Executable:
    """A compiled program; made by the backend, from an image whose objects it loads."""

    def __init__(self, image: Image, runtime: Runtime) -> None:
        self.image = image
        self._runtime = runtime
        self._code = runtime.engine.load(image.objects)
        addresses = [self._code.address(symbol) for symbol in image.symbols]
        self.table = CallTable(image.calls, image.gate, addresses, image.loops)
        self._n_inputs = len(image.inputs)
        self._held: list[np.ndarray | None] = [None] * (self._n_inputs + len(image.outputs))
        self._missing = set(range(len(self._held)))
        self._bases = np.zeros(len(self._held) + len(image.constants) + 1, np.int64)
        self._words = self._bases.data
        for i, constant in enumerate(image.constants):
            self._bases[len(self._held) + i] = constant.ctypes.data
        self._job = self._new_job()
        self._job_words = self._job.data
        self._job_address = self._job.ctypes.data
        self._binding = threading.Lock()
        self._team: Team | None = None
        self._native: tuple[object, ...] = ()

    def _new_job(self) -> np.ndarray:
        table = self.table
        job = np.zeros(walker.JOB_WORDS, np.int64)
        job[:6] = (
            table.rows.ctypes.data,
            table.count,
            table.gate,
            table.slots.ctypes.data,
            self._bases.ctypes.data,
            table.widest,
        )
        job[11] = table.tasks
        job[13] = table.claims
        return job

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> int:
        """Run on C-contiguous arrays of the planned types; outputs are written in place.

        Returns 0, or the code of a failed check (a position in `image.checks`, plus one). Safe to call from
        several threads; the arrays are not kept. TypeError or ValueError for arrays that do not fit.
        """
        with self._binding:
            try:
                for i, array in enumerate(inputs):
                    self.bind_input(i, array)
                for i, array in enumerate(outputs):
                    self.bind_output(i, array)
                return self.run()
            finally:
                self._held = [None] * len(self._held)
                self._missing = set(range(len(self._held)))

    def bind(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Bind all arrays. TypeError or ValueError for one that does not fit."""
        held, first = self._held, self._n_inputs
        for i, array in enumerate(inputs):
            if held[i] is not array:
                self.bind_input(i, array)
        for at, array in enumerate(outputs, first):
            if held[at] is not array:
                self.bind_output(at - first, array)

    def bind_input(self, index: int, array: np.ndarray) -> None:
        """Read input `index` from `array` from now on. TypeError or ValueError if it does not fit."""
        if self._held[index] is not array:
            _check("input", index, array, self.image.inputs[index])
            self._bind(index, array)

    def bind_output(self, index: int, array: np.ndarray) -> None:
        """Write output `index` to `array` from now on. TypeError or ValueError if it does not fit."""
        at = self._n_inputs + index
        if self._held[at] is not array:
            _check("output", index, array, self.image.outputs[index])
            self._bind(at, array)

    def _bind(self, at: int, array: np.ndarray) -> None:
        self._held[at] = array
        self._words[at] = pointer(array)
        self._missing.discard(at)

    def release(self, inputs: Iterable[int], outputs: Iterable[int]) -> None:
        """Let go of arrays that need not stay alive; they must be bound again before the next run."""
        for at in inputs:
            self._held[at] = None
            self._missing.add(at)
        for o in outputs:
            self._held[self._n_inputs + o] = None
            self._missing.add(self._n_inputs + o)

    def run(self) -> int:
        """Run on the bound arrays; returns the status word.

        Programs run one at a time in a process; another thread waits here without holding the GIL.
        RuntimeError if an input or output is not bound.
        """
        if self._missing:
            raise RuntimeError(f"{self._describe(min(self._missing))} is not bound")
        runtime = self._runtime
        image = self.image
        with runtime.lock:
            team: Team | None = runtime.team() if self.table.parallel else None
            workers = team.workers if team else 1
            job = self._job_words
            self._words[-1] = runtime.arena(image.arena_bytes)
            job[6], job[7] = runtime.scratch(image.scratch_bytes, workers)
            job[8] = workers
            if team is None or workers == 1:
                return runtime.native_run(self._job_address, None)
            self._join(team)
            status = runtime.native_run(self._job_address, team.address)
            team.keep[job[walker.JOB_ROUND]] = self._native
            return status

    def _join(self, team: Team) -> None:
        """Prepare memory for the claims of a team's workers, unless it is the team of the last run."""
        if team is self._team:
            return
        words = self.table.claims * team.workers
        claims = np.zeros(words * team.rounds, np.int64)
        self._job[9:11] = claims.ctypes.data, 8 * words
        self._native = (self.table, self._bases, claims)
        self._team = team

    def profile(self, repeat: int = 10) -> list[tuple[str, float]]:
        """(kernel name, microseconds) of each planned call, those in loops on all their trips, on one
        thread: the best of `repeat` whole runs.

        Runs the program `repeat` times on the bound arrays, so donated state changes as often.
        """
        job = self._new_job()
        table, runtime = self.table, self._runtime
        spent = np.zeros((repeat, table.count))
        if self._missing:
            raise RuntimeError(f"{self._describe(min(self._missing))} is not bound")
        with runtime.lock:
            self._words[-1] = runtime.arena(self.image.arena_bytes)
            job[6:9] = (*runtime.scratch(self.image.scratch_bytes, 1), 1)
            words, address, row = job.data, job.ctypes.data, table.rows.itemsize * walker.CALL_WORDS
            words[1] = 0
            asking = min([self._seconds(address) for _ in range(100)])
            words[1] = 1
            for times in spent:
                for number in range(table.count):
                    words[0] = table.rows.ctypes.data + row * number
                    times[number] = self._seconds(address) - asking
        best = np.bincount(table.call, spent.min(axis=0), len(self.image.calls))
        names = (self.image.names[call.kernel] for call in self.image.calls)
        return list(zip(names, (1e6 * best).tolist(), strict=True))

    def _seconds(self, job: int) -> float:
        start = time.perf_counter()
        self._runtime.native_run(job, None)
        return time.perf_counter() - start

    def _describe(self, at: int) -> str:
        return f"input {at}" if at < self._n_inputs else f"output {at - self._n_inputs}"


def _check(what: str, index: int, array: np.ndarray, expected: TensorType) -> None:
    """What native code relies on; it reads and writes exactly the planned bytes."""
    if type(array) is not np.ndarray:
        raise TypeError(f"{what} {index}: expected a NumPy array, got {type(array).__name__}")
    if array.dtype != expected.dtype.numpy or array.shape != expected.shape:
        raise ValueError(f"{what} {index}: expected {expected}, got {array.dtype.name}{list(array.shape)}")
    flags = array.flags
    if not flags.c_contiguous or (what == "output" and not flags.writeable):
        raise ValueError(f"{what} {index}: expected a C-contiguous{' writable' * (what == 'output')} array")
