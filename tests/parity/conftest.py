"""What the drivers of the databases share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import graphc
from graphc.frontend.evaluation.lazy import SETTINGS


@pytest.fixture
def reference_backend() -> Iterator[None]:
    """Programs are run by NumPy: quick to make, and each still passes through all passes."""
    before = SETTINGS.backend
    graphc.set_backend("reference")
    yield
    graphc.set_backend(before)
