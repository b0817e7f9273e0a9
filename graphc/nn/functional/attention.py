"""Attention."""

from __future__ import annotations

import math

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.linalg import matmul_node
from graphc.frontend.nodes import cast, expand, spread
from graphc.frontend.random import keep_mask
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import bool_, int64
from graphc.nn.functional.common import need_float, need_tensors, softmax_node


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query key^T * scale + mask) value, over the last two dims [length, features].

    attn_mask broadcasts to [..., L, S]: a bool one says what takes part, a float one is added. A query
    whose keys are all masked gives zeros. `enable_gqa` repeats the heads (dim -3) of key and value.
    """
    need_float("scaled_dot_product_attention", query, key, value)
    if min(query.ndim, key.ndim, value.ndim) < 2 or query.shape[-1] != key.shape[-1]:
        raise fail(
            RuntimeError, f"scaled_dot_product_attention: shapes do not fit: {describe(query, key, value)}"
        )
    if is_causal and attn_mask is not None:
        raise fail(RuntimeError, "Explicit attn_mask should not be set when is_causal=True")
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(times, -3) for t in (key, value))  # type: ignore[attr-defined]

    def build(q: Node, k: Node, v: Node, mask: Node | None = None) -> Node:
        turned = ops.transpose(k, (*range(k.type.rank - 2), k.type.rank - 1, k.type.rank - 2))
        scores = matmul_node(ops.mul(q, ops.like(q, factor)), turned)
        allowed = _causal(scores) if is_causal else None
        if mask is not None and mask.dtype is bool_:
            allowed = expand(mask, scores.shape)
        elif mask is not None:
            scores = ops.add(scores, expand(cast(mask, scores.dtype), scores.shape))
        axis = scores.type.rank - 1
        if allowed is None:
            weights = softmax_node(scores, axis)
        else:  # rows without any key are kept out of the softmax, so that no NaN arises
            some = spread(ops.reduce_or(allowed, (axis,)), scores.shape, axis)
            hidden = ops.select(some, ops.like(scores, -math.inf), ops.like(scores, 0))
            weights = softmax_node(ops.select(allowed, scores, hidden), axis)
            weights = ops.select(some, weights, ops.zeros(weights.type))
        if dropout_p > 0:
            weights = ops.mul(weights, keep_mask(weights.shape, dropout_p, weights.dtype))
        return matmul_node(weights, v)

    tensors = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    need_tensors("scaled_dot_product_attention", *tensors)
    return apply("ScaledDotProductAttentionBackward0", build, *tensors)


def _causal(scores: Node) -> Node:
    """Where the key's position is not after the query's."""
    rank = scores.type.rank
    rows, columns = ops.iota(scores.shape, rank - 2, int64), ops.iota(scores.shape, rank - 1, int64)
    return ops.le(columns, rows)
