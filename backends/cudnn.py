"""cuDNN's switches, for programs that set them wherever they run; there is no cuDNN here, so none matters."""

from __future__ import annotations

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False: graphc's kernels are its own."""
    return False


def version() -> None:
    """None: there is no cuDNN."""
