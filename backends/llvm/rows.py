"""Loops written out: the calls as they run one after another, and where their arguments are then.

NumPy does it for all trips of a loop at once, so the time hardly grows with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.program import Loop, Steps, Turn


@dataclass(frozen=True, slots=True)
class Address:
    """`offset` bytes from base number `base`, moved by the trips of loops (see `program.Slot`)."""

    base: int
    offset: int
    steps: Steps = ()


Spot = Address | Turn[Address]


@dataclass(frozen=True, eq=False)
class Rows:
    """The calls as they run.

    call   int64[rows]: the number of the call
    trips  int64[rows, loops]: the trip of each loop (0 where the call is not in it)
    """

    call: np.ndarray
    trips: np.ndarray

    def groups(self) -> list[np.ndarray]:
        """For each number of a call that occurs, in ascending order, its rows."""
        order = np.argsort(self.call, kind="stable")
        ends = np.flatnonzero(np.diff(self.call[order])) + 1
        return np.split(order, ends) if len(order) else []


def write_out(count: int, loops: Sequence[Loop]) -> Rows:
    """The rows of `count` calls with these loops (outer loops before those inside them)."""
    pieces: list[Rows | None] = [
        Rows(np.array([i]), np.zeros((1, len(loops)), np.int64)) for i in range(count)
    ]
    for number, loop in reversed(list(enumerate(loops))):
        body = _joined(pieces[loop.start : loop.stop], len(loops))
        trips = np.tile(body.trips, (loop.trips, 1))
        trips[:, number] = np.repeat(np.arange(loop.trips), len(body.call))
        pieces[loop.start] = Rows(np.tile(body.call, loop.trips), trips)
        pieces[loop.start + 1 : loop.stop] = [None] * (loop.stop - loop.start - 1)
    return _joined(pieces, len(loops))


def _joined(pieces: Sequence[Rows | None], loops: int) -> Rows:
    present = [piece for piece in pieces if piece is not None]
    if not present:
        return Rows(np.zeros(0, np.int64), np.zeros((0, loops), np.int64))
    return Rows(np.concatenate([p.call for p in present]), np.concatenate([p.trips for p in present]))


def locate(spot: Spot, trips: np.ndarray) -> np.ndarray:
    """int64[rows, 2]: base number and offset of an argument on rows with these trips."""
    found = np.empty((len(trips), 2), np.int64)
    if isinstance(spot, Address):
        found[:] = spot.base, spot.offset
        for loop, step in spot.steps:
            found[:, 1] += trips[:, loop] * step
        return found
    trip = trips[:, spot.loop]
    skipped = 0 if spot.first is None else 1
    turn = (trip - skipped) % len(spot.rest)
    for number, place in enumerate(spot.rest):
        mine = turn == number
        found[mine] = locate(place, trips[mine])
    if spot.first is not None:
        start = trip == 0
        found[start] = locate(spot.first, trips[start])
    return found
