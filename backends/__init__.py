"""Backends of graphc, found by name through the entry-point group ``graphc.backends``.

`cuda`, `cudnn` and `mps` are none: they are the switches of libraries that programs for PyTorch may set.
"""

from graphc.backends import cuda, cudnn, mps

__all__ = ["cuda", "cudnn", "mps"]
