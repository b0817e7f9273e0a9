"""What uneven tasks lose is what workers would wait for, counted task by task."""

from __future__ import annotations

from itertools import pairwise

import pytest

from graphc.loop.lower.contraction.balance import THREADS, Side, imbalance
from graphc.loop.lower.contraction.blocking import idle


def sizes_of(side: Side) -> list[float]:
    return [side.size] * (side.blocks - 1) + [side.last]


def own_shares(tasks: list[float], workers: int) -> list[float]:
    ends = [len(tasks) * w // workers for w in range(workers + 1)]
    return [sum(tasks[a:b]) for a, b in pairwise(ends)]


def with_help(tasks: list[float], workers: int) -> float:
    """When the last worker is done, if those who are done take over others' tasks one at a time."""
    ends = [len(tasks) * w // workers for w in range(workers + 1)]
    left = [tasks[a:b] for a, b in pairwise(ends)]
    clock = [0.0] * workers
    while any(left):
        worker = min(range(workers), key=lambda w: clock[w])
        owners = [(worker + turn) % workers for turn in range(workers)]
        clock[worker] += next(left[w] for w in owners if left[w]).pop(0)
    return max(clock)


GRIDS = [
    (1, Side.cut(86, 22), Side.cut(12.25, 7)),
    (1, Side.cut(12.25, 7), Side.cut(86, 22)),
    (4, Side.cut(11, 11), Side.cut(5, 3)),
    (3, Side.cut(7, 2), Side.cut(9, 4)),
    (1, Side.cut(1, 1), Side.cut(10, 3)),
    (16, Side.cut(5, 2), Side.cut(2.5, 1)),
]


@pytest.mark.parametrize("grids,outer,inner", GRIDS)
def test_waits_are_those_of_the_tasks(grids: int, outer: Side, inner: Side) -> None:
    tasks = [a * b for a in sizes_of(outer) for b in sizes_of(inner)] * grids
    whole = sum(tasks)
    longest = []
    for n in THREADS:
        helped = (whole + max(tasks) * (n - 1)) / n
        longest.append(min(max(own_shares(tasks, n)), helped))
        assert longest[-1] >= with_help(tasks, n) - 1e-9
    expected = sum(t * n / whole for t, n in zip(longest, THREADS, strict=True)) / len(THREADS)
    assert imbalance(grids, outer, inner, THREADS[-1]) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_equal_tasks(count: int) -> None:
    for worth in (1, 2, 8):
        found = imbalance(1, Side.cut(5 * count, 5), Side.cut(3, 3), worth)
        assert found == pytest.approx(idle(count, worth))


def test_a_side_is_cut() -> None:
    assert Side.cut(12.25, 7) == Side(2, 7, 5.25)
    assert Side.cut(6, 7) == Side(1, 7, 6)
    assert Side.cut(6, 7).largest == Side.cut(6, 7).total == 6
