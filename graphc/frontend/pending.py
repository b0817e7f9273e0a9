"""Tensors whose value is not computed yet, in order of creation, for as long as somebody holds them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor


class _Held(weakref.ref):
    """A weak reference that knows where it is listed."""

    __slots__ = ("held", "number")
    held: dict[int, _Held]
    number: int


def _drop(entry: _Held) -> None:
    entry.held.pop(entry.number, None)


class PendingTensors:
    """Tensors by number. (A WeakValueDictionary does the same in four times the time, and every operation
    enters its result.)"""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    def add(self, number: int, tensor: Tensor) -> None:
        """List a tensor under a number that no other has."""
        entry = _Held(tensor, _drop)
        entry.held, entry.number = self._held, number
        self._held[number] = entry

    def discard(self, number: int) -> None:
        """Take a tensor off the list, if it is there."""
        self._held.pop(number, None)

    def clear(self) -> None:
        """Take all off the list."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Tensor]:
        """The tensors that are alive now; the list may change meanwhile."""
        for entry in list(self._held.values()):
            tensor = entry()
            if tensor is not None:
                yield tensor
