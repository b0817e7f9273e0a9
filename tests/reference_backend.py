"""Tests of what is not the compiler's run on the NumPy backend, which compiles nothing; a few ask for the
native one. The conftest.py of a folder imports both names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import graphc
from graphc.frontend.evaluation import lazy


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the mark."""
    config.addinivalue_line("markers", "native: runs on the LLVM backend")


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """NumPy, unless the test is marked with `native`."""
    before = lazy.SETTINGS.backend
    graphc.set_backend("llvm" if request.node.get_closest_marker("native") else "reference")
    graphc.manual_seed(0)
    yield lazy.SETTINGS.backend
    graphc.set_backend(before)
