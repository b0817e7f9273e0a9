"""Torch's ModuleInfo: text, state, values, gradients and buffers; train and eval, lazy and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .databases import MODULES, torch
from .ledger import Failure, settle, shorten
from .module_running import attempt

# slow: minutes in all; CI runs it
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAMES = Path(__file__).with_name("modules.txt")
OUTSIDE = [line for line in NAMES.read_text().splitlines() if line.startswith("nn.")]
# (dtype, training, compiled): float64 once, the lazy and the compiled form in both modes.
RUNS = [
    (torch.float32, True, False),
    (torch.float32, False, False),
    (torch.float32, True, True),
    (torch.float32, False, True),
    (torch.float64, True, False),
]
LIMIT = 12  # inputs of a module in one run, spread evenly: some have a hundred


def judge(record: Callable[[str, Any], None], name: str, kind: str, runs: list[Any], limit: int) -> None:
    failures, count = [], 0
    for dtype, training, compiled in runs:
        if not training and not MODULES[name].train_and_eval_differ:
            continue
        label = f"{str(dtype).removeprefix('torch.')} {'train' if training else 'eval'}"
        found = list(attempt(name, dtype, training, compiled, limit))
        count += len({index for index, *_ in found})
        failures += [Failure(check, label, index, text) for index, check, text in found if text]
    account = settle(name, failures)
    failed = len({(f.dtype, f.index) for f in failures})
    record(
        "parity",
        [kind, count - failed, count - len(account.expected), len(account.expected), len(account.open)],
    )
    assert not account.problems, "\n" + shorten(account.problems)


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(OUTSIDE)))
@pytest.mark.usefixtures("reference_backend")
def test_module(name: str, record_property: Callable[[str, Any], None]) -> None:
    judge(record_property, name, "ModuleInfo inputs", RUNS, LIMIT)


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(OUTSIDE)))
def test_module_natively(name: str, record_property: Callable[[str, Any], None]) -> None:
    judge(record_property, name, "ModuleInfo inputs run natively", [(torch.float32, True, False)], 2)


def test_names_outside_the_contract_exist_in_the_database() -> None:
    assert set(OUTSIDE) <= set(MODULES)
