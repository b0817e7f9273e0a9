"""The choice among implementations of attention, which the compiler makes here."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence

from graphc.frontend.errors import fail


class SDPBackend(enum.Enum):
    """PyTorch's implementations of `scaled_dot_product_attention`, to be named in `sdpa_kernel`."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextlib.contextmanager
def sdpa_kernel(backends: SDPBackend | Sequence[SDPBackend], set_priority: bool = False) -> Iterator[None]:
    """A context in which PyTorch uses these implementations only. Nothing changes here: attention runs block
    by block wherever its weights are not asked for. TypeError for what is no SDPBackend, ValueError for
    none."""
    chosen = [backends] if isinstance(backends, SDPBackend) else list(backends)
    if not all(isinstance(b, SDPBackend) for b in chosen):
        raise fail(TypeError, "sdpa_kernel() takes an SDPBackend or several")
    if not chosen:
        raise fail(ValueError, "sdpa_kernel() needs at least one backend")
    yield
