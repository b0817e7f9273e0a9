"""What a workload is: a declaration that every engine builds its own step from.

Networks and operators are written once, against PyTorch's API with the namespace (`T`) as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Namespace = Any  # the module torch, graphc, or one that mirrors them
Net = Callable[[Namespace], Any]
Arrays = tuple[np.ndarray, ...]
Data = Callable[[], Arrays]


@dataclass(frozen=True)
class Training:
    """One step: gradients cleared, forward, loss, backward, update.

    data       makes (inputs, targets)
    loss       name of a class of `T.nn`; `optimizer` of `T.optim`, with `options`
    flops      of the matrix products and convolutions, forward and backward; 0 where they are not the limit
    """

    net: Net
    data: Data
    loss: str = "CrossEntropyLoss"
    optimizer: str = "SGD"
    options: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0


@dataclass(frozen=True)
class Inference:
    """One forward pass in evaluation mode, without gradients. `data` makes the input alone."""

    net: Net
    data: Data
    flops: float = 0.0


@dataclass(frozen=True)
class Operator:
    """One operator: forward alone, or forward and the gradients of some of its arguments.

    function   of the namespace: returns what is called on the tensors of `data`
    gradients  positions of the arguments to differentiate; the gradient of the result is a fixed array
    flops      of all of it, backward too
    unread     bytes of the arguments that need not be read (an embedding's rows that nobody asks for)
    """

    function: Callable[[Namespace], Callable[..., Any]]
    data: Data
    gradients: tuple[int, ...] = ()
    flops: float = 0.0
    unread: Callable[[Sequence[np.ndarray]], float] = lambda arrays: 0.0

    def least_bytes(self, arrays: Sequence[np.ndarray], result: int) -> float:
        """The least that a step must move: arguments and the result's gradient read once, results (of
        `result` bytes) and gradients written once."""
        moved = sum(array.nbytes for array in arrays) - self.unread(arrays) + result
        if self.gradients:
            moved += result + sum(arrays[i].nbytes for i in self.gradients)
        return float(moved)


Workload = Training | Inference | Operator


def floats(*shapes: tuple[int, ...], seed: int = 0) -> Data:
    """Makes standard normal float32 arrays."""

    def make() -> Arrays:
        random = np.random.default_rng(seed)
        return tuple([random.standard_normal(shape, dtype=np.float32) for shape in shapes])

    return make


def integers(high: int, *shape: int, seed: int = 1) -> np.ndarray:
    """int64 below `high`."""
    return np.random.default_rng(seed).integers(0, high, shape)


def classes(shape: tuple[int, ...], high: int) -> Data:
    """Makes standard normal inputs, and a class below `high` for each element of the first axis."""
    return lambda: (*floats(shape)(), integers(high, shape[0]))


def initialise(model: Any, no_grad: Callable[[], Any], tensor: Callable[[np.ndarray], Any]) -> None:
    """Give every parameter values that depend on its place and shape alone, so that engines do the same work:
    matrices and filters are normal with deviation 1/sqrt(fan in), scales of norms one, biases zero."""
    random = np.random.default_rng(0)
    with no_grad():
        for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
            parameter.copy_(tensor(initial(name, tuple(parameter.shape), random)))


def initial(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """The first value of a parameter."""
    if len(shape) > 1:
        scale = np.float32(1 / np.sqrt(np.prod(shape[1:])))
        return random.standard_normal(shape, dtype=np.float32) * scale
    return np.full(shape, name.endswith("weight"), np.float32)
