"""Tools beside the layers: `graphc.utils.data`, `graphc.utils.checkpoint`, `graphc.utils.dlpack`."""

from graphc.frontend.hooks import RemovableHandle
from graphc.paths import module_at
from graphc.utils import checkpoint, data, dlpack

__all__ = ["checkpoint", "data", "dlpack", "hooks"]

hooks = module_at(
    "graphc.utils.hooks", {"RemovableHandle": RemovableHandle}, "What registering a hook returns."
)
