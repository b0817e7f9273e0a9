"""Per-thread state of the front end: gradient mode, the trace being recorded, pending tensors."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from graphc.frontend.pending import PendingTensors

if TYPE_CHECKING:
    from graphc.frontend.tracing.events import Events
    from graphc.frontend.tracing.trace import Trace
    from graphc.ir.node import Node

F = TypeVar("F", bound=Callable[..., Any])


class Mode(threading.local):
    """`grad`: whether operations record history. `trace`: the active trace, if any.
    `pending`: live tensors whose value has not been computed, in order of creation.
    `events`: calls and backward passes that are only noted so far, if any.
    `recording`: an operation is built to be remembered, not for its value (see `not_while_recording`).
    `backend`: the one that a compiled function wants for what it has left pending, until that is computed or
    nobody can read it any more."""

    grad: bool = True
    trace: Trace | None = None
    events: Events | None = None
    recording: bool = False
    _backend: str | None = None
    _results: tuple[weakref.ref[Node], ...] = ()  # what `_backend` is wanted for, if that is known

    def __init__(self) -> None:
        self.pending = PendingTensors()

    @property
    def backend(self) -> str | None:
        results = self._results
        if results and not any((node := held()) is not None and node.bound is None for held in results):
            self.backend = None
        return self._backend

    @backend.setter
    def backend(self, name: str | None) -> None:
        self._backend, self._results = name, ()

    def want(self, backend: str, results: Iterable[Node]) -> None:
        """Compute what is pending by `backend` as long as one of these nodes is in use and has no value."""
        self._backend, self._results = backend, tuple([weakref.ref(node) for node in results])


MODE = Mode()


class NotRepeatable(Exception):
    """An operation that was to be remembered looks at values or draws random numbers."""


def not_while_recording() -> None:
    """NotRepeatable while an operation is built to be remembered; for what differs from time to time."""
    if MODE.recording:
        raise NotRepeatable


def settle() -> None:
    """Build the events noted so far. Called by whatever changes state that they may read."""
    events = MODE.events
    if events is not None:
        events.build()


class _GradContext:
    """A context manager and decorator that sets gradient mode."""

    value = True
    _saved: tuple[bool, Any] | None = None  # the mode to go back to, and what was saved before that

    def __enter__(self) -> None:
        self._saved = MODE.grad, self._saved
        MODE.grad = self.value

    def __exit__(self, *exc: object) -> None:
        MODE.grad, self._saved = self._saved  # type: ignore[misc]

    def __call__(self, function: F) -> F:
        value = self.value

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            saved, MODE.grad = MODE.grad, value
            try:
                return function(*args, **kwargs)
            finally:
                MODE.grad = saved

        return wrapped  # type: ignore[return-value]


class no_grad(_GradContext):
    """Operations inside record no history: their results do not require grad.

    Use as ``with graphc.no_grad():`` or as a decorator, with or without parentheses.
    """

    value = False

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = object.__new__(cls)
        return self if function is None else self(function)


class enable_grad(_GradContext):
    """Operations inside record history again, within `no_grad`."""

    value = True

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = object.__new__(cls)
        return self if function is None else self(function)


class inference_mode(no_grad):
    """The same as `no_grad` here."""

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        if callable(mode):
            return super().__new__(cls, mode)
        self = super().__new__(cls)
        self.value = not mode
        return self

    def __init__(self, mode: bool = True) -> None:
        pass


class set_grad_enabled(_GradContext):
    """Set gradient mode at once, and put the old one back when used as a context."""

    def __init__(self, mode: bool) -> None:
        self.value = bool(mode)
        self._before = MODE.grad
        MODE.grad = self.value

    def __enter__(self) -> None:
        MODE.grad = self.value

    def __exit__(self, *exc: object) -> None:
        MODE.grad = self._before


def is_grad_enabled() -> bool:
    """Whether operations record history now."""
    return MODE.grad
