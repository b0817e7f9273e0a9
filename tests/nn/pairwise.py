"""Combinations of options such that any two values of any two options occur together in some case."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

Case = dict[str, Any]


def title(case: Case) -> str:
    """The name of a case."""
    return "-".join(str(value) for value in case.values())


def compiled_once(cases: Sequence[Case]) -> list[Any]:
    """Cases as parameters of a test: the compiled ones meet every value of every option, and NumPy runs the
    nodes of the others."""
    met: set[tuple[str, Any]] = set()
    found = []
    for case in cases:
        new = set(case.items()) - met
        met |= new
        found.append(pytest.param(case, id=title(case), marks=[] if new else [pytest.mark.numpy]))
    return found


def pairwise(
    options: Mapping[str, Sequence[Any]], allowed: Callable[[Case], bool] = lambda case: True
) -> list[Case]:
    """A short list of cases, found greedily: each takes the values that meet most pairs not met yet."""
    names = list(options)
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i in range(len(options[a]))
        for j in range(len(options[b]))
    }
    cases: list[Case] = []
    every = [dict(zip(names, picks, strict=True)) for picks in _product(options)]
    possible = [case for case in every if allowed({n: options[n][i] for n, i in case.items()})]
    met = [_pairs(case) for case in possible]
    missing &= set().union(*met)
    while missing:
        best = max(range(len(possible)), key=lambda i: len(met[i] & missing))
        missing -= met[best]
        cases.append({n: options[n][i] for n, i in possible[best].items()})
    return cases


def _product(options: Mapping[str, Sequence[Any]]) -> Any:
    return itertools.product(*[range(len(values)) for values in options.values()])


def _pairs(case: dict[str, int]) -> frozenset[Any]:
    return frozenset(itertools.combinations(case.items(), 2))
