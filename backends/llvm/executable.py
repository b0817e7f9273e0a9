"""A program ready to run: pointers in, one native call, status out.

Two ways to call it. `executable(inputs, outputs)` takes all arrays each time. A caller with long-lived
arrays (parameters, optimizer state) binds those once and pays only for what changes::

    executable.bind_input(i, array)      # once; the array is kept alive until the next bind of i
    executable.bind_output(o, array)     # the same array, for a donated output
    executable.bind_input(j, batch)      # each call, for the rest
    status = executable.run()

`bind` takes all arrays and binds those that have changed; `call` binds and runs. Binding an array costs
about 0.5 us, `run` about 1 us beside the kernels. An array once bound must keep its memory (NumPy
arrays do, while somebody refers to them).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.arrays import aligned_empty
from graphc.backends.llvm import walker
from graphc.backends.llvm.company import PERIOD, Company
from graphc.backends.llvm.image import Image
from graphc.backends.llvm.runtime import Runtime, Team, pointer
from graphc.backends.llvm.table import CallTable

_LINE_WORDS = walker.LINE // 8  # no two workers' claims in one line


class Executable:
    """A compiled program; made by the backend, from an image whose objects it loads."""

    def __init__(self, image: Image, runtime: Runtime) -> None:
        self.image = image
        self._runtime = runtime
        self._code = runtime.engine.load(image.objects)
        addresses = [self._code.address(symbol) for symbol in image.symbols]
        self.table = CallTable(image.calls, image.gate, addresses, image.loops)
        self._parallel = self.table.parallel
        self._n_inputs = len(image.inputs)
        kinds = (*image.inputs, *image.outputs)
        self._kinds = tuple([(kind.shape, kind.dtype.numpy) for kind in kinds])
        self._held: list[np.ndarray | None] = [None] * len(kinds)
        self._steady: object = None
        self._bases = np.zeros(len(self._held) + len(image.constants) + 1, np.int64)
        self._words = self._bases.data
        for i, constant in enumerate(image.constants):
            self._bases[len(self._held) + i] = constant.ctypes.data
        self._job = self._new_job()
        self._job_words = self._job.data
        self._job_address = self._job.ctypes.data
        self._binding = threading.Lock()
        self._place: tuple[Team | None, int] = (None, -1)
        self._native: tuple[object, ...] = ()
        self._company = Company()
        self._unmeasured = sys.maxsize  # runs until the ways to run are compared again

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
        job[13] = -(-table.claims // _LINE_WORDS) * _LINE_WORDS
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
                self.release()

    def bind(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Bind all arrays. TypeError or ValueError for one that does not fit."""
        self._steady = None
        held = self._held
        for at, array in enumerate((*inputs, *outputs)):
            if held[at] is not array:
                self._bind(at, array)

    def call(
        self,
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        loose: tuple[Sequence[int], Sequence[int]],
        dropped: Sequence[int],
        steady: object = None,
    ) -> int:
        """Bind all arrays and run; let go of the inputs in the `dropped` positions and the `loose` outputs.

        If `steady` is the object that the last call brought, and not None, only the `loose` positions (of
        inputs, of outputs) are looked at: in the others must be the arrays of that call. TypeError or
        ValueError for arrays that do not fit; that loose outputs fit is for the caller to see.
        """
        given, made = [inputs[i] for i in loose[0]], [outputs[o] for o in loose[1]]
        status = self.again(given, made, loose, dropped, steady)
        if status is not None:
            return status
        held, first = self._held, self._n_inputs
        try:
            self.bind(inputs, outputs)
            self._steady = steady
            for o in loose[1]:
                held[first + o] = None
            return self.run_bound()
        finally:
            for i in dropped:
                held[i] = None

    def again(
        self,
        given: Sequence[np.ndarray],
        made: Sequence[np.ndarray],
        loose: tuple[Sequence[int], Sequence[int]],
        dropped: Sequence[int],
        steady: object,
    ) -> int | None:
        """As `call`, with the arrays of the `loose` positions alone. None, and nothing has happened, if
        `steady` is not the object that the last call brought."""
        if steady is None or steady is not self._steady:
            return None
        held, words, first = self._held, self._words, self._n_inputs
        try:
            for i, array in zip(loose[0], given):  # noqa: B905 (of one length; `strict` takes longer)
                if held[i] is not array:
                    self._bind(i, array)
            for o, array in zip(loose[1], made):  # noqa: B905
                words[first + o] = pointer(array)
            return self.run_bound()
        finally:
            for i in dropped:
                held[i] = None

    def bind_input(self, index: int, array: np.ndarray) -> None:
        """Read input `index` from `array` from now on. TypeError or ValueError if it does not fit."""
        self._steady = None
        self._bind(index, array)

    def bind_output(self, index: int, array: np.ndarray) -> None:
        """Write output `index` to `array` from now on. TypeError or ValueError if it does not fit."""
        self._steady = None
        self._bind(self._n_inputs + index, array)

    def _bind(self, at: int, array: np.ndarray) -> None:
        """Native code reads and writes exactly the planned bytes: nothing else gets past here."""
        shape, dtype = self._kinds[at]
        flags = array.flags if type(array) is np.ndarray else None
        if (
            flags is None
            or array.shape != shape
            or (array.dtype is not dtype and array.dtype != dtype)
            or not flags.c_contiguous
            or (at >= self._n_inputs and not flags.writeable)
        ):
            raise self._misfit(at, array)
        self._held[at] = array
        self._words[at] = pointer(array)

    def _misfit(self, at: int, array: Any) -> Exception:
        """Why an array cannot be bound."""
        output = at >= self._n_inputs
        what = self._describe(at)
        if type(array) is not np.ndarray:
            return TypeError(f"{what}: expected a NumPy array, got {type(array).__name__}")
        expected = (*self.image.inputs, *self.image.outputs)[at]
        if array.dtype != expected.dtype.numpy or array.shape != expected.shape:
            return ValueError(f"{what}: expected {expected}, got {array.dtype.name}{list(array.shape)}")
        return ValueError(f"{what}: expected a C-contiguous{' writable' * output} array")

    def release(self) -> None:
        """Let go of all arrays; they must be bound again before the next run."""
        self._steady = None
        self._held[:] = [None] * len(self._held)

    def run(self) -> int:
        """Run on the bound arrays; returns the status word.

        Programs run one at a time in a process; another thread waits here without holding the GIL.
        RuntimeError if an input or output is not bound.
        """
        self._check_bound()
        return self.run_bound()

    def _check_bound(self) -> None:
        for at, array in enumerate(self._held):
            if array is None:
                raise RuntimeError(f"{self._describe(at)} is not bound")

    def run_bound(self) -> int:
        """`run` for who has just bound all arrays."""
        runtime = self._runtime
        with runtime.lock:
            team = runtime.team() if self._parallel else None
            place = self._place
            if team is not place[0] or runtime.moves != place[1]:
                self._settle(team)
            if team is None or team.workers == 1:
                return runtime.native_run(self._job_address, None)
            if not self._unmeasured:
                return self._run_measured(team)
            self._unmeasured -= 1
            status = runtime.native_run(self._job_address, team.address)
            team.keep[self._job_words[walker.JOB_ROUND]] = self._native
            return status

    def _run_measured(self, team: Team) -> int:
        """A run of the comparison of working with the team and alone."""
        company, words = self._company, self._job_words
        words[walker.JOB_WORKERS] = 1 if company.begin() else team.workers
        start = time.perf_counter()
        status: int = self._runtime.native_run(self._job_address, team.address)
        over = company.end(time.perf_counter() - start)
        team.keep[words[walker.JOB_ROUND]] = self._native
        if over:
            words[walker.JOB_WORKERS] = 1 if company.alone else team.workers
            self._unmeasured = PERIOD
        return status

    def _settle(self, team: Team | None) -> None:
        """Write into the job where arena and scratch are, and give a team memory for its claims."""
        runtime, image, job = self._runtime, self.image, self._job_words
        workers = team.workers if team else 1
        self._words[-1] = runtime.arena(image.arena_bytes)
        job[6], job[7] = runtime.scratch(image.scratch_bytes, workers)
        job[walker.JOB_WORKERS] = workers
        self._company = Company()
        self._unmeasured = 0 if self.table.short else sys.maxsize
        if workers > 1 and team is not self._place[0]:
            assert team is not None
            words = int(job[walker.JOB_CLAIMS]) * workers
            claims = aligned_empty((words * team.rounds,), np.dtype(np.int64))
            self._job[9:11] = claims.ctypes.data, 8 * words
            self._native = (self.table, self._bases, claims)
        self._place = (team, runtime.moves)

    def profile(self, repeat: int = 10) -> list[tuple[str, float]]:
        """(kernel name, microseconds) of each planned call, those in loops on all their trips, on one
        thread: the best of `repeat` whole runs.

        Runs the program `repeat` times on the bound arrays, so donated state changes as often.
        """
        job = self._new_job()
        table, runtime = self.table, self._runtime
        spent = np.zeros((repeat, table.count))
        self._check_bound()
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
