"""The PyTorch-shaped front end: tensors, tracing, compilation. It builds nodes and knows no kernels.

`functions` holds the operations; the files here are what they stand on: tensors and their cells, histories,
lazy evaluation, traces, and compiled functions.
"""

from graphc.frontend import functions, methods

__all__ = ["functions", "methods"]

methods.install()
