"""One OpInfo sample in torch and in graphc: values, gradients, methods, in place, compiled, native."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import graphc

from .convert import DTYPES, Outside, difference, fresh, leaves, rebuild, to_graphc
from .databases import torch

Call = Callable[..., Any]


@dataclass(frozen=True)
class Operation:
    """What one OpInfo is called here.

    function   the graphc function of `op.op`; method and in-place forms belong to it where torch has them
    random     values are drawn: only shapes and dtypes are compared
    lazy       data-dependent shapes or Python values: works outside traces only
    ties       which of equal elements an index names is not defined: what it names is compared. (1: `dim` is
               the first number among the arguments; 2: the second)
    loose      the operation magnifies rounding: only about three digits are compared
    """

    name: str
    function: Call
    method: Call | None = None
    inplace: Call | None = None
    random: bool = False
    lazy: bool = False
    ties: int = 0
    loose: bool = False


@dataclass
class Case:
    """A sample, its arguments on both sides, and what torch makes of it."""

    index: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: Any
    grads: list[Any] | None  # torch's, one for each tensor that requires it; None: not differentiable
    cotangents: list[Any] = field(default_factory=list)
    inplace: Case | None = None  # the same for torch's in-place form, where it has one

    def ours(self) -> tuple[list[Any], dict[str, Any]]:
        """Fresh graphc arguments."""
        return rebuild(list(self.args), to_graphc), rebuild(self.kwargs, to_graphc)


def cases(info: Any, dtype: Any, limit: int) -> Iterator[Case]:
    """The samples of an OpInfo that torch itself can run, at most about `limit` of them, spread evenly."""
    torch.manual_seed(0)
    wants_grad = dtype.is_floating_point and info.supports_autograd
    samples = list(info.sample_inputs("cpu", dtype, requires_grad=wants_grad))
    step = max(1, -(-len(samples) // limit))
    for index in range(0, len(samples), step):
        case = _case(info, index, samples[index], wants_grad)
        if case is not None:
            yield case


def _case(info: Any, index: int, sample: Any, wants_grad: bool) -> Case | None:
    args, kwargs = (sample.input, *sample.args), dict(sample.kwargs)
    found = _run(info.op, index, args, kwargs, wants_grad)
    if isinstance(found, Case) and info.inplace_variant is not None and isinstance(args[0], torch.Tensor):
        changed = partial(_on_a_clone, info.inplace_variant)
        after = _run(changed, index, args, kwargs, wants_grad)
        if after is not None and after.expected.shape == args[0].shape:  # torch resizes some tensors
            found.inplace = after
    return found


def _on_a_clone(inplace: Call, x: Any, *args: Any, **kwargs: Any) -> Any:
    return inplace(x.clone(), *args, **kwargs)


def _run(op: Call, index: int, args: Any, kwargs: Any, wants_grad: bool) -> Case | None:
    """Torch's results as a case; None if torch has none."""
    own = rebuild(args, fresh), rebuild(kwargs, fresh)  # the op may change its arguments
    torch.manual_seed(1)
    try:
        expected = op(*own[0], **own[1])
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        return None
    grads, cotangents = _gradients(expected, own) if wants_grad else (None, [])
    shown = rebuild(expected, lambda v: v.detach() if isinstance(v, torch.Tensor) else v)
    return Case(index, rebuild(args, fresh), rebuild(kwargs, fresh), shown, grads, cotangents)


def _gradients(expected: Any, inputs: Any) -> tuple[list[Any] | None, list[Any]]:
    outs = [o for o in leaves(expected) if isinstance(o, torch.Tensor) and o.requires_grad]
    wrt = [t for t in leaves(inputs) if isinstance(t, torch.Tensor) and t.requires_grad]
    if not outs or not wrt or any(o.dtype not in DTYPES for o in outs):
        return None, []
    torch.manual_seed(2)
    cotangents = [torch.randn_like(o) for o in outs]
    try:
        found = torch.autograd.grad(outs, wrt, cotangents, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return None, []
    return [
        torch.zeros_like(t) if g is None else g.clone() for g, t in zip(found, wrt, strict=True)
    ], cotangents


# ------------------------------------------------------------------ graphc's side


def _differentiate(out: Any, args: Any, cotangents: Sequence[Any]) -> list[Any]:
    outs = [o for o in leaves(out) if isinstance(o, graphc.Tensor) and o.requires_grad]
    wrt = [t for t in leaves(args) if isinstance(t, graphc.Tensor) and t.requires_grad]
    if len(outs) != len(cotangents):
        raise AssertionError(f"{len(outs)} outputs require grad instead of {len(cotangents)}")
    found = graphc.autograd.grad(outs, wrt, list(cotangents), allow_unused=True)
    return [graphc.zeros_like(t) if g is None else g for g, t in zip(found, wrt, strict=True)]


def call(function: Call, case: Case) -> tuple[Any, list[Any]]:
    """Values and gradients of one case, lazily."""
    args, kwargs = case.ours()
    with graphc.set_grad_enabled(case.grads is not None):
        out = function(*args, **kwargs)
    if case.grads is None:
        return out, []
    return out, _differentiate(out, [args, kwargs], rebuild(case.cotangents, to_graphc))


def call_compiled(function: Call, case: Case) -> tuple[Any, list[Any]]:
    """The same through `graphc.compile`: every tensor is an argument, everything else is fixed."""
    args, kwargs = case.ours()
    tensors = [t for t in leaves([args, kwargs]) if isinstance(t, graphc.Tensor)]
    cotangents = rebuild(case.cotangents, to_graphc)

    def program(tensors: list[Any], cotangents: list[Any]) -> Any:
        given = iter(tensors)
        new = rebuild([args, kwargs], lambda v: next(given) if isinstance(v, graphc.Tensor) else v)
        out = function(*new[0], **new[1])
        return out, ([] if case.grads is None else _differentiate(out, new, cotangents))

    with graphc.set_grad_enabled(case.grads is not None):
        return graphc.compile(program)(tensors, cotangents)


def call_inplace(function: Call, case: Case) -> tuple[Any, list[Any]]:
    """The same for a method that changes its first argument."""
    return call(partial(_on_a_clone, function), case)


def uses_method(case: Case) -> bool:
    """Whether the arguments are those of a method call: a tensor comes first."""
    return bool(case.args) and isinstance(case.args[0], torch.Tensor)


def check(way: Call, function: Call, op: Operation, case: Case) -> str:
    """How graphc's result of one case differs from torch's; empty if it does not."""
    try:
        out, grads = way(function, case)
        return compare(op, case, out, grads) or ""
    except Outside:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"


def compare(op: Operation, case: Case, out: Any, grads: list[Any]) -> str | None:
    """How values and gradients differ from torch's."""
    if op.random or case.kwargs.get("dropout_p"):
        return difference(out, case.expected, exact=False)
    expected = case.expected
    if op.ties:
        out, expected = _named(op, out, case), _named(op, expected, case)
    found = difference(out, expected, loose=op.loose)
    if found is None and case.grads is not None:
        found = difference(grads, case.grads, loose=op.loose)
        found = found and f"gradient {found}"
    return found


def _named(op: Operation, out: Any, case: Case) -> Any:
    """Indices replaced by the elements of the first argument that they name along `dim`."""
    values = case.args[0].detach()
    values = values if isinstance(outs(out)[0], torch.Tensor) else to_graphc(values)
    if values.ndim == 0:
        return out
    dim = case.kwargs.get("dim", _dim_of(case, op.ties - 1))
    named = []
    for part in outs(out):
        whole = part.dtype in (torch.int64, graphc.int64) and (
            part is not outs(out)[0] or len(outs(out)) == 1
        )
        if whole:
            wide = part if part.ndim == values.ndim else part.unsqueeze(dim)
            part = values.gather(dim, wide)
        named.append(part)
    return named


def outs(out: Any) -> list[Any]:
    """A result as a list."""
    return list(out) if isinstance(out, (list, tuple)) else [out]


def _dim_of(case: Case, at: int) -> int:
    """The `dim` of sort, argsort, topk, kthvalue or mode, wherever it stands among the arguments."""
    numbers = [a for a in case.args[1:] if isinstance(a, int) and not isinstance(a, bool)]
    return numbers[at] if len(numbers) > at else -1


def outside(case: Case) -> bool:
    """Whether a case uses something that no contract name has (complex numbers, half, sparse, ...)."""
    try:
        case.ours()
        rebuild(case.expected, to_graphc)
        return "out" in case.kwargs
    except Outside:
        return True
