"""MultiheadAttention, and `sdpa_kernel`, which PyTorch has in a module of this name."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType
from graphc.nn import init
from graphc.nn.functional.multihead import Options, Projections, multi_head_attention
from graphc.nn.linear import Linear, parameter
from graphc.nn.module import Module
from graphc.nn.sdpa import SDPBackend, sdpa_kernel

__all__ = ["MultiheadAttention", "NonDynamicallyQuantizableLinear", "SDPBackend", "sdpa_kernel"]


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear under the name that PyTorch's `repr` shows for an output projection."""


class MultiheadAttention(Module):
    """Attention over `num_heads` parts of projected queries, keys and values.

    query [L, N, embed_dim], key [S, N, kdim], value [S, N, vdim]; with `batch_first` [N, L, ...]; unbatched
    without N. Gives (output [L, N, embed_dim], weights [N, L, S]); weights are None unless `need_weights`,
    and [N, num_heads, L, S] unless `average_attn_weights`. `add_bias_kv` learns one more key and value,
    `add_zero_attn` adds one of zeros, and dropout falls on the weights.
    ValueError for sizes that are not positive, AssertionError for heads that do not divide `embed_dim`.
    """

    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise fail(
                ValueError,
                "embed_dim and num_heads must be greater than 0, got "
                f"embed_dim={embed_dim} and num_heads={num_heads} instead",
            )
        if embed_dim % num_heads:
            raise fail(
                AssertionError,
                f"embed_dim must be divisible by num_heads (got embed_dim={embed_dim}, "
                f"num_heads={num_heads})",
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        self._make_projections(bias, add_bias_kv, {"device": device, "dtype": dtype})
        self._reset_parameters()

    def _make_projections(self, bias: bool, add_bias_kv: bool, kind: dict[str, Any]) -> None:
        """Parameters under PyTorch's names, in its order; those not used are None."""
        width = self.embed_dim
        separate = {"q": width, "k": self.kdim, "v": self.vdim}
        if self._qkv_same_embed_dim:
            self.in_proj_weight = parameter(3 * width, width, **kind)
            for name in separate:
                self.register_parameter(f"{name}_proj_weight", None)
        else:
            for name, size in separate.items():
                setattr(self, f"{name}_proj_weight", parameter(width, size, **kind))
            self.register_parameter("in_proj_weight", None)
        if bias:
            self.in_proj_bias = parameter(3 * width, **kind)
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = NonDynamicallyQuantizableLinear(width, width, bias=bias, **kind)
        if add_bias_kv:
            self.bias_k = parameter(1, 1, width, **kind)
            self.bias_v = parameter(1, 1, width, **kind)
        else:
            self.bias_k, self.bias_v = None, None

    def _reset_parameters(self) -> None:
        """Xavier-uniform projections, zero biases, Xavier-normal learned key and value."""
        projections = (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        for weight in projections:
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for row in (self.bias_k, self.bias_v):
            if row is not None:
                init.xavier_normal_(row)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Masks are bool (True hides) or float (added); `is_causal` promises that `attn_mask` is causal."""
        weights = Projections(
            self.in_proj_weight,
            (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight),
            self.in_proj_bias,
            self.out_proj.weight,
            self.out_proj.bias,
            self.bias_k,
            self.bias_v,
        )
        options = Options(
            self.embed_dim,
            self.num_heads,
            self.dropout if self.training else 0.0,
            self.add_zero_attn,
            need_weights,
            average_attn_weights,
            is_causal,
            self.batch_first,
        )
        return multi_head_attention((query, key, value), weights, options, attn_mask, key_padding_mask)
