"""The layers by the paths of PyTorch's files: `graphc.nn.modules.conv.Conv2d` is `graphc.nn.Conv2d`.

Programs import from there, often base classes to test for (`nn.modules.batchnorm._BatchNorm`). The modules
below this one are made when it is imported: each has the classes of some of this package's own files.
"""

from __future__ import annotations

from types import ModuleType

from graphc.nn import (
    activation,
    adaptive,
    attention,
    batchnorm,
    container,
    conv,
    distance,
    dropout,
    embedding,
    flatten,
    lazy,
    linear,
    loss,
    margin,
    module,
    normalization,
    padding,
    pooling,
    rnn,
    rnn_cell,
    transformer,
    vision,
)
from graphc.paths import module_at as _module_at

_FILES = {
    "activation": (activation, attention),
    "adaptive": (adaptive,),
    "batchnorm": (batchnorm, lazy),
    "channelshuffle": (vision,),
    "container": (container,),
    "conv": (conv, lazy),
    "distance": (distance,),
    "dropout": (dropout,),
    "flatten": (flatten,),
    "fold": (vision,),
    "instancenorm": (batchnorm, lazy),
    "linear": (linear, lazy, attention),
    "loss": (loss, margin),
    "module": (module,),
    "normalization": (normalization,),
    "padding": (padding,),
    "pixelshuffle": (vision,),
    "pooling": (pooling,),
    "rnn": (rnn, rnn_cell),
    "sparse": (embedding,),
    "transformer": (transformer,),
    "upsampling": (vision,),
}


def _make(name: str, files: tuple[ModuleType, ...]) -> dict[str, type]:
    """Make the module of this name; its classes that have no underscore."""
    classes = {
        key: value
        for file in files
        for key, value in vars(file).items()
        if isinstance(value, type) and value.__module__ == file.__name__
    }
    _module_at(f"{__name__}.{name}", classes, f"Classes of {', '.join(f.__name__ for f in files)}.")
    return {key: value for key, value in classes.items() if key[0] != "_"}


for _name, _files in _FILES.items():
    globals().update(_make(_name, _files))
