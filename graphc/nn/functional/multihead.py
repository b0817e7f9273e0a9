"""Multi-head attention as a function: projections, masks, heads; the attention itself is in `attention`.

Inside, heads are [N, heads, length, features]. The two layouts of the sequences, [L, N, E] and [N, L, E],
differ only in how heads are split off and joined, so neither costs a transpose of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.creation import zeros
from graphc.frontend.functions.joining import cat
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bool_
from graphc.nn.functional.activation import softmax
from graphc.nn.functional.attention import scaled_dot_product_attention
from graphc.nn.functional.common import need_tensors
from graphc.nn.functional.dropout import dropout
from graphc.nn.functional.linear import linear
from graphc.nn.functional.padding import pad

Three = tuple[Tensor, Tensor, Tensor]  # query, key, value


@dataclass(frozen=True)
class Projections:
    """The weights of a multi-head attention; `packed` [3E, E] stands for the three of `separate`."""

    packed: Tensor | None
    separate: tuple[Tensor | None, Tensor | None, Tensor | None]  # [E, E], [E, kdim], [E, vdim]
    bias: Tensor | None  # [3E]
    out_weight: Tensor
    out_bias: Tensor | None
    bias_k: Tensor | None = None  # [1, 1, E]: one more key
    bias_v: Tensor | None = None


@dataclass(frozen=True)
class Options:
    """What else shapes the result of a multi-head attention."""

    width: int  # E, the features of queries and of the output
    heads: int
    dropout: float = 0.0
    add_zero_attn: bool = False
    need_weights: bool = True
    average: bool = True
    is_causal: bool = False
    batch_first: bool = False
    static_k: Tensor | None = None  # [N * heads, S, E / heads], in place of the projected keys
    static_v: Tensor | None = None


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention over `num_heads` parts of the projected query [L, N, E], key and value [S, N, *].

    Unbatched sequences have no N. Masks are bool (True hides) or float (added): `attn_mask` [L, S] or
    [N * heads, L, S], `key_padding_mask` [N, S]. Gives the output [L, N, E] and, if `need_weights`, the
    weights [N, L, S] (per head [N, heads, L, S] unless `average_attn_weights`).
    AssertionError or RuntimeError, naming the shapes, where these do not fit.
    """
    if use_separate_proj_weight:
        in_proj_weight = None
    elif in_proj_weight is None:
        raise fail(AssertionError, "use_separate_proj_weight is False but in_proj_weight is None")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = Projections(
        in_proj_weight, separate, in_proj_bias, out_proj_weight, out_proj_bias, bias_k, bias_v
    )
    options = Options(
        embed_dim_to_check,
        num_heads,
        dropout_p if training else 0.0,
        add_zero_attn,
        need_weights,
        average_attn_weights,
        is_causal,
        static_k=static_k,
        static_v=static_v,
    )
    return multi_head_attention((query, key, value), weights, options, attn_mask, key_padding_mask)


def multi_head_attention(
    inputs: Three,
    weights: Projections,
    options: Options,
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """`multi_head_attention_forward` in either layout of the sequences."""
    _check_ranks(inputs, options.heads, attn_mask, key_padding_mask)
    batched = inputs[0].ndim == 3
    where = 0 if options.batch_first and batched else 1  # of the batch
    if not batched:
        inputs = _each(inputs, lambda t: t.unsqueeze(1))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    _check_shapes(inputs, weights, options, where)
    if options.is_causal and attn_mask is None:
        raise fail(
            RuntimeError,
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask.",
        )
    causal = options.is_causal and key_padding_mask is None and not options.need_weights
    q, k, v, extra = _heads(inputs, weights, options, where)
    mask = _mask(None if causal else attn_mask, key_padding_mask, q, k.shape[2] - extra)
    mask = None if mask is None else _widened(mask, extra)
    if options.need_weights:
        out, shown = _spelled_out(q, k, v, mask, options)
    else:
        if mask is not None and mask.dtype is bool_:
            mask = mask.logical_not()
        out, shown = scaled_dot_product_attention(q, k, v, mask, options.dropout, causal), None
    out = out.permute(0, 2, 1, 3) if where == 0 else out.permute(2, 0, 1, 3)
    out = linear(out.flatten(2), weights.out_weight, weights.out_bias)
    if not batched:
        out, shown = out.squeeze(1), None if shown is None else shown.squeeze(0)
    return out, shown


def _each(inputs: Three, change: Callable[[Tensor], Tensor]) -> Three:
    """`change` of each, once for each distinct tensor: self-attention stays recognisable."""
    changed = {id(t): change(t) for t in inputs}
    query, key, value = inputs
    return changed[id(query)], changed[id(key)], changed[id(value)]


# ---------------------------------------------------------------- the heads


def _heads(
    inputs: Three, weights: Projections, options: Options, where: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Query, key and value as heads, and how many keys were added behind the given ones."""
    q, k, v = _projected(inputs, weights)
    extra = 0
    if weights.bias_k is not None and weights.bias_v is not None:
        k = _one_more(k, weights.bias_k, where)
        v = _one_more(v, weights.bias_v, where)
        extra = 1
    q, k, v = (_split(t, options.heads, where) for t in (q, k, v))
    if options.static_k is not None:
        k = _static("static_k", options.static_k, q)
    if options.static_v is not None:
        v = _static("static_v", options.static_v, q)
    if options.add_zero_attn:
        k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
        extra += 1
    return q, k, v, extra


def _projected(inputs: Three, weights: Projections) -> Three:
    """The three projections; inputs that are the same tensor are projected by one product."""
    query, key, value = inputs
    width = weights.out_weight.shape[1]
    packed, bias = weights.packed, weights.bias
    if packed is None:
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        q, k, v = (linear(t, w, b) for t, w, b in zip(inputs, weights.separate, biases, strict=True))  # type: ignore[arg-type]
        return q, k, v
    if query is key and key is value:
        q, k, v = linear(query, packed, bias).split(width, -1)
        return q, k, v
    parts = packed.split(width)
    biases = (None,) * 3 if bias is None else tuple(bias.split(width))
    q = linear(query, parts[0], biases[0])
    if key is value:
        k, v = linear(key, packed[width:], None if bias is None else bias[width:]).split(width, -1)
        return q, k, v
    return q, linear(key, parts[1], biases[1]), linear(value, parts[2], biases[2])


def _one_more(t: Tensor, row: Tensor, where: int) -> Tensor:
    """A sequence with the row [1, 1, E] behind it, for every member of the batch."""
    shape = (t.shape[0], 1, t.shape[2]) if where == 0 else (1, t.shape[1], t.shape[2])
    return cat([t, row.expand(shape)], dim=1 - where)


def _split(t: Tensor, heads: int, where: int) -> Tensor:
    """[L, N, E] or [N, L, E] as [N, heads, L, E / heads]."""
    t = t.reshape(t.shape[0], t.shape[1], heads, t.shape[2] // heads)
    return t.permute(0, 2, 1, 3) if where == 0 else t.permute(1, 2, 0, 3)


def _static(name: str, given: Tensor, q: Tensor) -> Tensor:
    """Keys or values given as [N * heads, S, features] as heads."""
    batch, heads, _, features = q.shape
    for axis, size in ((0, batch * heads), (2, features)):
        if given.ndim != 3 or given.shape[axis] != size:
            raise fail(
                AssertionError,
                f"expecting {name}.size({axis}) of {size}, but got {name} of shape {list(given.shape)}",
            )
    return given.reshape(batch, heads, given.shape[1], features)


def _spelled_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Attention whose weights somebody wants to see: softmax(q k^T / sqrt(features) + mask) v, weights."""
    scores = (q * math.sqrt(1.0 / q.shape[-1])) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf) if mask.dtype is bool_ else scores + mask
    shown = softmax(scores, dim=-1)
    if options.dropout > 0:
        shown = dropout(shown, options.dropout)
    return shown @ v, shown.mean(dim=1) if options.average else shown


# ----------------------------------------------------------------- the masks


def check_mask(mask: Tensor | None, name: str, other: Tensor | None = None, other_name: str = "") -> None:
    """AssertionError unless a mask is bool or float; a warning where two masks differ in dtype."""
    if mask is None:
        return
    need_tensors(name, mask)
    if mask.dtype is not bool_ and not mask.dtype.is_float:
        raise fail(
            AssertionError,
            f"only bool and floating types of {name} are supported, got {describe(mask)}",
        )
    if other is not None and other.dtype is not mask.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=3,
        )


def _mask(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, keys: int) -> Tensor | None:
    """One mask of two, broadcasting to [N, heads, L, keys]: hidden by either, or the sum of what is added."""
    check_mask(padding, "key_padding_mask", attn_mask, "attn_mask")
    check_mask(attn_mask, "attn_mask")
    batch, heads, length, _ = q.shape
    if attn_mask is not None:
        rank = attn_mask.ndim
        right = (length, keys) if rank == 2 else (batch * heads, length, keys)
        if tuple(attn_mask.shape) != right:
            raise fail(
                RuntimeError,
                f"The shape of the {rank}D attn_mask is {list(attn_mask.shape)}, but should be {right}.",
            )
        attn_mask = attn_mask.reshape(*((1, 1) if rank == 2 else (batch, heads)), length, keys)
    if padding is not None:
        for axis, size in enumerate((batch, keys)):
            if padding.shape[axis] != size:
                raise fail(
                    AssertionError,
                    f"Expected key_padding_mask.shape[{axis}] to be {size}, but got {padding.shape[axis]}",
                )
        padding = padding.reshape(batch, 1, 1, keys)
    return _merged(attn_mask, padding, q)


def _merged(a: Tensor | None, b: Tensor | None, q: Tensor) -> Tensor | None:
    """RuntimeError unless what is added has the query's dtype."""
    if a is None or b is None:
        mask = b if a is None else a
    elif a.dtype is bool_ and b.dtype is bool_:
        mask = a.logical_or(b)
    else:
        mask = _additive(a, q) + _additive(b, q)
    if mask is not None and mask.dtype is not bool_ and mask.dtype is not q.dtype:
        raise fail(
            RuntimeError,
            f"expected a float mask of the query's dtype {q.dtype.name}, but got {describe(mask)}",
        )
    return mask


def _widened(mask: Tensor, extra: int) -> Tensor:
    """The mask with columns for keys that were added: nothing hides these."""
    if extra == 0:
        return mask
    return cat([mask, zeros(*mask.shape[:-1], extra, dtype=mask.dtype)], dim=-1)


def _additive(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype is not bool_:
        return mask
    return zeros(mask.shape, dtype=q.dtype).masked_fill(mask, -math.inf)


# ---------------------------------------------------------------- the checks


def _check_ranks(inputs: Three, heads: int, attn_mask: Tensor | None, padding: Tensor | None) -> None:
    """AssertionError unless all are batched or all are not."""
    need_tensors("multi_head_attention_forward", *inputs)
    query, key, value = inputs
    rank = query.ndim
    if rank not in (2, 3):
        raise fail(
            AssertionError,
            f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor "
            f"({describe(query)})",
        )
    what = f"For {'batched (3-D)' if rank == 3 else 'unbatched (2-D)'} `query`, expected "
    if key.ndim != rank or value.ndim != rank:
        raise fail(
            AssertionError,
            f"{what}`key` and `value` to be {rank}-D but found {key.ndim}-D and {value.ndim}-D tensors "
            f"respectively ({describe(query, key, value)})",
        )
    if padding is not None and padding.ndim != rank - 1:
        raise fail(
            AssertionError,
            f"{what}`key_padding_mask` to be `None` or {rank - 1}-D but found {padding.ndim}-D tensor "
            f"instead ({describe(padding)})",
        )
    if attn_mask is not None and attn_mask.ndim not in (2, 3):
        raise fail(
            AssertionError,
            f"{what}`attn_mask` to be `None`, 2-D or 3-D but found {attn_mask.ndim}-D tensor instead "
            f"({describe(attn_mask)})",
        )
    if rank == 2 and attn_mask is not None and attn_mask.ndim == 3:
        right = (heads, query.shape[0], key.shape[0])
        if tuple(attn_mask.shape) != right:
            raise fail(
                AssertionError,
                f"Expected `attn_mask` shape to be {right} but got {tuple(attn_mask.shape)}",
            )


def _check_shapes(inputs: Three, weights: Projections, options: Options, where: int) -> None:
    """AssertionError unless heads divide the features and key fits value; weights are whole."""
    query, key, value = inputs
    width = options.width
    if query.shape[2] != width:
        raise fail(
            AssertionError,
            f"was expecting embedding dimension of {width}, but got {query.shape[2]} ({describe(query)})",
        )
    if width % options.heads:
        raise fail(AssertionError, f"embed_dim {width} not divisible by num_heads {options.heads}")
    if weights.packed is None:
        for name, weight in zip("qkv", weights.separate, strict=True):
            if weight is None:
                raise fail(AssertionError, f"use_separate_proj_weight is True but {name}_proj_weight is None")
        if key.shape[:2] != value.shape[:2]:
            raise fail(
                AssertionError,
                f"key's sequence and batch dims {tuple(key.shape[:2])} do not match value's "
                f"{tuple(value.shape[:2])}",
            )
    elif key.shape != value.shape:
        raise fail(
            AssertionError,
            f"key shape {tuple(key.shape)} does not match value shape {tuple(value.shape)}",
        )
    if key.shape[where] != query.shape[where]:
        raise fail(
            RuntimeError,
            f"query and key must have the same batch size: {query.shape[where]} and {key.shape[where]} "
            f"({describe(query, key)})",
        )
    for one, other in (("k", "v"), ("v", "k")):
        mine, its = getattr(weights, f"bias_{one}"), getattr(weights, f"bias_{other}")
        if mine is not None and its is None:
            raise fail(AssertionError, f"bias_{one} is set but bias_{other} is None")
        if mine is not None and getattr(options, f"static_{one}") is not None:
            raise fail(AssertionError, f"bias cannot be added to static {'key' if one == 'k' else 'value'}.")
