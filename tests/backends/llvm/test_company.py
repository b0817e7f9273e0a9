"""Short programs run with the team or alone, whichever their own runs show to be faster."""

from __future__ import annotations

import numpy as np
import pytest
from plans import SHAPE, chain_numpy, chain_plan

from graphc import threads
from graphc.backends.llvm import Backend
from graphc.backends.llvm import executable as executable_module
from graphc.backends.llvm.company import COMPARED, TRIED, Company


def compare(company: Company, seconds: dict[bool, float]) -> list[bool]:
    """Whether each run of a comparison was alone, if runs alone and together take these times."""
    seen, over = [], False
    while not over:
        seen.append(company.begin())
        over = company.end(seconds[seen[-1]])
    return seen


def test_the_faster_way_is_taken_and_the_other_is_tried_again() -> None:
    company, rest = Company(), COMPARED - TRIED
    assert compare(company, {True: 1.0, False: 2.0}) == [True] * TRIED + [False] * rest
    assert company.alone
    assert compare(company, {True: 1.0, False: 2.0}) == [False] * TRIED + [True] * rest
    assert company.alone
    compare(company, {True: 2.0, False: 1.0})  # the machine has changed
    assert not company.alone


def test_a_way_that_is_hardly_faster_is_left() -> None:
    company = Company()
    compare(company, {True: 0.95, False: 1.0})
    assert not company.alone


def test_the_fastest_runs_count() -> None:
    """Others find helpers asleep, or are disturbed."""
    company = Company()
    for run in range(COMPARED):
        slow = run not in (TRIED - 1, COMPARED - 1)
        company.end(5.0 if slow else 1.0 if run < TRIED else 0.5)
    assert not company.alone


def test_a_program_compares_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_chosen", 2)
    monkeypatch.setattr(executable_module, "PERIOD", 10)
    compared = []

    class Watched(Company):
        def end(self, seconds: float) -> bool:
            compared.append(seconds)
            return super().end(seconds)

    monkeypatch.setattr(executable_module, "Company", Watched)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    executable = Backend().compile(None, chain_plan(8))
    executable.table.short = True
    out, total = np.empty(SHAPE, np.float32), np.empty(1, np.float32)
    for _ in range(COMPARED + 10 + 3):
        assert executable([x], [out, total]) == 0
    assert len(compared) == COMPARED + 3
    long = Backend().compile(None, chain_plan(8))
    long.table.short = False
    assert long([x], [out, total]) == 0
    assert len(compared) == COMPARED + 3


@pytest.mark.parametrize("alone", [False, True])
def test_results_are_the_same_either_way(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Always(Company):
        def begin(self) -> bool:
            return alone

    monkeypatch.setattr(executable_module, "Company", Always)
    monkeypatch.setattr(threads, "_chosen", threads._chosen)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    executable = Backend().compile(None, chain_plan(8))
    executable.table.short = True
    results = []
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        for _ in range(5):
            out, total = np.empty(SHAPE, np.float32), np.empty(1, np.float32)
            assert executable([x], [out, total]) == 0
        np.testing.assert_allclose(out, chain_numpy(x, 8), rtol=1e-5)
        results.append((out.tobytes(), total.tobytes()))
    assert results[0] == results[1] == results[2]
