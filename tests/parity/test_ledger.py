"""The drivers can fail: wrong values, gradients and dtypes are seen, and the lists allow nothing else."""

from __future__ import annotations

import pytest

import graphc

from . import ledger
from .databases import OPS, torch
from .ledger import Entry, Failure, settle
from .running import Operation, call, cases, check

KNOWN = Entry("op", "lazy", "float32", 2, "shape", "a reason", open=False)


def failures(count: int, message: str = "shape [1] instead of [2]") -> list[Failure]:
    return [Failure("lazy", "float32", i, message) for i in range(count)]


def test_failures_are_settled_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "ENTRIES", [KNOWN])
    assert settle("op", failures(2)).problems == []
    assert settle("op", failures(2)).expected == {("float32", 0), ("float32", 1)}
    assert "correct the list" in settle("op", failures(1)).problems[0]  # one passes unexpectedly
    assert "correct the list" in settle("op", failures(3)).problems[0]
    assert len(settle("op", [*failures(2), *failures(1, "other values")]).problems) == 1
    assert settle("op", [Failure("lazy", "float64", 0, "shape")]).problems[0].startswith("lazy float64")
    assert settle("other", []).problems == []


def test_what_is_open_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "ENTRIES", [Entry("op", "*", "*", 2, "", "open", open=True)])
    found = settle("op", failures(2))
    assert (len(found.open), len(found.expected)) == (2, 0)


def test_a_reason_is_given_for_everything() -> None:
    for entry in ledger.ENTRIES:
        assert len(entry.reason) > 20 or entry.open, entry


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("sin", graphc.cos, "values differ"),
        ("sin", lambda x: x.sin().detach(), "require grad"),
        ("sin", lambda x: x.sin() + 0 * x.detach() + (x - x.detach()), "gradient"),
        ("sum", lambda x, *args, **kwargs: x.sum(*args, **kwargs).double(), "float64 instead of"),
        ("exp", lambda x: x.exp().unsqueeze(0), "shape"),
        ("split", lambda x, *args, **kwargs: x.split(*args, **kwargs)[:1], "require grad instead of 3"),
    ],
)
def test_wrong_functions_are_seen(name: str, function: object, message: str) -> None:
    case = next(c for c in cases(OPS[name], torch.float32, 5) if c.grads is not None)
    op = Operation(name, function)  # type: ignore[arg-type]
    assert message in check(call, op.function, op, case)
