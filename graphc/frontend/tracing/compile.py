"""`graphc.compile`: one trace per input signature, one native call per use.

A signature has one or more variants (`graphc.frontend.tracing.variant`): modes, requires_grad and the like
are checked at each call, and another variant is made where they differ.
"""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

from graphc.frontend import tree
from graphc.frontend.errors import fail
from graphc.frontend.evaluation import lazy
from graphc.frontend.evaluation.compiler import check_backend
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.record import NeedStatic, record_call
from graphc.frontend.tracing.variant import Stale, Variant

log = logging.getLogger("graphc")
log.addHandler(logging.NullHandler())

FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, functools.partial, type)
# Attributes of what `compile` gives; others are the original's.
OWN = frozenset(
    "__wrapped__ __name__ _backend _variants _last _static _reasons compilations native_calls".split()
)
VARIANTS = 64  # of one signature, before the oldest is forgotten (a setting may change with every step)


class Compiled:
    """A compiled function or module. Call it as the original.

    A module stays one: `isinstance` says so, another module may have it as a part, and what is set on it is
    set on the original.

    compilations   programs made so far
    native_calls   programs run so far
    explain()      why each program was made
    """

    def __init__(self, function: Callable[..., Any], name: str, backend: str | None) -> None:
        self.__wrapped__ = function
        self.__name__ = name
        self._backend = backend
        self._variants: dict[Any, list[Variant]] = {}
        self._last: tuple[Any, Variant] | None = None
        self._static: frozenset[int] = frozenset()
        self._reasons: list[str] = []
        self.compilations = 0
        self.native_calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if MODE.trace is not None:
            return self.__wrapped__(*args, **kwargs)
        last = self._last
        if last is not None and not kwargs and last[1].fits(args):
            return self._run(last[0], last[1], args, args, kwargs)
        leaves = list(args) if not kwargs and _flat(args) else tree.leaves((args, kwargs))
        key = (
            None if not kwargs and _flat(args) else tree.structure((args, kwargs)),
            MODE.grad,
            *self._signature(leaves),
        )
        return self._run(key, self._find(key, args, kwargs, leaves), leaves, args, kwargs)

    def _run(self, key: Any, variant: Variant, leaves: Sequence[Any], args: Any, kwargs: Any) -> Any:
        if variant.calls_back:
            return self.__wrapped__(*args, **kwargs)
        try:
            found = variant.call(leaves)
        except Stale:
            self._variants.pop(key, None)
            self._last = None
            return self(*args, **kwargs)
        self.native_calls += 1
        lazy.STATS.native_calls += variant.replay is None  # a replay runs, and is counted, later
        return found

    def _signature(self, leaves: Sequence[Any]) -> list[Any]:
        key: list[Any] = []
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                kind = leaf._cell.type
                key += (kind.shape, kind.dtype, leaf.requires_grad)
            elif type(leaf) is float:
                key.append(leaf if i in self._static else float)
            elif isinstance(leaf, np.ndarray):
                raise fail(
                    TypeError,
                    f"{self.__name__}: argument {i} is a NumPy array; pass graphc.from_numpy(array)",
                )
            else:
                key += (type(leaf), leaf)
        return key

    def _find(self, key: Any, args: Any, kwargs: Any, leaves: Sequence[Any]) -> Variant:
        try:
            known = self._variants.setdefault(key, [])
        except TypeError as error:
            raise fail(TypeError, f"{self.__name__}: a static argument cannot be hashed ({error})") from None
        for variant in known:
            if variant.holds():
                self._last = (key, variant)
                return variant
        reason = self._reason(key, known)
        variant = self._compile(args, kwargs)
        if self._static and any(i in self._static for i, leaf in enumerate(leaves) if type(leaf) is float):
            key = (*key[:2], *self._signature(leaves))
        known = self._variants.setdefault(key, [])
        known.append(variant)
        del known[:-VARIANTS]
        self._last = (key, variant)
        if variant.calls_back:
            reason += f"; it is called as it is, since gradients go through {variant.calls_back}"
        self._reasons.append(reason)
        log.info("%s", reason)
        return variant

    def _compile(self, args: Any, kwargs: Any) -> Variant:
        while True:
            try:
                record = record_call(self.__wrapped__, self.__name__, args, kwargs, self._static)
            except NeedStatic as need:
                self._static |= {need.leaf}
                continue
            variant = Variant(record, self._backend)
            if not kwargs and _flat(args):
                variant.specs = [_spec(a, i in self._static) for i, a in enumerate(args)]
            if not variant.calls_back:
                self.compilations += 1
                lazy.STATS.compilations += variant.replay is None
            return variant

    def _reason(self, key: Any, known: list[Variant]) -> str:
        """One line: why this call compiles."""
        head = f"graphc.compile: {self.__name__}: "
        if not self._variants or (len(self._variants) == 1 and not known):
            return head + "first call"
        if known:
            return head + f"recompiled, since {known[-1].why_not()}"
        others = [k for k, v in self._variants.items() if v and k is not key]
        alike = [k for k in others if len(k) == len(key) and k[0] == key[0]] or others
        return head + f"recompiled, since {_difference(alike[-1] if alike else (), key)}"

    def explain(self) -> list[str]:
        """Why each program was made, one line each."""
        return list(self._reasons)

    def __getattr__(self, name: str) -> Any:
        """What the original has; a method of it that returns it (`eval()`) returns this in its place."""
        if "__wrapped__" not in self.__dict__:  # a copy that is being made
            raise AttributeError(name)
        original = self.__wrapped__
        found = getattr(original, name)
        if getattr(found, "__self__", None) is not original:
            return found

        @functools.wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return self if result is original else result

        return method

    @property
    def _orig_mod(self) -> Any:
        """The original, by PyTorch's name for it."""
        return self.__wrapped__

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        original = self.__dict__.get("__wrapped__")
        return Compiled if original is None or isinstance(original, FUNCTIONS) else original.__class__

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OWN or isinstance(self.__wrapped__, FUNCTIONS):
            super().__setattr__(name, value)
        else:
            setattr(self.__wrapped__, name, value)

    def __copy__(self) -> Compiled:
        return Compiled(copy.copy(self.__wrapped__), self.__name__, self._backend)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        """A copy of the original, to be compiled anew: programs belong to the tensors that they change."""
        return Compiled(copy.deepcopy(self.__wrapped__, memo), self.__name__, self._backend)

    def __repr__(self) -> str:
        return f"<graphc.compile of {self.__name__}: {self.compilations} programs>"


def _spec(arg: Any, static: bool) -> tuple[Any, Any]:
    """What `Variant.fits` compares an argument with."""
    if isinstance(arg, Tensor):
        return Tensor, (arg._cell.type, arg.requires_grad)
    return type(arg), None if type(arg) is float and not static else (arg,)


def _flat(args: Sequence[Any]) -> bool:
    return not any(tree.is_nested(a) for a in args)


def _difference(old: Sequence[Any], new: Sequence[Any]) -> str:
    if len(old) != len(new) or old[:1] != new[:1]:
        return "the arguments are of another form"
    if old[1] != new[1]:
        return f"gradients are now {'on' if new[1] else 'off'}"
    for a, b in zip(old[2:], new[2:], strict=True):
        if a != b:
            return f"an argument changed from {_show(a)} to {_show(b)}"
    return "its arguments changed"


def _show(part: Any) -> str:
    return f"shape {list(part)}" if isinstance(part, tuple) else getattr(part, "name", None) or repr(part)


def name_of(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


KNOWN = frozenset({"winograd", "layout"})  # options of graphc's own


def compile(
    function: Any = None,
    *,
    backend: str | None = None,
    options: Mapping[str, Any] | None = None,
    disable: bool = False,
    **others: Any,
) -> Any:
    """Compile a function, a Module, or a whole training step (also as a decorator).

    Arguments that are tensors or Python floats may change from call to call; everything else is
    part of the signature, and another value means another program. Parameters, buffers and optimizer
    state that the function changes are updated in place by the program. `backend` names a graphc
    backend. `options={"winograd": False}` keeps Winograd's algorithm out of convolutions, and
    `{"layout": False}` their channels where they are (see `graphc.set_backend`); names of PyTorch's own
    options there are warned about. Both also hold for the backward pass through a result, and for a
    step that runs in one program with it. `disable=True` gives the function back as it is. PyTorch's
    mode, fullgraph and dynamic are accepted and not needed.

    The function runs once per signature, on tensors without values: TracerError where it needs one.
    """
    unknown = set(others) - {"mode", "fullgraph", "dynamic"}
    if unknown:
        raise fail(TypeError, f"compile() got unexpected options {sorted(unknown)}")
    if function is None:
        return lambda f: compile(f, backend=backend, options=options, disable=disable)
    if not callable(function):
        raise fail(TypeError, f"compile() needs a function or a Module, got {type(function).__name__}")
    if disable:
        return function
    ours = {name: value for name, value in (options or {}).items() if name in KNOWN}
    ignored = sorted(set(options or ()) - KNOWN)
    if ignored:
        warnings.warn(f"compile(): options {ignored} have no effect in graphc", UserWarning, stacklevel=2)
    if backend is not None or ours:
        backend = check_backend(backend or lazy.SETTINGS.backend, ours)
    return Compiled(function, name_of(function), backend)
