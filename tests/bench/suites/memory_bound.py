"""Operators that memory limits: the cases of `tests.bench.kernel_cases`, with arrays beyond every cache."""

from __future__ import annotations

from tests.bench.kernel_cases import CASES, Case
from tests.bench.workload import Operator, Workload


def _operator(case: Case) -> Operator:
    return Operator(case.op, lambda: tuple(case.arrays("large")), case.grad, unread=case.unread)


WORKLOADS: dict[str, Workload] = {name: _operator(case) for name, case in CASES.items()}
