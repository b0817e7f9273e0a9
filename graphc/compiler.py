"""Questions about compilation by the names of `torch.compiler`."""

from __future__ import annotations

from typing import Any

from graphc.frontend.modes import MODE

__all__ = ["is_compiling"]


def is_compiling() -> bool:
    """Whether the code that asks is being traced by `graphc.compile`: tensors have no values then."""
    return MODE.trace is not None


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"module 'graphc.compiler' has no attribute {name!r}: a traced function is compiled whole, "
        "so no part of it can be left out"
    )
