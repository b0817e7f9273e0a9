"""The backend that layers are tested on: the default one, or $GRAPHC_TEST_BACKEND. NumPy for tests marked so:
what they are about is which nodes a layer makes, and others see to it that those are compiled well."""

import os

import pytest

import graphc


def pytest_configure(config):
    """Tell pytest of the mark."""
    config.addinivalue_line("markers", "numpy: runs on the NumPy backend")


@pytest.fixture(autouse=True)
def backend(request):
    plain = "reference" if request.node.get_closest_marker("numpy") else "llvm"
    graphc.set_backend(os.environ.get("GRAPHC_TEST_BACKEND", plain))
    graphc.manual_seed(0)
    yield
    graphc.set_backend("llvm")
