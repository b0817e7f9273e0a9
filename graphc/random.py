"""The default generator's functions under the names of `torch.random`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphc.frontend.functions.random import (
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)

__all__ = [
    "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state",
]  # fmt: skip


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **_options: Any) -> Iterator[None]:
    """Put the generator back, at the end of the block, to where it was at its start."""
    state = (default_generator.seed_value, default_generator.offset)
    try:
        yield
    finally:
        if enabled:
            default_generator.seed_value, default_generator.offset = state
