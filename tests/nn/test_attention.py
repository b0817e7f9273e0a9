"""Scaled dot-product attention against PyTorch, with every sort of mask."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import inputs, same_function  # noqa: E402

QKV = inputs((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7))
ALLOWED = np.random.default_rng(4).random((4, 6)) > 0.3
ALLOWED[2] = False  # a query without any key
CASES = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "bool mask": {"attn_mask": ALLOWED},
    "float mask": {"attn_mask": np.where(ALLOWED, 0.5, -2.0).astype(np.float32)},
}


@pytest.mark.parametrize("name", CASES)
def test_attention(name):
    def build(T):
        options = {k: T.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in CASES[name].items()}
        return lambda q, k, v: T.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    same_function(build, QKV)


def test_grouped_queries():
    arrays = inputs((2, 4, 3, 5), (2, 2, 6, 5), (2, 2, 6, 5))

    def build(T):
        return lambda q, k, v: T.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    same_function(build, arrays)


def test_wrong_shapes():
    with pytest.raises(RuntimeError, match=r"float32\[2, 3\], float32\[2, 4\]"):
        graphc.nn.functional.scaled_dot_product_attention(
            graphc.ones(2, 3), graphc.ones(2, 4), graphc.ones(2, 4)
        )
