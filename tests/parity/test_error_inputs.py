"""Torch's error inputs: what raises in torch raises here, an exception of the same type."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import adapters
from .convert import Outside, fresh, leaves, rebuild, to_graphc
from .databases import MODULES, OPS, ModuleErrorEnum, torch
from .ledger import Failure, settle, shorten
from .module_running import construct
from .test_modules import OUTSIDE

WITH_ERRORS = sorted(name for name in adapters.CONTRACT if OPS[name].error_inputs_func is not None)
MODULES_WITH_ERRORS = sorted(
    name for name, info in MODULES.items() if info.module_error_inputs_func and name not in OUTSIDE
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def raised(call: Callable[[], Any]) -> Exception | None:
    """What a call raises; values are read, so that checks of the program count."""
    try:
        for value in leaves(call()):
            if hasattr(value, "numpy"):
                value.detach().numpy()
    except Outside:
        raise
    except Exception as error:
        return error
    return None


def wrong(error: Exception | None, wanted: Exception) -> str:
    """Why `error` is not what torch raises; empty if it is."""
    expected = next(
        (t for t in (IndexError, TypeError, ValueError, NotImplementedError) if isinstance(wanted, t)),
        RuntimeError,
    )
    if isinstance(wanted, AttributeError):  # a number where a tensor's method is called: a TypeError here
        expected = TypeError
    if isinstance(error, expected):
        return ""
    got = "nothing" if error is None else f"{type(error).__name__} ({str(error).splitlines()[0][:80]})"
    text = str(wanted).splitlines()[0][:110] if str(wanted) else ""
    return f"{got} instead of {type(wanted).__name__} ({text})"


def op_errors(name: str) -> Iterator[tuple[int, str]]:
    """(index, what is wrong) for the error inputs of an op that torch raises for on the CPU."""
    op, info = adapters.operation(name, adapters.CONTRACT[name]), OPS[name]
    torch.manual_seed(0)
    for index, entry in enumerate(info.error_inputs("cpu")):
        sample = entry.sample_input
        args, kwargs = (sample.input, *sample.args), dict(sample.kwargs)
        if "out" in kwargs:
            continue
        try:
            ours = rebuild(args, to_graphc), rebuild(kwargs, to_graphc)
        except Outside:
            continue
        theirs = rebuild(args, fresh), rebuild(kwargs, fresh)
        wanted = raised(lambda: info.op(*theirs[0], **theirs[1]))  # noqa: B023 (called at once)
        if wanted is not None:
            yield index, wrong(raised(lambda: op.function(*ours[0], **ours[1])), wanted)  # noqa: B023


def judge(record: Callable[[str, Any], None], subject: str, kind: str, found: list[tuple[int, str]]) -> None:
    failures = [Failure("error", "*", index, text) for index, text in found if text]
    account = settle(f"{subject} errors", failures)
    expected, still_open = len(account.expected), len(account.open)
    record("parity", [kind, len(found) - len(failures), len(found) - expected, expected, still_open])
    assert not account.problems, "\n" + shorten(account.problems)


@pytest.mark.parametrize("name", WITH_ERRORS)
def test_op(name: str, record_property: Callable[[str, Any], None]) -> None:
    judge(record_property, name, "OpInfo error inputs", list(op_errors(name)))


def module_errors(name: str) -> Iterator[tuple[int, str]]:
    """(index, what is wrong) for the error inputs of a module."""
    info = MODULES[name]
    for training in (True, False):
        entries = info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
        for index, entry in enumerate(entries):
            given = entry.module_error_input
            wanted = raised(lambda: _use(lambda g: info.module_cls(*g.args, **g.kwargs), given, entry, fresh))  # noqa: B023
            if wanted is not None:
                try:
                    error = raised(lambda: _use(lambda g: construct(name, g), given, entry, to_graphc))  # noqa: B023
                except Outside:
                    continue
                yield index, wrong(error, wanted)


def _use(make: Callable[[Any], Any], given: Any, entry: Any, convert: Callable[[Any], Any]) -> Any:
    module = make(given.constructor_input)
    if entry.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
        return None
    forward = given.forward_input
    return module(*rebuild(list(forward.args), convert), **rebuild(dict(forward.kwargs), convert))


@pytest.mark.parametrize("name", MODULES_WITH_ERRORS)
def test_module(name: str, record_property: Callable[[str, Any], None]) -> None:
    judge(record_property, name, "ModuleInfo error inputs", list(module_errors(name)))
