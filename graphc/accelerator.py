"""There is no accelerator here; programs that ask for the current one get none and go on with the CPU."""

from __future__ import annotations


def is_available() -> bool:
    """False: graphc computes on the CPU."""
    return False


def current_accelerator(check_available: bool = False) -> None:
    """None: graphc computes on the CPU."""


def device_count() -> int:
    """0."""
    return 0


def synchronize() -> None:
    """Nothing to wait for."""
