"""Cells that people write themselves, as compiled loops, against torch's loops: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.node import Kind

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.native

T, B, N, H, S = 6, 3, 4, 5, 7
RNG = np.random.default_rng(1)


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RNG.standard_normal(shape) * 0.5 for name, shape in shapes.items()}


def loop(lib: Any, step: Callable, init: Any, xs: Any) -> tuple[Any, Any]:
    """graphc.scan, or what it means in torch."""
    if lib is gc:
        return gc.scan(step, init, xs)
    ys = []
    for x in xs:
        init, y = step(init, x)
        ys.append(y)
    return init, torch.stack(ys)


ATTENTION = arrays(
    xs=(T, B, N), memory=(B, S, H), query=(H, H), score=(H,), w=(N, H), u=(2 * H, H), out=(2 * H, 9)
)


def attention_decoder(lib: Any, p: Any) -> Any:
    """Additive attention over a memory that every step reads whole."""

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        weights = (lib.tanh(p["memory"] + (h @ p["query"]).unsqueeze(1)) @ p["score"]).softmax(1)
        context = (weights.unsqueeze(2) * p["memory"]).sum(1)
        h = lib.tanh(x @ p["w"] + lib.cat([h, context], 1) @ p["u"])
        return h, lib.cat([h, context], 1) @ p["out"]

    return loop(lib, step, p["memory"].mean(1), p["xs"])


DOTTED = arrays(xs=(T, B, H), memory=(B, S, H), key=(H, H), u=(H, H))


def dotted_attention(lib: Any, p: Any) -> Any:
    """Attention by products: the memory's gradient is one contraction over all steps."""

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        scores = lib.bmm(p["memory"], (h @ p["key"]).unsqueeze(2)).squeeze(2)
        context = lib.bmm(scores.softmax(1).unsqueeze(1), p["memory"]).squeeze(1)
        h = lib.tanh(x + context @ p["u"])
        return h, context

    return loop(lib, step, p["memory"][:, 0], p["xs"])


NORMED = arrays(xs=(T, B, N), w=(N, 4 * H), u=(H, 4 * H), gain=(4 * H,), bias=(4 * H,), peep=(H,))


def layer_norm_lstm(lib: Any, p: Any) -> Any:
    """Normalised gates with a gain and a bias, and a peephole."""

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        h, c = state
        z = x @ p["w"] + h @ p["u"]
        z = lib.nn.functional.layer_norm(z, (4 * H,), p["gain"], p["bias"])
        i, f, g, o = z.chunk(4, 1)
        c = lib.sigmoid(f + c * p["peep"]) * c + lib.sigmoid(i) * lib.tanh(g)
        h = lib.sigmoid(o) * lib.tanh(c)
        return (h, c), h

    zero = p["xs"].new_zeros(B, H)
    (h, c), ys = loop(lib, step, (zero, zero), p["xs"])
    return h + c, ys


CONVOLVED = arrays(xs=(T, 2, 3, 6, 6), w=(8, 3, 3, 3), u=(8, 2, 3, 3), bias=(8,))


def conv_lstm(lib: Any, p: Any) -> Any:
    """Gates by convolution; the weights' gradients are one convolution over all steps."""
    conv2d = lib.nn.functional.conv2d

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = (conv2d(x, p["w"], p["bias"], padding=1) + conv2d(h, p["u"], padding=1)).chunk(4, 1)
        c = lib.sigmoid(f) * c + lib.sigmoid(i) * lib.tanh(g)
        h = lib.sigmoid(o) * lib.tanh(c)
        return (h, c), h.mean((2, 3))

    zero = p["xs"].new_zeros(2, 2, 6, 6)
    (h, c), ys = loop(lib, step, (zero, zero), p["xs"])
    return h + c, ys


CELLS = {
    "attention_decoder": (attention_decoder, ATTENTION),
    "dotted_attention": (dotted_attention, DOTTED),
    "layer_norm_lstm": (layer_norm_lstm, NORMED),
    "conv_lstm": (conv_lstm, CONVOLVED),
}


def results(lib: Any, body: Callable, given: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    last, ys = body(lib, given)
    loss = (last * last).sum() + (ys * ys.cos()).sum()
    return [last, ys], list(lib.autograd.grad(loss, list(given.values())))


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str) -> None:
    body, shapes = CELLS[name]
    found = []
    for lib in (gc, torch):
        given = {k: lib.tensor(a, requires_grad=True) for k, a in shapes.items()}
        values, grads = results(lib, body, given)
        found.append([t.detach().numpy() for t in (*values, *grads)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name,memories", [(name, int(name == "attention_decoder")) for name in CELLS])
def test_gradients_of_weights_are_not_carried(name: str, memories: int) -> None:
    """The reverse loop adds up only what is no product or sum: tanh(memory + ...), in one carry."""
    body, shapes = CELLS[name]

    def gradient(*leaves: gc.Tensor) -> list[gc.Tensor]:
        return results(gc, body, dict(zip(shapes, leaves, strict=True)))[1]

    specs = [gc.TensorSpec(a.shape, gc.float64, requires_grad=True) for a in shapes.values()]
    graph: Graph = gc.trace(gradient, *specs)
    forward, backward = dict.fromkeys(n.attrs.loop for n in graph.nodes if n.kind is Kind.SCAN)
    assert len(backward.carries) == len(forward.carries) + memories
