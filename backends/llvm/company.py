"""Whether a short program runs faster with the team or alone, as its own runs tell.

Two threads pay for each line of memory that one wrote and the other reads: some 50 ns where their CPUs share
a cache, up to a microsecond where they do not, as in a guest whose two CPUs are cores of different packages.
No estimate knows which it is, and in a guest it changes from one minute to the next. Results do not depend on
the number of threads, so the faster way can be taken, and the other one tried from time to time.
"""

from __future__ import annotations

import math

PERIOD = 2048  # runs from one comparison to the next
TRIED = 16  # runs in the other way
COMPARED = 48  # runs of a comparison; more in the present way, whose helpers may have gone to sleep meanwhile
WORTH = 0.9  # the other way has to take less than so much of the time


class Company:
    """A comparison of the two ways, over and over again: `alone = begin()`, a run, `over = end(seconds)`, and
    after the last run of a comparison `alone` is the way of the next `PERIOD` runs. Not thread-safe."""

    def __init__(self) -> None:
        self.alone = False
        self._run = 0
        self._other = self._own = math.inf  # the fastest runs

    def begin(self) -> bool:
        """Whether the next run of the comparison is for the calling thread alone."""
        return self.alone is not (self._run < TRIED)

    def end(self, seconds: float) -> bool:
        """Tell how long the run has taken. Whether it was the last one of the comparison."""
        if self._run < TRIED:
            self._other = min(self._other, seconds)
        else:
            self._own = min(self._own, seconds)
        self._run += 1
        if self._run < COMPARED:
            return False
        if self._other < WORTH * self._own:
            self.alone = not self.alone
        self._run = 0
        self._other = self._own = math.inf
        return True
