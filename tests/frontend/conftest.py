"""These tests run on the NumPy backend, unless they ask for the native one."""

from tests.reference_backend import backend, pytest_configure

__all__ = ["backend", "pytest_configure"]
