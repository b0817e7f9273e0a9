"""Modules as functions of their parameters: `functional_call`, and the parameters of several as one stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.joining import stack
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.trace import members_changed
from graphc.nn.module import Module
from graphc.nn.tree import walk

__all__ = ["functional_call", "stack_module_state"]

State = Mapping[str, Tensor]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: State | Sequence[State],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """What `module(*args, **kwargs)` gives with other tensors for the parameters and buffers that are named.

    parameter_and_buffer_dicts  tensors by the names of `named_parameters()` and `named_buffers()`, in one
                                dict or several. What has no name there stays as it is
    args                        a tuple of arguments, or the only one
    tie_weights                 a parameter that stands in several places is replaced in all of them
    strict                      every parameter and buffer must be named, and nothing else

    The module is unchanged afterwards; a buffer that the call updates in place is updated in the dict.
    Gradients flow to the given tensors. TypeError for values that are no tensors, ValueError for a name in
    two dicts, or two values for tied names, RuntimeError for missing and unexpected names if `strict`.
    """
    given = args if isinstance(args, tuple) else () if args is None else (args,)
    with _swapped(module, _merged(parameter_and_buffer_dicts), tie_weights, strict):
        return module(*given, **(kwargs or {}))


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of modules of one class, by name, each stacked over the modules as dimension 0.

    The stacks are leaves; those of parameters that require grad do too. ValueError for no modules, and for
    modules that differ in class, in mode or in the names of their state.
    """
    if not models:
        raise fail(ValueError, "stack_module_state: there must be at least one module")
    if len({type(m) for m in models}) > 1 or len({m.training for m in models}) > 1:
        raise fail(ValueError, "stack_module_state: the modules must be of one class and in one mode")
    parameters = _stacked([dict(m.named_parameters()) for m in models])
    return parameters, _stacked([dict(m.named_buffers()) for m in models])


def _stacked(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    names = list(states[0])
    if any(list(state) != names for state in states):
        raise fail(
            ValueError, "stack_module_state: the modules must have parameters and buffers of the same names"
        )
    found = {}
    for name in names:
        members = [state[name] for state in states]
        found[name] = stack([t.detach() for t in members]).requires_grad_(members[0].requires_grad)
    return found


def _merged(dicts: State | Sequence[State]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for state in [dicts] if isinstance(dicts, Mapping) else dicts:
        for name, value in state.items():
            if name in merged:
                raise fail(ValueError, f"functional_call: {name!r} appears in more than one dict")
            if not isinstance(value, Tensor):
                raise fail(
                    TypeError, f"functional_call: {name!r} must be a Tensor, got {type(value).__name__}"
                )
            merged[name] = value
    return merged


@contextmanager
def _swapped(module: Module, state: dict[str, Tensor], tie: bool, strict: bool) -> Iterator[None]:
    """Other tensors in the module's tables, for a while."""
    places = _places(module)
    if strict:
        _check_names(module, set(places), set(state))
    chosen = _with_tied(places, state) if tie else {n: t for n, t in state.items() if n in places}
    before = [(table, name, table[name]) for table, name in (places[path] for path in chosen)]
    for (table, name, _), tensor in zip(before, chosen.values(), strict=True):
        table[name] = tensor
    members_changed()
    try:
        yield
    finally:
        members_changed()  # (builds the calls noted meanwhile, on the tensors they were made with)
        for table, name, old in before:
            table[name] = old


def _places(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each parameter and buffer stands: the table of its module, and its name there."""
    found = {}
    for path, owner in walk(module):
        for table in (owner._parameters, owner._buffers):
            for name, member in table.items():
                if member is not None:
                    found[f"{path}.{name}" if path else name] = (table, name)
    return found


def _with_tied(
    places: Mapping[str, tuple[dict[str, Any], str]], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """`state` with each tensor also under the other names of what it replaces."""
    new: dict[int, tuple[str, Tensor]] = {}
    for path, tensor in state.items():
        if path not in places:
            continue
        table, name = places[path]
        known = new.setdefault(id(table[name]), (path, tensor))
        if known[1] is not tensor:
            raise fail(
                ValueError,
                f"functional_call: {known[0]!r} and {path!r} are one tensor in the module, but got two "
                "values; give one of them, or tie_weights=False",
            )
    return {p: new[id(table[name])][1] for p, (table, name) in places.items() if id(table[name]) in new}


def _check_names(module: Module, own: set[str], given: set[str]) -> None:
    problems = [
        f"{what} key(s): {', '.join(map(repr, sorted(names)))}."
        for what, names in (("Missing", own - given), ("Unexpected", given - own))
        if names
    ]
    if problems:
        raise fail(
            RuntimeError,
            f"Error(s) in reparametrizing for {type(module).__name__}:\n\t" + "\n\t".join(problems),
        )
