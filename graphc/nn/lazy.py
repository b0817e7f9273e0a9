"""Layers that learn their number of input channels from their first call, and are ordinary ones from then on.

Until then their parameters have no values: run the model once, on data of the right shape, before an
optimizer, an initializer or a checkpoint looks at them, and before it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import zeros
from graphc.frontend.modes import MODE
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType
from graphc.nn.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from graphc.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Ints,
)
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.parameter import UninitializedParameter
from graphc.nn.tree import edited


class _Lazy(Module):
    """What the lazy layers share; stands before the layer that they become among the bases.

    The layer is made at once, without input channels, so that its options are checked and shown; its
    parameters are replaced by UninitializedParameters. The first call makes another one of the right size
    with the same options, takes its parameters, buffers and sizes over, and becomes of its class.
    """

    cls_to_become: ClassVar[type[Module]]
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _dtype: DType | None  # what the layer has been converted to

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.is_library = False  # (calls of library modules are recorded as pure functions)

    def _wait(self, *options: Any, **named: Any) -> None:
        """Set up the layer with the options it has besides its input channels."""
        super().__init__(0, *options, **named)
        object.__setattr__(self, "_made_with", (options, named))
        object.__setattr__(self, "_dtype", None)
        for name, parameter in self._parameters.items():
            self._parameters[name] = None if parameter is None else UninitializedParameter()

    def reset_parameters(self) -> None:
        """Nothing: there are no values yet."""

    def has_uninitialized_params(self) -> bool:
        """Whether the layer waits for its first call."""
        return True

    def _channels(self, input: Tensor) -> int:
        """The input channels that an input has."""
        raise NotImplementedError

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take the number of input channels from `input`, and become an ordinary layer."""
        if MODE.trace is not None:
            raise fail(
                RuntimeError,
                f"{type(self).__name__}: a lazy layer gets its parameters from its first call, which must "
                "not be inside compiled code: call the model once before",
            )
        options, named = self._made_with
        made = self.cls_to_become(self._channels(input), *options, **named)
        if self._dtype is not None:
            made.to(self._dtype)
        for name, parameter in made._parameters.items():
            if parameter is not None:
                self._parameters[name].materialize(parameter)
        fields = self.__dict__
        kept = {k: fields[k] for k in fields if k.startswith("_") or k == "training"}
        fields.update({**made.__dict__, **kept, "_buffers": made._buffers})
        del fields["_made_with"], fields["_dtype"]
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        edited()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.initialize_parameters(*args, **kwargs)
        return self(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self._dtype or get_default_dtype()
        object.__setattr__(self, "_dtype", fn(zeros(0, dtype=before)).dtype)
        return self


class LazyLinear(_Lazy, Linear):
    """A Linear whose in_features is the last dimension of its first input."""

    cls_to_become = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        self._wait(out_features, bias, device, dtype)

    def _channels(self, input: Tensor) -> int:
        return input.shape[-1]


class _LazyChannels(_Lazy):
    """Of inputs [N, C, *spatial] or [C, *spatial]."""

    _rank: int

    def _channels(self, input: Tensor) -> int:
        batched = input.ndim - self._rank - 1
        if batched not in (0, 1):
            raise fail(
                RuntimeError,
                f"Expected {self._rank + 1}D (unbatched) or {self._rank + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {input.shape}",
            )
        return input.shape[batched]


class _LazyConv(_LazyChannels):
    def __init__(
        self,
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
        self._wait(
            out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )


class _LazyConvTranspose(_LazyChannels):
    def __init__(
        self,
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
        self._wait(
            out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype,
        )  # fmt: skip


class LazyConv1d(_LazyConv, Conv1d):
    """A Conv1d whose in_channels are those of its first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyConv, Conv2d):
    """A Conv2d whose in_channels are those of its first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyConv, Conv3d):
    """A Conv3d whose in_channels are those of its first input."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d):
    """A ConvTranspose1d whose in_channels are those of its first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d):
    """A ConvTranspose2d whose in_channels are those of its first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConvTranspose, ConvTranspose3d):
    """A ConvTranspose3d whose in_channels are those of its first input."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(_Lazy):
    """Instance normalisation too is affine and tracks statistics by default here, as in PyTorch."""

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        self._wait(eps, momentum, affine, track_running_stats, device, dtype, bias=bias)


class _LazyBatchNorm(_LazyNorm):
    def _channels(self, input: Tensor) -> int:
        self._check_input_dim(input)
        return input.shape[1]


class LazyBatchNorm1d(_LazyBatchNorm, BatchNorm1d):
    """A BatchNorm1d whose num_features are the channels of its first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyBatchNorm, BatchNorm2d):
    """A BatchNorm2d whose num_features are the channels of its first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyBatchNorm, BatchNorm3d):
    """A BatchNorm3d whose num_features are the channels of its first input."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, _LazyChannels, InstanceNorm1d):
    """An InstanceNorm1d whose num_features are the channels of its first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, _LazyChannels, InstanceNorm2d):
    """An InstanceNorm2d whose num_features are the channels of its first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, _LazyChannels, InstanceNorm3d):
    """An InstanceNorm3d whose num_features are the channels of its first input."""

    cls_to_become = InstanceNorm3d
