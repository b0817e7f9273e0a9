"""All samples of one OpInfo: the ways in which each is computed, and the failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import adapters
from .databases import OPS, torch
from .ledger import Failure
from .running import Case, Operation, call, call_compiled, call_inplace, cases, check, outside, uses_method

DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]
LIMIT = 100  # samples of an op and a dtype; a few pooling and searching ops have thousands
NATIVE = 2  # samples of an op and a dtype that run natively, beside all those that NumPy runs


def thoroughly(op: Operation, case: Case) -> Iterator[tuple[str, str]]:
    """(check, how it differs) for all ways of computing one case; the rest is skipped if the first fails."""
    first = check(call, op.function, op, case)
    yield "lazy", first
    if first:
        return
    found = check(call_compiled, op.function, op, case)
    yield "compiled", "" if op.lazy and found.startswith("TracerError") else found
    if op.method is not None and uses_method(case):
        yield "method", check(call, op.method, op, case)
    if op.inplace is not None and case.inplace is not None:
        yield "inplace", check(call_inplace, op.inplace, op, case.inplace)


def natively(op: Operation, case: Case) -> Iterator[tuple[str, str]]:
    """One check in native code: every second case is compiled as a function."""
    way = call if case.index == 0 or op.lazy else call_compiled
    yield "native", check(way, op.function, op, case)


def survey(
    name: str, limit: int, ways: Callable[[Operation, Case], Iterator[tuple[str, str]]]
) -> tuple[int, list[Failure]]:
    """How many in-scope samples an op has, and what fails. AttributeError if graphc has no such op."""
    op, info = adapters.operation(name, adapters.CONTRACT[name]), OPS[name]
    count, failures = 0, []
    for dtype in DTYPES:
        if dtype not in info.supported_dtypes("cpu"):
            continue
        label = str(dtype).removeprefix("torch.")
        for case in cases(info, dtype, limit):
            if not outside(case):
                count += 1
                failures += [Failure(w, label, case.index, m) for w, m in ways(op, case) if m]
    return count, failures
