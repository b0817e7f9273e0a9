"""Keeping the garbage collector out of what makes many objects that stay."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def no_collections(function: F) -> F:
    """A decorator: nothing is collected while the function runs.

    Tracing and compiling make many objects, most of which stay: the garbage collector would look at them
    again and again, for a tenth of the time. (The frame of contextlib's decorator would be taken for the
    user's line, see `frontend/sites.py`.)
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            if enabled:
                gc.enable()

    return wrapper  # type: ignore[return-value]
