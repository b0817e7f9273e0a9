"""Apple's GPUs, for programs that ask; graphc makes code for CPUs."""

from __future__ import annotations


def is_available() -> bool:
    """False: graphc makes code for CPUs."""
    return False


def is_built() -> bool:
    """False: graphc makes code for CPUs."""
    return False
