"""Transformer encoders and decoders: attention and two-layer networks around residual sums."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.creation import arange, full
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, bool_
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.activation import GELU, ReLU
from graphc.nn.attention import MultiheadAttention
from graphc.nn.container import ModuleList
from graphc.nn.dropout import Dropout
from graphc.nn.functional.multihead import check_mask
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.normalization import LayerNorm

Activation = Callable[[Tensor], Tensor]


def subsequent_mask(size: int, dtype: DType | None = None, device: Any = None) -> Tensor:
    """[size, size]: -inf above the diagonal, 0 elsewhere; added to scores it hides what comes later."""
    return full((size, size), -math.inf, dtype=dtype, device=device).triu(diagonal=1)


def _is_causal(mask: Tensor | None, hint: bool | None, length: int) -> bool:
    """The hint, or without one whether `mask` is `subsequent_mask(length)`, as far as its graph says so.

    Values are not looked at: a causal mask of other origin is applied like any mask, with the same result.
    """
    if hint is not None or mask is None:
        return hint is True
    if not mask.dtype.is_float:
        return False
    return mask._cell.node is subsequent_mask(length, mask.dtype)._cell.node


def _length(sequence: Tensor, batch_first: bool) -> int:
    return sequence.shape[1 if batch_first and sequence.ndim == 3 else 0]


def _activation(function: str | Activation) -> Activation:
    """A function for "relu" or "gelu"; RuntimeError for another word; callables are left alone."""
    if not isinstance(function, str):
        return function
    if function not in ("relu", "gelu"):
        raise fail(RuntimeError, f"activation should be relu/gelu, not {function}")
    return getattr(F, function)


def _copies(layer: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(layer) for _ in range(count)])


class _SelfAttention(Module):
    """What the layers of encoder and decoder share."""

    self_attn: MultiheadAttention
    dropout1: Dropout

    def _sa_block(
        self, x: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        out, _ = self.self_attn(x, x, x, key_padding_mask, False, attn_mask, is_causal=is_causal)
        return self.dropout1(out)


class TransformerEncoderLayer(_SelfAttention):
    """Self-attention, then two linear layers with an activation between, each added to its own input.

    src is [S, N, d_model], [N, S, d_model] with `batch_first`, or [S, d_model]; so is the result. LayerNorm
    comes after each sum, or before each block with `norm_first`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        kind: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **kind)
        self.linear1 = Linear(d_model, dim_feedforward, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **kind)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **kind)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **kind)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """`src_mask` [S, S] or [N * nhead, S, S], `src_key_padding_mask` [N, S]; True hides, floats add."""
        check_mask(src_key_padding_mask, "src_key_padding_mask", src_mask, "src_mask")
        check_mask(src_mask, "src_mask")
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = src + self._sa_block(self.norm1(src), *masks)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(src + self._sa_block(src, *masks))
        return self.norm2(x + self._ff_block(x))

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerDecoderLayer(_SelfAttention):
    """Self-attention, attention to `memory`, then two linear layers, each added to its own input.

    tgt is [T, N, d_model] and memory [S, N, d_model] ([N, T, ...] with `batch_first`, or without N); the
    result has tgt's shape. LayerNorm comes after each sum, or before each block with `norm_first`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        kind: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **kind)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **kind)
        self.linear1 = Linear(d_model, dim_feedforward, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **kind)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **kind)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **kind)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, **kind)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """`tgt_mask` [T, T], `memory_mask` [T, S], paddings [N, T] and [N, S]; True hides, floats add."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory, memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            x = tgt + self._sa_block(self.norm1(tgt), *own)
            x = x + self._mha_block(self.norm2(x), *other)
            return x + self._ff_block(self.norm3(x))
        x = self.norm1(tgt + self._sa_block(tgt, *own))
        x = self.norm2(x + self._mha_block(x, *other))
        return self.norm3(x + self._ff_block(x))

    def _mha_block(
        self,
        x: Tensor,
        mem: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        out, _ = self.multihead_attn(x, mem, mem, key_padding_mask, False, attn_mask, is_causal=is_causal)
        return self.dropout2(out)

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer, one after the other, then `norm` if given.

    PyTorch's `enable_nested_tensor` leaves out padding in evaluation without gradients, which can be seen:
    its result is zero there (before `norm`). So it is here, under PyTorch's conditions; with `mask_check`
    only if all padding is at the ends of its sequences.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check
        obstacle = _not_nested(encoder_layer)
        self.use_nested_tensor = enable_nested_tensor and obstacle is None
        if enable_nested_tensor and obstacle is not None:
            warnings.warn(
                "enable_nested_tensor is True, but self.use_nested_tensor is False because "
                f"encoder_layer{obstacle}",
                stacklevel=2,
            )

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """`mask` [S, S] or [N * nhead, S, S], `src_key_padding_mask` [N, S]; True hides, floats are added.

        `is_causal` says that `mask` is causal; None finds out whether it is
        `Transformer.generate_square_subsequent_mask`.
        """
        check_mask(src_key_padding_mask, "src_key_padding_mask", mask, "mask")
        check_mask(mask, "mask")
        first: Any = self.layers[0]
        causal = _is_causal(mask, is_causal, _length(src, first.self_attn.batch_first))
        cleared = None
        if mask is None and src_key_padding_mask is not None and self._leaves_padding_out(src):
            src_key_padding_mask, cleared = self._nested(src_key_padding_mask)
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=mask, is_causal=causal, src_key_padding_mask=src_key_padding_mask)
        if cleared is not None:
            output = output.masked_fill(cleared.unsqueeze(-1), 0.0)
        return output if self.norm is None else self.norm(output)

    def _leaves_padding_out(self, src: Tensor) -> bool:
        """Whether PyTorch would compute without the padding."""
        first: Any = self.layers[0]
        if not self.use_nested_tensor or first.training or src.ndim != 3:
            return False
        tracked = src.requires_grad or any(p.requires_grad for p in first.parameters())
        return not (MODE.grad and tracked)

    def _nested(self, padding: Tensor) -> tuple[Tensor, Tensor]:
        """The mask to attend with, and where the result is zero."""
        hidden = padding if padding.dtype is bool_ else padding.ne(0)
        lengths = hidden.logical_not().sum(1, keepdim=True)
        ends = arange(hidden.shape[1]) >= lengths  # padding, if it is all at the ends
        if not self.mask_check:
            return ends, ends
        cleared = ends.logical_and((ends == hidden).all())
        return padding if padding.dtype is bool_ else padding.masked_fill(cleared, -math.inf), cleared


def _not_nested(layer: Any) -> str | None:
    """What keeps PyTorch from computing without padding, said of "encoder_layer"; None if nothing does."""
    if not isinstance(layer, TransformerEncoderLayer):
        return " was not TransformerEncoderLayer"
    attention: Any = layer.self_attn
    relu_or_gelu = layer.activation in (F.relu, F.gelu) or isinstance(layer.activation, ReLU | GELU)
    obstacles = {
        ".norm_first was True": layer.norm_first,
        ".self_attn.batch_first was not True(use batch_first for better inference performance)": (
            not attention.batch_first
        ),
        ".self_attn._qkv_same_embed_dim was not True": not attention._qkv_same_embed_dim,
        ".self_attn was passed bias=False": attention.in_proj_bias is None,
        ".activation_relu_or_gelu was not True": not relu_or_gelu,
        ".norm1.eps was not equal to encoder_layer.norm2.eps": layer.norm1.eps != layer.norm2.eps,
        ".self_attn.num_heads is odd": attention.num_heads % 2 == 1,
    }
    return next((text for text, found in obstacles.items() if found), None)


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, then `norm` if given."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The arguments of `TransformerDecoderLayer`; `tgt_is_causal` None finds out from `tgt_mask`."""
        first: Any = self.layers[0]
        causal = _is_causal(tgt_mask, tgt_is_causal, _length(tgt, first.self_attn.batch_first))
        output = tgt
        for layer in self.layers:
            output = layer(
                output,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=causal,
                memory_is_causal=memory_is_causal,
            )
        return output if self.norm is None else self.norm(output)


class Transformer(Module):
    """An encoder of `src` and a decoder of `tgt` that attends to what the encoder gives.

    src [S, N, d_model] and tgt [T, N, d_model] ([N, S, ...] with `batch_first`, or without N) give
    [T, N, d_model]. `custom_encoder` and `custom_decoder` take the place of the two stacks.
    RuntimeError for batches that differ or features other than `d_model`.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        kind: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        sizes = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
        )
        if custom_encoder is None:
            layer = TransformerEncoderLayer(*sizes, **kind)
            norm = LayerNorm(d_model, layer_norm_eps, **kind)
            custom_encoder = TransformerEncoder(layer, num_encoder_layers, norm)
        self.encoder = custom_encoder
        if custom_decoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, **kind)
            custom_decoder = TransformerDecoder(
                TransformerDecoderLayer(*sizes, **kind), num_decoder_layers, norm
            )
        self.decoder = custom_decoder
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Masks as those of the encoder and the decoder: True hides, floats are added."""
        where = 0 if self.batch_first else 1
        if src.ndim == 3 and (tgt.ndim != 3 or src.shape[where] != tgt.shape[where]):
            raise fail(RuntimeError, f"the batch number of src and tgt must be equal ({describe(src, tgt)})")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise fail(
                RuntimeError,
                f"the feature number of src and tgt must be equal to d_model {self.d_model} "
                f"({describe(src, tgt)})",
            )
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: DType | None = None) -> Tensor:
        """[sz, sz]: -inf above the diagonal, 0 elsewhere."""
        return subsequent_mask(sz, dtype, device)

    def _reset_parameters(self) -> None:
        """Xavier-uniform weights of two or more dims."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)
