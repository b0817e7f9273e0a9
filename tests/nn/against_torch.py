"""Running the same program in PyTorch and in graphc, and comparing all that comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import graphc

RTOL, ATOL = 2e-5, 2e-5


def array(value: Any) -> np.ndarray:
    return value.detach().numpy()


def close(name: str, ours: Any, theirs: Any, rtol: float = RTOL, atol: float = ATOL) -> None:
    """Equal shape, dtype name and values."""
    a, b = array(ours), array(theirs)
    assert (a.shape, a.dtype) == (b.shape, b.dtype), name
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)


def inputs(*shapes: Any, seed: int = 0) -> list[np.ndarray]:
    """Standard normal float32 arrays for shapes; arrays stay what they are."""
    rng = np.random.default_rng(seed)
    return [s if isinstance(s, np.ndarray) else rng.standard_normal(s).astype(np.float32) for s in shapes]


def leaves(T: Any, arrays: Sequence[np.ndarray], grad: bool = True) -> list[Any]:
    found = [T.from_numpy(a.copy()) for a in arrays]
    if grad:
        for t in found:
            if t.dtype in (T.float32, T.float64):
                t.requires_grad_(True)
    return found


def weighted(T: Any, out: Any) -> Any:
    """A number that depends on every element of an output, with different weights."""
    parts = [
        o for o in (out if isinstance(out, tuple | list) else [out]) if o.dtype in (T.float32, T.float64)
    ]
    total: Any = 0.0
    for part in parts:
        weights = (
            np.random.default_rng(7)
            .uniform(0.5, 1.5, tuple(part.shape))
            .astype(str(part.dtype).split(".")[-1])
        )
        total = total + (part * T.from_numpy(weights)).sum()
    return total


def same_function(
    build: Callable[[Any], Callable[..., Any]], arrays: Sequence[np.ndarray], **tolerance: float
) -> None:
    """`build(namespace)(*tensors)`: values, and gradients to every float input."""
    results = []
    for T in (graphc, torch):
        xs = leaves(T, arrays)
        out = build(T)(*xs)
        if any(x.requires_grad for x in xs):
            weighted(T, out).backward()
        outs = out if isinstance(out, tuple | list) else [out]
        results.append(([*outs], [x.grad for x in xs]))
    (ours, grads), (theirs, wanted) = results
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        close(f"output {i}", a, b, **tolerance)
    for i, (a, b) in enumerate(zip(grads, wanted, strict=True)):
        assert (a is None) == (b is None), f"gradient {i}"
        if a is not None:
            close(f"gradient of input {i}", a, b, **tolerance)


def copy_state(ours: Any, theirs: Any) -> None:
    """Load PyTorch's state into ours, key by key."""
    state = {k: graphc.from_numpy(v.detach().numpy().copy()) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)


def same_module(build: Callable[[Any], Any], arrays: Sequence[np.ndarray], **tolerance: float) -> None:
    """`build(namespace.nn)` gives a module: repr, keys, outputs, all gradients, buffers; train and eval."""
    torch.manual_seed(0)
    ours, theirs = build(graphc.nn), build(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy_state(ours, theirs)
    for mode in (True, False):
        xs = []
        for T, module in ((graphc, ours), (torch, theirs)):
            module.train(mode)
            module.zero_grad()
            inputs_ = leaves(T, arrays)
            out = module(*inputs_)
            weighted(T, out).backward()
            xs.append((out, inputs_))
        outs = [o if isinstance(o, tuple | list) else [o] for o, _ in xs]
        for i, (a, b) in enumerate(zip(*outs, strict=True)):
            close(f"output {i}, training={mode}", a, b, **tolerance)
        for i, (a, b) in enumerate(zip(xs[0][1], xs[1][1], strict=True)):
            if b.grad is not None:
                close(f"gradient of input {i}, training={mode}", a.grad, b.grad, **tolerance)
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            close(f"gradient of {name}, training={mode}", a.grad, b.grad, **tolerance)
        for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            close(f"buffer {name}, training={mode}", a, b, **tolerance)
