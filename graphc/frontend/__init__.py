"""The PyTorch-shaped front end: tensors, tracing, compilation. It builds nodes and knows no kernels.

The files here are what all else stands on: tensors and their cells, histories, sites, modes. Above them, each
on those before: `evaluation` (when pending nodes are computed), `tracing` (functions recorded and compiled),
`steps` (training steps of plain loops as single programs) and `functions` (the operations).
"""

from graphc.frontend import functions
from graphc.frontend.functions import methods

__all__ = ["functions", "methods"]

methods.install()
