"""The arguments of creation functions that say where and how: device, layout, memory_format, pin_memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.convert import check_device
from graphc.frontend.layout import strided
from graphc.frontend.tensor import Tensor

PLACES = frozenset(("device", "layout", "memory_format", "pin_memory"))


def placed(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a creation function take PyTorch's `device`, `layout`, `memory_format` and `pin_memory`.

    There is one device and one layout, so they are checked (RuntimeError for others) and have no effect.
    """

    @functools.wraps(make)
    def anywhere(*args: Any, **options: Any) -> Tensor:
        if options and not PLACES.isdisjoint(options):
            check_device(options.pop("device", None))
            layout = options.pop("layout", None)
            if layout is not None and layout is not strided:
                raise fail(RuntimeError, f"{make.__name__}(): only graphc.strided is supported, got {layout}")
            options.pop("memory_format", None)
            options.pop("pin_memory", None)
        return make(*args, **options)

    return anywhere
