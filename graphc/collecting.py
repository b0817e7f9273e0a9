"""Keeping the garbage collector out of what makes many objects that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Within this (also a decorator) nothing is collected.

    Tracing and compiling make many objects, most of which stay: the garbage collector would look at them
    again and again, for a tenth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
