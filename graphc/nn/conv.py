"""Convolution layers over one, two and three dims, and their transposes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.linear import parameter
from graphc.nn.module import Module

Ints = int | Sequence[int]
_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What convolutions and transposed ones share: options, parameters, printing."""

    _rank: int
    _transposed = False
    padding: Any

    def _setup(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints,
        padding: str | Ints,
        dilation: Ints,
        output_padding: Ints,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: DType | None,
    ) -> None:
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        if padding_mode not in _MODES:
            raise ValueError(
                f"padding_mode must be one of {set(_MODES)}, but got padding_mode='{padding_mode}'"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._tuple(kernel_size)
        self.stride = self._tuple(stride)
        self.padding = self._check_padding(padding)
        self.dilation = self._tuple(dilation)
        self.transposed = self._transposed
        self.output_padding = self._tuple(output_padding)
        self.groups = groups
        self.padding_mode = padding_mode
        lead = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        self.weight = parameter(lead[0], lead[1] // groups, *self.kernel_size, device=device, dtype=dtype)
        if bias:
            self.bias = parameter(out_channels, device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _tuple(self, value: Ints) -> tuple[int, ...]:
        return (value,) * self._rank if isinstance(value, int) else tuple(value)

    def _check_padding(self, padding: str | Ints) -> str | tuple[int, ...]:
        if not isinstance(padding, str):
            return self._tuple(padding)
        if padding not in ("same", "valid"):
            raise ValueError(f"Invalid padding string {padding!r}, should be one of {{'same', 'valid'}}")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
        return padding

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(fan_in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        none = (0,) * self._rank
        if self.padding != none:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self._rank:
            text += f", dilation={self.dilation}"
        if self.output_padding != none:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvNd):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: str | Ints = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self._setup(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip

    def _pads(self) -> list[int]:
        """The padding as `F.pad` takes it: (low, high) from the last dim on."""
        pairs = []
        for i in reversed(range(self._rank)):
            if isinstance(self.padding, str):
                total = self.dilation[i] * (self.kernel_size[i] - 1) if self.padding == "same" else 0
                pairs += [total // 2, total - total // 2]
            else:
                pairs += [self.padding[i], self.padding[i]]
        return pairs

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._pads(), self.padding_mode), 0
        function = getattr(F, f"conv{self._rank}d")
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """Cross-correlation over [N, C, L]; weight [out, in / groups, K]."""

    _rank = 1


class Conv2d(_Conv):
    """Cross-correlation over [N, C, H, W]; weight [out, in / groups, KH, KW]."""

    _rank = 2


class Conv3d(_Conv):
    """Cross-correlation over [N, C, D, H, W]; weight [out, in / groups, KD, KH, KW]."""

    _rank = 3


class _ConvTranspose(_ConvNd):
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        self._setup(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def _extra(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """The output padding that gives `output_size`."""
        if output_size is None:
            return self.output_padding
        wanted = tuple(output_size)
        if len(wanted) == input.ndim:
            wanted = wanted[-self._rank :]
        if len(wanted) != self._rank:
            raise ValueError(
                f"ConvTranspose{self._rank}D: output_size must have {self._rank} or {input.ndim} elements "
                f"(got {len(wanted)})"
            )
        extra = []
        rows = zip(
            input.shape[-self._rank :],
            self.stride,
            self.padding,
            self.dilation,
            self.kernel_size,
            strict=True,
        )
        for (n, s, p, d, k), size in zip(rows, wanted, strict=True):
            least = (n - 1) * s - 2 * p + d * (k - 1) + 1
            if not least <= size <= least + s - 1:
                raise ValueError(
                    f"requested an output size of {list(wanted)}, but valid sizes along this dim range from "
                    f"{least} to {least + s - 1} (for an input of {list(input.shape)})"
                )
            extra.append(size - least)
        return tuple(extra)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        function = getattr(F, f"conv_transpose{self._rank}d")
        return function(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self._extra(input, output_size),
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_ConvTranspose):
    """The gradient of Conv1d to its input, as a layer; weight [in, out / groups, K]."""

    _rank = 1


class ConvTranspose2d(_ConvTranspose):
    """The gradient of Conv2d to its input, as a layer; weight [in, out / groups, KH, KW]."""

    _rank = 2


class ConvTranspose3d(_ConvTranspose):
    """The gradient of Conv3d to its input, as a layer; weight [in, out / groups, KD, KH, KW]."""

    _rank = 3
