"""Activation checkpointing: what to compute again in a backward pass is for the compiler to decide.

PyTorch keeps every value that backward reads unless told otherwise. Here a minimum cut over the whole step
chooses what is kept and what is computed again (`graphc.passes.remat`), with and without these calls alike;
products and convolutions are never computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from graphc.frontend.errors import fail
from graphc.nn.container import Sequential
from graphc.nn.module import Module


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, with the gradients it has without the checkpoint.

    Random numbers are drawn once, so backward sees those of the forward pass, as with `preserve_rng_state`;
    parameters get gradients whether or not an argument requires them, as without `use_reentrant`.
    """
    return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Sequential | Iterable[Callable[..., Any]],
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
) -> Any:
    """`input` through all of `functions`, in order. ValueError unless segments is 1 to their number."""
    chain = list(functions.children()) if isinstance(functions, Module) else list(functions)
    if not 1 <= segments <= len(chain):
        raise fail(
            ValueError, f"checkpoint_sequential: segments must be from 1 to {len(chain)}, got {segments}"
        )
    for function in chain:
        input = function(input)
    return input
