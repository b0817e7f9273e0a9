"""Attention, composed of products, masks and a softmax: the compiler makes one blocked kernel of them."""

from __future__ import annotations

import math

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.checks import no_tensor
from graphc.frontend.functions.linalg import matmul_node
from graphc.frontend.functions.random import keep_mask
from graphc.frontend.nodes import broadcast_shapes, cast, expand, spread
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, float32, int64
from graphc.nn.functional.common import need_float, softmax_node

_NAME = "scaled_dot_product_attention"


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
    """softmax(query key^T * scale + mask) value: [..., L, E], [..., S, E], [..., S, V] -> [..., L, V].

    attn_mask  broadcasts to [..., L, S]: a bool one says what takes part, a float one is added; a query whose
               keys are all masked gives zeros
    dropout_p  probability with which a weight is dropped (in training and evaluation alike)
    is_causal  position i attends to positions up to i; not together with a mask
    scale      1 / sqrt(E) if not given
    enable_gqa repeats the heads (dim -3) of key and value as often as query has them

    Memory does not grow with L * S. Raises RuntimeError for shapes or dtypes that do not fit.
    """
    _check(query, key, value, attn_mask)
    if is_causal and attn_mask is not None:
        raise fail(RuntimeError, f"_{_NAME}: Explicit attn_mask should not be set when is_causal=True")
    if dropout_p > 1:
        raise fail(
            RuntimeError, f"dropout probability has to be between 0 and 1, but got {dropout_p} ({_NAME})"
        )
    heads = _groups(query, key, value) if enable_gqa else None
    shape = _score_shape(query, key, value, heads)
    if attn_mask is not None:
        _check_mask(attn_mask, query, shape)
    factor = 1.0 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale

    def build(q: Node, k: Node, v: Node, mask: Node | None = None) -> Node:
        if heads is not None:
            k, v = _repeat_heads(k, heads), _repeat_heads(v, heads)
        turned = ops.transpose(k, (*range(k.type.rank - 2), k.type.rank - 1, k.type.rank - 2))
        scores = matmul_node(q, turned)
        scores = ops.mul(scores, ops.like(scores, factor))
        scores = expand(scores, (*shape[: len(shape) - 2], *scores.shape[-2:]))
        hidden = ops.like(scores, -math.inf)
        if is_causal:
            scores = ops.select(_causal(scores.shape), scores, hidden)
        elif mask is not None and mask.dtype is bool_:
            scores = ops.select(expand(mask, scores.shape), scores, hidden)
        elif mask is not None:
            scores = ops.add(scores, expand(cast(mask, scores.dtype), scores.shape))
        axis = scores.type.rank - 1
        weights = softmax_node(scores, axis) if mask is None else _masked_softmax(scores, axis)
        if dropout_p > 0:
            weights = ops.mul(weights, keep_mask(weights.shape, dropout_p, weights.dtype))
        return matmul_node(weights, v)

    if 0 in shape:
        return _empty(query, key, value, shape)
    tensors = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    return apply("ScaledDotProductAttentionBackward0", build, *tensors)


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """What PyTorch checks before it looks at sizes."""
    named = {"query": query, "key": key, "value": value}
    if mask is not None:
        named["attn_mask"] = mask
    for position, (name, tensor) in enumerate(named.items(), 1):
        if not isinstance(tensor, Tensor):
            raise no_tensor(_NAME, f"'{name}' (position {position})", tensor)
    if not query.dtype is key.dtype is value.dtype:
        raise fail(
            RuntimeError,
            "Expected query, key, and value to have the same dtype, but got "
            f"query.dtype: {query.dtype.name} key.dtype: {key.dtype.name} and "
            f"value.dtype: {value.dtype.name} instead.",
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise fail(
            RuntimeError,
            "Expected query, key, and value to all be at least 2 dimensional, but got "
            f"query.dim: {query.ndim}, key.dim: {key.ndim} and value.dim: {value.ndim} instead.",
        )
    need_float(_NAME, query, key, value)


def _groups(query: Tensor, key: Tensor, value: Tensor) -> int:
    """How many query heads share a head of key and value."""
    if min(query.ndim, key.ndim, value.ndim) < 3:
        raise fail(
            IndexError,
            f"{_NAME}: enable_gqa needs heads in dim -3: Dimension out of range (expected to be in range of "
            f"[-2, 1], but got -3) (given {describe(query, key, value)})",
        )
    counts = [t.shape[-3] for t in (query, key, value)]
    if counts[1] != counts[2] or not counts[1] or counts[0] % counts[1]:
        raise fail(
            RuntimeError,
            "Number of heads in key and value must divide the number of heads in query, but they are "
            f"{counts[1]}, {counts[2]} and {counts[0]} ({_NAME} of {describe(query, key, value)})",
        )
    return counts[0] // counts[1]


def _score_shape(query: Tensor, key: Tensor, value: Tensor, groups: int | None) -> Shape:
    """[..., L, S], the leading dims broadcast."""
    (length, features), (keys, theirs), values = query.shape[-2:], key.shape[-2:], value.shape[-2]
    if features != theirs or keys != values:
        what = "features of query and key" if features != theirs else "lengths of key and value"
        sizes = (features, theirs) if features != theirs else (keys, values)
        raise fail(
            RuntimeError,
            f"{_NAME}: the {what} must be equal, but they are {sizes[0]} and {sizes[1]} "
            f"(given {describe(query, key, value)})",
        )
    leads = [tuple(t.shape[:-2]) for t in (query, key, value)]
    if groups is not None:
        leads[1:] = [(*lead[:-1], lead[-1] * groups) for lead in leads[1:]]
    return (*broadcast_shapes(*leads), length, keys)


def _check_mask(mask: Tensor, query: Tensor, shape: Shape) -> None:
    """A mask is bool or float32 or of the query's dtype, and broadcasts to the scores."""
    if mask.dtype not in (bool_, float32, query.dtype):
        raise fail(
            RuntimeError,
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {mask.dtype.name} and query.dtype: {query.dtype.name} instead.",
        )
    if mask.ndim < 2:
        raise fail(
            IndexError,
            f"{_NAME}: attn_mask needs at least the dims [L, S] = {list(shape[-2:])}: Dimension out of range "
            f"(expected to be in range of [-1, 0], but got -2) (given {describe(mask)})",
        )
    if broadcast_shapes(shape, tuple(mask.shape)) != shape:
        raise fail(
            RuntimeError,
            f"output with shape {list(shape)} doesn't match the broadcast shape "
            f"{list(broadcast_shapes(shape, tuple(mask.shape)))}: attn_mask must broadcast to the scores "
            f"(given {describe(mask)})",
        )


def _repeat_heads(node: Node, times: int) -> Node:
    """Each head (dim -3) repeated: a view, so nothing is copied."""
    *lead, heads, length, features = node.shape
    wide = (*lead, heads, times, length, features)
    dims = tuple([d for d in range(len(wide)) if d != len(lead) + 1])
    return ops.reshape(ops.broadcast(node, wide, dims), (*lead, heads * times, length, features))


def _causal(shape: Shape) -> Node:
    """Where the key's position is not after the query's."""
    rank = len(shape)
    rows, columns = ops.iota(shape, rank - 2, int64), ops.iota(shape, rank - 1, int64)
    return ops.le(columns, rows)


def _masked_softmax(scores: Node, axis: int) -> Node:
    """softmax, but zero in rows of which every score is minus infinity."""
    top = ops.stop_gradient(ops.reduce_max(scores, (axis,)))
    finite = ops.select(ops.eq(top, ops.like(top, -math.inf)), ops.like(top, 0), top)
    weights = ops.exp(ops.sub(scores, spread(finite, scores.shape, axis)))
    total = ops.reduce_sum(weights, (axis,))
    some = ops.select(ops.eq(total, ops.like(total, 0)), ops.like(total, 1), total)
    return ops.div(weights, spread(some, scores.shape, axis))


def _empty(query: Tensor, key: Tensor, value: Tensor, shape: Shape) -> Tensor:
    """Attention over nothing: no queries, or empty sums over no keys. Its gradients are zero."""
    out = (*shape[:-1], value.shape[-1])

    def build(*nodes: Node) -> Node:
        total = ops.constant(0.0, query.dtype)
        for n in nodes:
            nothing = ops.slice_axis(n, 0, 0, 0)
            total = ops.add(total, ops.reduce_sum(nothing, range(n.type.rank)))
        return ops.broadcast(total, out, ())

    return apply("ScaledDotProductAttentionBackward0", build, query, key, value)
