"""Outputs and all gradients of a module call, by one code in PyTorch and in graphc, lazily and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import graphc

from .against_torch import copy_state, weighted

Call = Callable[..., Any]
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def outputs_and_gradients(
    T: Any, module: Any, call: Call, arrays: Sequence[np.ndarray], compile: bool = False
) -> list[Any]:
    """Outputs of `call(module, *tensors)`, then the gradients of the float inputs and the parameters."""

    def step(*tensors: Any) -> list[Any]:
        xs = [t.detach().requires_grad_() if t.dtype.is_floating_point else t for t in tensors]
        out = call(module, *xs)
        outs = [o for o in (out if isinstance(out, tuple | list) else [out]) if o is not None]
        wanted = [*(x for x in xs if x.dtype.is_floating_point), *module.parameters()]
        grads = T.autograd.grad(weighted(T, outs), wanted, allow_unused=True)
        return [*[o.detach() for o in outs], *grads]

    run = T.compile(step) if compile else step
    found = run(*[T.from_numpy(a.copy()) for a in arrays])
    known = [t for t in found if t is not None]
    parts = np.split(
        T.cat([t.flatten() for t in known]).numpy(),  # one program for all, where it runs lazily
        np.cumsum([t.numel() for t in known])[:-1],
    )
    values = (part.reshape(tuple(t.shape)) for part, t in zip(parts, known, strict=True))
    return [None if t is None else next(values) for t in found]


def same_gradients(
    build: Callable[[Any], Any],
    call: Callable[[Any], Call],
    arrays: Sequence[np.ndarray],
    dtype: str = "float32",
) -> None:
    """`build(nn)` gives the module, `call(namespace)` what is called with it and the tensors."""
    torch.manual_seed(0)
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
    ours, theirs = build(graphc.nn), build(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    if dtype == "float64":
        ours, theirs = ours.double(), theirs.double()
    copy_state(ours, theirs)
    ours.train(theirs.training)
    expected = outputs_and_gradients(torch, theirs, call(torch), arrays)
    for compile in (False, True):
        found = outputs_and_gradients(graphc, ours, call(graphc), arrays, compile)
        assert len(found) == len(expected)
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            where = f"result {i}, compile={compile}"
            assert (a is None) == (b is None), where
            if b is not None:
                assert (a.shape, a.dtype) == (b.shape, b.dtype), where
                limit = TOLERANCE[dtype] * max(1.0, np.abs(b).max(initial=0.0))
                np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=where)
