"""Batch and instance normalisation."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import ones, tensor, zeros
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor, inplace
from graphc.ir.types import DType, int64
from graphc.nn import functional as F
from graphc.nn.linear import parameter, reset_affine
from graphc.nn.module import Module


class _NormBase(Module):
    """Channels with learnable scale and shift (`affine`) and running statistics.

    momentum: the share of the newest batch in them; None makes them plain averages.
    """

    _version = 2

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter(
            "weight", parameter(num_features, device=device, dtype=dtype) if affine else None
        )
        with_bias = affine and bias
        self.register_parameter(
            "bias", parameter(num_features, device=device, dtype=dtype) if with_bias else None
        )
        for name, value in (
            ("running_mean", zeros(num_features, dtype=dtype) if track_running_stats else None),
            ("running_var", ones(num_features, dtype=dtype) if track_running_stats else None),
            ("num_batches_tracked", tensor(0, dtype=int64) if track_running_stats else None),
        ):
            self.register_buffer(name, value)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, and `reset_running_stats`."""
        self.reset_running_stats()
        reset_affine(self)

    def _check_input_dim(self, input: Tensor) -> None:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, strict: bool, *report: Any
    ) -> None:
        # Checkpoints of version 1 have no count of batches.
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 0) < 2 and self.track_running_stats and key not in state_dict:
            known = self.num_batches_tracked
            state_dict[key] = tensor(0, dtype=int64) if known is None else known
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *report)


class _BatchNorm(_NormBase):
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            with no_grad():
                inplace(self.num_batches_tracked, self.num_batches_tracked + 1)  # (add_ may end a program)
                if self.momentum is None:
                    momentum = 1.0 / self.num_batches_tracked.to(input.dtype)
        by_batch = self.training or (self.running_mean is None and self.running_var is None)
        follow = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if follow else None,
            self.running_var if follow else None,
            self.weight,
            self.bias,
            by_batch,
            momentum,
            self.eps,
        )


def _check_ranks(input: Tensor, *ranks: int) -> None:
    if input.ndim not in ranks:
        wanted = " or ".join(f"{rank}D" for rank in ranks)
        raise fail(ValueError, f"expected {wanted} input (got {input.ndim}D input)")


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L]."""

    def _check_input_dim(self, input: Tensor) -> None:
        _check_ranks(input, 2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of [N, C, H, W]."""

    def _check_input_dim(self, input: Tensor) -> None:
        _check_ranks(input, 4)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of [N, C, D, H, W]."""

    def _check_input_dim(self, input: Tensor) -> None:
        _check_ranks(input, 5)


class _InstanceNorm(_NormBase):
    _rank: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _check_input_dim(self, input: Tensor) -> None:
        _check_ranks(input, self._rank + 1, self._rank + 2)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        single = input.ndim == self._rank + 1
        channels = input.shape[0 if single else 1]
        if channels != self.num_features and self.affine:
            raise fail(
                ValueError,
                f"expected input's size at dim={0 if single else 1} to match num_features "
                f"({self.num_features}), "
                f"but got: {channels}.",
            )
        out = F.instance_norm(
            input.unsqueeze(0) if single else input,  # type: ignore[attr-defined]
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )
        return out.squeeze(0) if single else out  # type: ignore[attr-defined]


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of [N, C, L] or [C, L]."""

    _rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of [N, C, H, W] or [C, H, W]."""

    _rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of [N, C, D, H, W] or [C, D, H, W]."""

    _rank = 3


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of [N, C, ...] over the batches of all processes: here there is one.

    `process_group` is accepted, without effect.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise fail(ValueError, f"expected at least 2D input (got {input.ndim}D input)")

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """`module` with its batch norms, at any depth, replaced by this class; they keep their tensors."""
        made = module
        if isinstance(module, _BatchNorm):
            made = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
            )
            made._parameters.update(module._parameters)
            made._buffers.update(module._buffers)
            made.training = module.training
        for name, child in module.named_children():
            made.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return made
