"""CUDA's switches, for programs that set them wherever they run; there is no CUDA here, so none matters."""

from __future__ import annotations

from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False)


def is_built() -> bool:
    """False: graphc makes code for CPUs."""
    return False
