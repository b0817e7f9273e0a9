"""The backend that optimizers are tested on: the default one, or $GRAPHC_TEST_BACKEND."""

import os

import pytest

import graphc


@pytest.fixture(autouse=True)
def backend():
    graphc.set_backend(os.environ.get("GRAPHC_TEST_BACKEND", "llvm"))
    graphc.manual_seed(0)
    yield
    graphc.set_backend("llvm")
