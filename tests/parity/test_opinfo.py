"""Torch's OpInfo samples: values, gradients, methods and in-place forms, lazily and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import adapters
from .databases import OPS
from .ledger import Failure, settle, shorten
from .survey import LIMIT, NATIVE, natively, survey, thoroughly

# slow: minutes in all; CI runs it
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAMES = sorted(adapters.CONTRACT)
Record = Callable[[str, Any], None]


def judge(record: Record, name: str, kind: str, limit: int, ways: Any) -> None:
    """Settle one op's failures, and note the counts for the summary at the end of the run."""
    try:
        count, failures = survey(name, limit, ways)
    except AttributeError as error:
        count, failures = 1, [Failure("lazy", "missing", -1, str(error))]
    found = settle(name, failures, counted=ways is thoroughly)
    failed = len({(f.dtype, f.index) for f in failures})
    expected, still_open = len(found.expected), len(found.open)
    record("parity", [kind, count - failed, count - expected, expected, still_open])
    assert not found.problems, "\n" + shorten(found.problems)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("reference_backend")
def test_samples(name: str, record_property: Record) -> None:
    judge(record_property, name, "OpInfo samples", LIMIT, thoroughly)


@pytest.mark.parametrize("name", NAMES)
def test_samples_natively(name: str, record_property: Record) -> None:
    """A few samples of every op and dtype as native code (the op table runs the primitives natively)."""
    judge(record_property, name, "OpInfo samples run natively", NATIVE, natively)


def test_every_name_of_the_database_is_placed() -> None:
    listed = [name for section in adapters.sections().values() for name in section]
    assert sorted(listed) == sorted(OPS)
