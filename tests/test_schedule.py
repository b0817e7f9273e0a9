"""The order of kernel calls: valid, repeatable, never worse than program order."""

from __future__ import annotations

import random

import pytest

from graphc.ir.types import TensorType, float32, int64
from graphc.loop.ir import Buffer, Kernel, Var
from graphc.loop.lowered import KernelCall, Temp
from graphc.schedule import Precedence, Work, order, peak

KERNEL = Kernel("k", (Buffer("p", float32, ()),), Var(int64, "t", 1), 1, ())


def value(name: str, size: int) -> Temp:
    return Temp(name, TensorType((size,), float32))


def work(reads: list[Temp], writes: list[Temp]) -> Work:
    return Work((KernelCall(KERNEL, (*reads, *writes), tuple(range(len(reads), len(reads) + len(writes)))),))


def test_gradients_die_at_once() -> None:
    """All gradients then all updates: each update moves up to its gradient."""
    gradients = [value(f"g{i}", 100) for i in range(5)]
    works = [work([], [g]) for g in gradients] + [work([g], []) for g in gradients]
    precedence = Precedence(works)
    size = dict.fromkeys(gradients, 400)
    assert peak(precedence, range(10), size) == 2000
    assert peak(precedence, order(precedence, size), size) == 400


def test_program_order_is_kept_where_nothing_is_gained() -> None:
    values = [value(f"v{i}", 1) for i in range(4)]
    works = [work([], [values[0]])] + [work([values[i]], [values[i + 1]]) for i in range(3)]
    assert order(Precedence(works), {}) == [0, 1, 2, 3]


def test_added_edges_hold() -> None:
    a, b = value("a", 4), value("b", 4)
    precedence = Precedence([work([], [a]), work([], [b])])
    precedence.add_edge(1, 0)
    assert order(precedence, {a: 16, b: 16}) == [1, 0]
    assert precedence.reaches(1, [0])
    assert not precedence.reaches(0, [1])
    assert precedence.ancestors(0) == {1}
    precedence.add_edge(0, 1)
    with pytest.raises(ValueError, match="2 of 2 groups depend on each other in a circle"):
        order(precedence, {})


@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed: int) -> None:
    pick = random.Random(seed)
    values: list[Temp] = []
    works = []
    for i in range(40):
        reads = pick.sample(values, min(len(values), pick.randint(0, 3)))
        writes = [value(f"{i}.{k}", pick.randint(0, 1000)) for k in range(pick.randint(0, 2))]
        works.append(work(reads, writes))
        values += writes
    size = {v: v.type.nbytes for v in values if pick.random() < 0.8}
    precedence = Precedence(works)
    sequence = order(precedence, size)
    assert sorted(sequence) == list(range(40))
    place = {w: n for n, w in enumerate(sequence)}
    assert all(place[b] < place[i] for i in range(40) for b in precedence.before[i])
    assert sequence == order(Precedence(works), size)
    assert peak(precedence, sequence, size) <= peak(precedence, range(40), size)
