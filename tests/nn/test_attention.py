"""Scaled dot-product attention against PyTorch: every sort of mask and shape, native code, both dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
from graphc import pipeline  # noqa: E402

from .against_torch import close, inputs, leaves, same_function, weighted  # noqa: E402

F = graphc.nn.functional
RNG = np.random.default_rng(4)
ALLOWED = RNG.random((4, 6)) > 0.3
ALLOWED[2] = False  # a query without any key
WIDE = RNG.random((70, 150)) > 0.5
WIDE[3], WIDE[:, :70] = False, False  # a hidden row, and blocks of columns that nobody sees
HIDDEN = np.where(WIDE, RNG.standard_normal(WIDE.shape), -math.inf).astype(np.float32)

SMALL = ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7))
FEW = ((2, 2, 9, 8), (2, 2, 20, 8), (2, 2, 20, 8))
BLOCKS = ((2, 4, 70, 33), (2, 4, 150, 33), (2, 4, 150, 17))
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (SMALL, {}),
    "causal": (SMALL, {"is_causal": True}),
    "scaled": (SMALL, {"scale": 0.3}),
    "bool mask": (SMALL, {"attn_mask": ALLOWED}),
    "float mask": (SMALL, {"attn_mask": np.where(ALLOWED, 0.5, -2.0).astype(np.float32)}),
    "float mask that hides": (SMALL, {"attn_mask": np.where(ALLOWED, 0.5, -np.inf).astype(np.float32)}),
    "blocks": (BLOCKS, {}),
    "blocks, causal": (BLOCKS, {"is_causal": True}),
    "blocks, bool mask": (BLOCKS, {"attn_mask": WIDE, "scale": 0.2}),
    "blocks, float mask": (BLOCKS, {"attn_mask": HIDDEN}),
    "mask by batch": (FEW, {"attn_mask": RNG.random((2, 1, 9, 20)) > 0.2}),
    "mask of keys": (FEW, {"attn_mask": RNG.random((2, 1, 1, 20)) > 0.5}),
    "no batch": (((40, 8), (33, 8), (33, 8)), {}),
    "one batch dim": (((3, 40, 8), (3, 33, 8), (3, 33, 8)), {"is_causal": True}),
    "three batch dims": (((2, 1, 2, 12, 8), (2, 1, 2, 33, 8), (2, 1, 2, 33, 8)), {}),
    "shared keys": (((2, 4, 9, 8), (1, 1, 20, 8), (1, 1, 20, 8)), {}),
    "grouped": (((2, 4, 9, 8), (2, 2, 20, 8), (2, 2, 20, 8)), {"enable_gqa": True}),
    "one query": (((2, 4, 1, 8), (2, 4, 40, 8), (2, 4, 40, 8)), {}),
    "no queries": (((2, 4, 0, 8), (2, 4, 40, 8), (2, 4, 40, 8)), {}),
    "no keys": (((2, 4, 3, 8), (2, 4, 0, 8), (2, 4, 0, 8)), {}),
    "one feature": (((2, 4, 16, 1), (2, 4, 32, 1), (2, 4, 32, 1)), {}),
    "certain": (((1, 2, 16, 64), (1, 2, 32, 64), (1, 2, 32, 64)), {"scale": 1.5}),
}  # fmt: skip


def build(options: dict[str, Any], dtype: str) -> Callable[[Any], Callable[..., Any]]:
    def attention(T: Any) -> Callable[..., Any]:
        given = dict(options)
        mask = given.pop("attn_mask", None)
        if mask is not None:
            given["attn_mask"] = T.from_numpy(mask if mask.dtype == bool else mask.astype(dtype))
        return lambda q, k, v: T.nn.functional.scaled_dot_product_attention(q, k, v, **given)

    return attention


PRECISE = ["plain", "bool mask", "blocks, causal", "blocks, float mask", "one batch dim", "grouped"]


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, "float32") for n in CASES] + [(n, "float64") for n in PRECISE]
)
def test_values_and_gradients(name: str, dtype: str) -> None:
    shapes, options = CASES[name]
    arrays = [a.astype(dtype) for a in inputs(*shapes)]
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-9}
    same_function(build(options, dtype), arrays, **tolerance)


@pytest.mark.parametrize("mask", [None, WIDE])
def test_spelled_out(mask: np.ndarray | None) -> None:
    """Attention written with matmul, masked_fill and softmax; hidden rows are NaN there, as in PyTorch."""

    def spelled(T: Any) -> Callable[..., Any]:
        def run(q, k, v):
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(33)
            if mask is not None:
                scores = scores.masked_fill(T.from_numpy(~mask), float("-inf"))
            return T.nn.functional.softmax(scores, dim=-1) @ v

        return run

    same_function(spelled, inputs(*BLOCKS), rtol=1e-4, atol=1e-4)


def test_dropout_equals_the_composition() -> None:
    """The kernel and the composition draw the same weights, forward and backward."""
    arrays = inputs(*BLOCKS)

    def run(stored: bool) -> list[np.ndarray]:
        graphc.manual_seed(3)
        q, k, v = leaves(graphc, arrays)
        weights = F.dropout(F.softmax(q @ k.transpose(-2, -1), dim=-1), 0.3)
        out = weights @ v
        loss = weighted(graphc, out)
        if stored:
            loss = loss + weights.mean() * 0  # somebody else reads the weights: no kernel
        loss.backward()
        return [x.detach().numpy() for x in (out, q.grad, k.grad, v.grad)]

    for fused, composed in zip(run(False), run(True), strict=True):
        np.testing.assert_allclose(fused, composed, rtol=1e-4, atol=1e-4)


def test_dropout_keeps_the_mean() -> None:
    graphc.manual_seed(0)
    q, k = (graphc.zeros(4, 64, 8) for _ in range(2))
    v = graphc.ones(4, 64, 8)
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25).numpy()
    assert abs(out.mean() - 1.0) < 0.05
    assert out.std() > 0.01
    assert not F.scaled_dot_product_attention(q, k, v, dropout_p=1.0).numpy().any()


def test_gradient_of_a_bias() -> None:
    def biased(T: Any) -> Callable[..., Any]:
        return lambda q, k, v, b: T.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=b)

    same_function(biased, inputs((2, 2, 9, 8), (2, 2, 20, 8), (2, 2, 20, 8), (2, 9, 20)))


def test_same_bits_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = inputs(*BLOCKS)

    def run() -> list[bytes]:
        q, k, v = leaves(graphc, arrays)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        weighted(graphc, out).backward()
        return [x.detach().numpy().tobytes() for x in (out, q.grad, k.grad, v.grad)]

    before = graphc.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            graphc.set_num_threads(threads)
            found.append(run())
    finally:
        graphc.set_num_threads(before)
    assert found[0] == found[1]


def arena(length: int, batch: int) -> tuple[int, int]:
    """Bytes of the arena and of scratch memory that attention and its gradients take."""
    specs = [graphc.TensorSpec((batch, length, 64), graphc.float32)] * 3

    def gradients(q, k, v):
        def loss(q, k, v):
            return (F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1) ** 2).sum()

        return graphc.grad(loss, (0, 1, 2))(q, k, v)

    planned = pipeline.inspect(graphc.trace(gradients, *specs)).planned
    assert planned is not None
    return planned.plan.arena_bytes, planned.plan.scratch_bytes


@pytest.mark.parametrize("batch", [2, 8])
def test_memory_is_linear(batch: int) -> None:
    (short, little), (long, much) = arena(2048, batch), arena(4096, batch)
    assert long <= 2.1 * short
    assert much <= 2.1 * little
    assert long < batch * 4096 * 64 * 4 * 6  # a handful of operands, far from 4096 * 4096


def message(*args: Any, **options: Any) -> str:
    with pytest.raises((RuntimeError, TypeError, IndexError)) as caught:
        F.scaled_dot_product_attention(*args, **options)
    return f"{caught.type.__name__}: {caught.value}"


def test_mistakes() -> None:
    q, k, v = (graphc.ones(2, 4, n, 8) for n in (5, 7, 7))
    half = graphc.ones(2, 3, 7, 8)
    assert "RuntimeError: Expected query, key, and value to have the same dtype" in message(q, k.double(), v)
    assert "at least 2 dimensional, but got query.dim: 1" in message(q[0, 0, 0], k, v)
    assert "features of query and key must be equal, but they are 8 and 9" in message(q, graphc.ones(7, 9), v)
    assert "lengths of key and value must be equal, but they are 7 and 6" in message(q, k, v[:, :, :6])
    assert "tensor a (2) must match the size of tensor b (3)" in message(q, graphc.ones(3, 4, 7, 8), v)
    assert "must divide the number of heads in query" in message(q, half, half, enable_gqa=True)
    assert "IndexError" in message(q[0, 0], k[0, 0], v[0, 0], enable_gqa=True)
    assert "not implemented for 'Long'" in message(q.long(), k.long(), v.long())
    assert "TypeError" in message(1, k, v)
    assert "argument 'attn_mask' (position 4) must be Tensor, not str" in message(q, k, v, "causal")
    wrong = graphc.ones(5, 7).long()
    assert "attn_mask.dtype: int64 and query.dtype: float32" in message(q, k, v, attn_mask=wrong)
    assert "tensor a (7) must match the size of tensor b (8)" in message(q, k, v, attn_mask=graphc.ones(5, 8))
    assert "doesn't match the broadcast shape" in message(q, k, v, attn_mask=graphc.ones(2, 2, 4, 5, 7))
    assert "IndexError" in message(q, k, v, attn_mask=graphc.ones(7))
    assert "should not be set when is_causal=True" in message(
        q, k, v, attn_mask=graphc.ones(5, 7), is_causal=True
    )
    assert "between 0 and 1, but got 1.5" in message(q, k, v, dropout_p=1.5)
    assert "test_attention.py" in message(q, k, v, dropout_p=1.5)


def test_infinite_and_missing_numbers() -> None:
    """What is not a number stays in its row."""
    arrays = inputs((1, 16, 8), (1, 32, 8), (1, 32, 8))
    arrays[0][0, 3, 0] = np.nan
    ours, theirs = (
        T.nn.functional.scaled_dot_product_attention(*leaves(T, arrays, grad=False)) for T in (graphc, torch)
    )
    assert np.isnan(ours.numpy()[0, 3]).all()
    close("rows", ours, theirs)
