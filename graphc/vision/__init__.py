"""Pictures: `graphc.vision.transforms` and `graphc.vision.datasets`, with torchvision's names.

Needs Pillow, an extra: ``pip install 'graphc[vision]'``.
"""

from graphc.vision import datasets, transforms

__all__ = ["datasets", "transforms"]
