"""What functions of every family ask of their arguments."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor, is_concrete

# What people give instead of a tensor, and how to come by one.
_INSTEAD = {
    "ndarray": " (graphc.from_numpy makes one)",
    "list": " (graphc.tensor makes one)",
    "tuple": " (recurrent layers and attention return tuples: take the output out of it)",
    "NoneType": " (does the function that made it return a value?)",
    "PackedSequence": " (nn.utils.rnn.pad_packed_sequence makes one)",
}


def no_tensor(name: str, which: str, value: Any) -> TypeError:
    """The error for an argument of a function that is no tensor; `which` tells it from others."""
    kind = type(value).__name__
    return fail(TypeError, f"{name}(): argument {which} must be Tensor, not {kind}{_INSTEAD.get(kind, '')}")


def need_tensors(name: str, *values: Any) -> None:
    """TypeError unless all of the first arguments of a function are tensors."""
    for position, value in enumerate(values, 1):
        if not isinstance(value, Tensor):
            raise no_tensor(name, f"(position {position})", value)


def need_known(name: str, what: str, input: Tensor, instead: str) -> None:
    """TracerError unless the values of `input`, on which `what` depends, are known."""
    if MODE.trace is not None and not is_concrete(input):
        raise MODE.trace.needs_value(
            f"{name}: {what} depends on values, and shapes are static inside a trace; {instead}"
        )
