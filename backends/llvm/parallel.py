"""Compiles many modules on several CPUs.

Every llvmlite call takes a lock of the process, so threads do not help: helper processes do. They are
started for programs of many kernels, take modules from a queue as they come, and end with the batch; this
process takes part when it has no more to add. A helper that cannot start or dies costs nothing but its help.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from graphc.backends.llvm.target import Target, machine_options
from graphc.threads import get_num_threads

FEWEST = 10  # modules; fewer are compiled here before a helper is ready
MOST_HELPERS = 7
_READY, _DONE = b"R", b"\1"  # as in worker.py
_LENGTH_BYTES = 8

Build = Callable[[str, Target], bytes]


class Crew:
    """Modules being compiled by helpers; to be used as a context manager, which sends them home."""

    def __init__(self, target: Target, build: Build, expected: int, after: int = 0) -> None:
        """`build` compiles a text in this process; about `expected` modules are to come.

        Helpers start when `after` modules have come: of those expected, caches may know most.
        """
        self._target, self._build = target, build
        self._batch = _Batch()
        self._missing = after
        wanted = min(get_num_threads() - 1, MOST_HELPERS, expected // FEWEST) if sys.executable else 0
        self.helpers = max(0, wanted)

    def __enter__(self) -> Crew:
        if not self._missing:
            self._start()
        return self

    def _start(self) -> None:
        for _ in range(self.helpers):
            threading.Thread(target=_drive, args=(self._batch, self._target), daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self._batch.close()

    def add(self, text: str) -> None:
        """Queue a module."""
        self._batch.add(text)
        self._missing -= 1
        if not self._missing:
            self._start()

    def finish(self) -> list[bytes]:
        """Compile what is left; the object code of all modules, in the order they came."""
        while not self._batch.wait():
            while (job := self._batch.take()) is not None:
                self._batch.finish(job[0], self._build(job[1], self._target))
        return self._batch.results()


def build_all(emit: Sequence[Callable[[], str]], target: Target, build: Build) -> list[bytes]:
    """Object code of each module; `emit` gives its text, `build` compiles a text in this process."""
    with Crew(target, build, len(emit)) as crew:
        if not crew.helpers:
            return [build(text(), target) for text in emit]
        for text in emit:
            crew.add(text())
        return crew.finish()


class _Batch:
    """Jobs waiting, jobs out, and results, by number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, str]] = deque()
        self._codes: list[bytes | None] = []
        self._left = 0
        self._closed = False

    def add(self, text: str) -> None:
        """Queue a new job."""
        with self._changed:
            self._waiting.append((len(self._codes), text))
            self._codes.append(None)
            self._left += 1
            self._changed.notify_all()

    def give_back(self, number: int, text: str) -> None:
        """Queue a job that a helper could not do."""
        with self._changed:
            self._waiting.append((number, text))
            self._changed.notify_all()

    def take(self) -> tuple[int, str] | None:
        """A job, if one is waiting."""
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def take_or_wait(self) -> tuple[int, str] | None:
        """A job as soon as there is one; None when the batch is over."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if not self._closed else None

    def finish(self, number: int, code: bytes) -> None:
        """Record a result."""
        with self._changed:
            self._codes[number] = code
            self._left -= 1
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for jobs that are out; True when all is done, False when a job is waiting."""
        with self._changed:
            while self._left and not self._waiting:
                self._changed.wait()
            return not self._left

    def close(self) -> None:
        """Send the helpers home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def results(self) -> list[bytes]:
        """All the object code, in order."""
        return [code for code in self._codes if code is not None]


def _drive(batch: _Batch, target: Target) -> None:
    """Feed one helper process until the batch is over."""
    script = Path(__file__).with_name("worker.py")
    command = [sys.executable, "-P", str(script)]  # -P: the folder of this script has a math.py
    try:
        helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return
    with contextlib.suppress(OSError), helper:  # a broken pipe is a dead helper
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.write(json.dumps(machine_options(target)).encode() + b"\n")
        helper.stdin.flush()
        if helper.stdout.read(1) == _READY:
            _feed(batch, helper.stdin, helper.stdout)


def _feed(batch: _Batch, requests: IO[bytes], answers: IO[bytes]) -> None:
    while (job := batch.take_or_wait()) is not None:
        number, text = job
        code = None
        try:
            code = _ask(text, requests, answers)
        finally:
            if code is None:
                batch.give_back(number, text)
            else:
                batch.finish(number, code)
        if code is None:
            return


def _ask(text: str, requests: IO[bytes], answers: IO[bytes]) -> bytes | None:
    """The helper's object code; None if it failed or died."""
    data = text.encode()
    requests.write(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
    requests.flush()
    head = answers.read(1 + _LENGTH_BYTES)
    if head[:1] != _DONE:
        return None
    length = int.from_bytes(head[1:], "little")
    code = answers.read(length)
    return code if len(code) == length else None
