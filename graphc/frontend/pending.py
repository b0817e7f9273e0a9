"""Tensors whose value is not computed yet, in order of creation, for as long as somebody holds them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor


numbers = itertools.count(1)  # of tensors that become pending, and of changes of tensors


def recorded() -> int:
    """A number that grows with every tensor that becomes pending, and with every change of one."""
    return next(numbers)


class _Held(weakref.ref):
    """A weak reference that knows where it is listed."""

    __slots__ = ("held", "number")
    held: dict[int, _Held]
    number: int


_when_long: Callable[[int], None] | None = None


def when_long(function: Callable[[int], None]) -> None:
    """Set what is told the number of a tensor, from the limit of a list on, before the tensor is listed
    (`graphc.frontend.evaluation.rounds`)."""
    global _when_long
    _when_long = function


_when_used: Callable[[], None] | None = None


def when_used(function: Callable[[], None]) -> None:
    """Set what is told that a leaf whose update is pending is used in a new expression, before it is
    (`graphc.frontend.evaluation.rounds`)."""
    global _when_used
    _when_used = function


def used_again() -> None:
    """A leaf whose update is pending is used."""
    if _when_used is not None:
        _when_used()


def _drop(entry: _Held) -> None:
    entry.held.pop(entry.number, None)


class PendingTensors:
    """Tensors by number. (A WeakValueDictionary does the same in four times the time, and every operation
    enters its result.)

    limit  the number from which on `when_long` is told; 0 before the first
    """

    __slots__ = ("_held", "limit")

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self.limit = 0

    def add(self, number: int, tensor: Tensor) -> None:
        """List a tensor under a number that no other has; numbers grow."""
        if number >= self.limit and _when_long is not None:
            _when_long(number)
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
