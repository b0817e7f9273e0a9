"""Mixed precision for programs that switch it off without a GPU: here there are float32 and float64 only."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

F = TypeVar("F", bound=Callable[..., Any])


def _warn_or_refuse(device: str, enabled: bool, warning: str, refusal: str) -> None:
    """Warn that there is no CUDA, as PyTorch does; RuntimeError for the CPU, which has nothing to enable."""
    if enabled and device != "cuda":
        raise fail(RuntimeError, refusal)
    if enabled:
        warnings.warn(warning, stacklevel=3)


class autocast:
    """A context manager and decorator that, disabled, does nothing.

    For "cuda" it disables itself with a warning, as in PyTorch where there is no CUDA. RuntimeError when it
    is enabled for the CPU, whose lower precision (bfloat16) is not built.
    """

    def __init__(
        self,
        device_type: str,
        dtype: DType | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        _warn_or_refuse(
            device_type,
            enabled,
            "CUDA is not available. Disabling autocast.",
            f"autocast({device_type!r}): lower precision is not built; pass enabled=False for float32",
        )

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class GradScaler:
    """Scaling of losses for float16, which is not built: every method does what a disabled one does.

    For "cuda" it disables itself with a warning, as in PyTorch where there is no CUDA. RuntimeError when it
    is enabled for the CPU. The scale's settings are accepted.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        _warn_or_refuse(
            device,
            enabled,
            "GradScaler is enabled, but CUDA is not available. Disabling.",
            f"GradScaler({device!r}): float16 is not built; pass enabled=False, float32 needs no scale",
        )

    def scale(self, outputs: Any) -> Any:
        """The outputs themselves."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Leave the gradients as they are."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor | None:
        """`optimizer.step(*args, **kwargs)`."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """There is no scale to adjust."""

    def get_scale(self) -> float:
        """1."""
        return 1.0

    def is_enabled(self) -> bool:
        """False."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """There is nothing to restore."""


def custom_fwd(fwd: F | None = None, *, device_type: str = "cuda", cast_inputs: DType | None = None) -> Any:
    """Decorate the `forward` of an `autograd.Function` for autocast, which is off here: it stays as it is."""
    return fwd if fwd is not None else lambda given: given


def custom_bwd(bwd: F | None = None, *, device_type: str = "cuda") -> Any:
    """The same for `backward`."""
    return bwd if bwd is not None else lambda given: given
