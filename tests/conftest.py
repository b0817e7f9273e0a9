"""Shared fixtures: a private compile cache, and golden texts rewritten by --update-golden."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/*.txt")


def pytest_configure(config: pytest.Config) -> None:
    """Tests never touch the user's own cache; workers of one run share one folder."""
    if "GRAPHC_CACHE" not in os.environ:
        root = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
        base = Path(config.rootpath) / ".pytest_cache" / "graphc" / root
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.environ["GRAPHC_CACHE"] = str(base)


def pytest_collection_finish(session: pytest.Session) -> None:
    """PyTorch, the oracle, runs on one thread: two of them, given so little, mostly spin (up to thirty times
    the processor time), and other tests wait for the processors."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The counts that the tests in tests/parity noted: of each kind, over all workers."""
    counts: dict[str, list[int]] = {}
    for reports in terminalreporter.stats.values():
        for item in reports:
            for name, noted in getattr(item, "user_properties", ()):
                if name == "parity" and getattr(item, "when", "") == "call":
                    row = counts.setdefault(noted[0], [0, 0, 0, 0])
                    counts[noted[0]] = [a + b for a, b in zip(row, noted[1:], strict=True)]
    for kind, (passed, in_scope, expected, still_open) in sorted(counts.items()):
        terminalreporter.write_line(
            f"parity: {kind}: {passed} of {in_scope} in scope pass ({100 * passed / max(1, in_scope):.2f}%), "
            f"{expected} expected failures outside the contract, {still_open} open"
        )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("name", text)` compares text with tests/golden/name.txt."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text()

    return check
