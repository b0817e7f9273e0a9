"""The PyTorch-shaped front end: tensors, tracing, compilation. It builds nodes and knows no kernels."""

from graphc.frontend import (  # each enters its operations
    comparison,
    convert,
    counting,
    creation,
    elementwise,
    gather,
    indexing,
    joining,
    linalg,
    methods,
    operators,
    printing,
    random,
    reduce,
    shape,
    slicing,
    sorting,
    unary,
)

__all__ = [
    "comparison",
    "convert",
    "counting",
    "creation",
    "elementwise",
    "gather",
    "indexing",
    "joining",
    "linalg",
    "methods",
    "operators",
    "printing",
    "random",
    "reduce",
    "shape",
    "slicing",
    "sorting",
    "unary",
]

methods.install()
