"""Mixed precision by the names it had at first."""

from __future__ import annotations

from graphc import amp
from graphc.ir.types import DType


class autocast(amp.autocast):
    """`graphc.amp.autocast("cuda", ...)`: a warning, and no effect."""

    def __init__(self, enabled: bool = True, dtype: DType | None = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


custom_fwd, custom_bwd = amp.custom_fwd, amp.custom_bwd


class GradScaler(amp.GradScaler):
    """`graphc.amp.GradScaler("cuda", ...)`: a warning, and no effect."""

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
