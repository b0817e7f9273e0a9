"""Kernels whose limit is memory: what `tests.bench.kernels` measures, forward and backward.

A case is one function of float32 arrays written against PyTorch's names; its step computes the result and the
gradients of some inputs, given the gradient of the result. Every case has a `large` size, whose arrays do not
fit in any cache, and a `cache` size, whose arrays lie in the second-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

Namespace = Any
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ints:
    """Random integers below `high`."""

    high: int
    shape: Shape


Input = Shape | Ints


@dataclass(frozen=True)
class Case:
    """`op(T)` is the function; `large` and `cache` are its inputs; `grad` the positions of those that need
    gradients (none: forward only).

    unread   bytes of inputs that need not be read, by the inputs (an embedding's rows that nobody asks for)
    """

    op: Callable[[Namespace], Callable[..., Any]]
    large: tuple[Input, ...]
    cache: tuple[Input, ...]
    grad: tuple[int, ...] = (0,)
    unread: Callable[[list[np.ndarray]], float] = lambda arrays: 0.0

    def arrays(self, size: str) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        made = []
        for given in self.large if size == "large" else self.cache:
            if isinstance(given, Ints):
                made.append(rng.integers(0, given.high, given.shape))
            else:
                made.append(rng.standard_normal(given, dtype=np.float32))
        return made

    def least_bytes(self, arrays: list[np.ndarray], result: np.ndarray) -> float:
        """The least a step must move: inputs and the result's gradient read once, results written once."""
        moved = sum(a.nbytes for a in arrays) - self.unread(arrays) + result.nbytes
        if self.grad:
            moved += result.nbytes + sum(arrays[i].nbytes for i in self.grad)
        return float(moved)


def _f(name: str, *args: Any, **options: Any) -> Callable[[Namespace], Callable[..., Any]]:
    """A function of nn.functional with fixed further arguments."""
    return lambda T: lambda x: getattr(T.nn.functional, name)(x, *args, **options)


def _norm(name: str, *middle: Any) -> Callable[[Namespace], Callable[..., Any]]:
    """layer_norm, group_norm: the weights come last."""
    return lambda T: lambda x, w, b: getattr(T.nn.functional, name)(x, *middle, w, b)


def _batch_norm(T: Namespace) -> Callable[..., Any]:
    return lambda x, w, b: T.nn.functional.batch_norm(x, None, None, w, b, training=True)


def _instance_norm(T: Namespace) -> Callable[..., Any]:
    return lambda x: T.nn.functional.instance_norm(x)


def _cross_entropy(**options: Any) -> Callable[[Namespace], Callable[..., Any]]:
    return lambda T: lambda x, y, *w: T.nn.functional.cross_entropy(x, y, *w, **options)


def _unread_rows(arrays: list[np.ndarray]) -> float:
    index, table = arrays
    return float(table.nbytes - len(np.unique(index)) * table.shape[1] * 4)


ROWS, SMALL = (32768, 768), (64, 768)  # 100 MB, 200 KB
IMAGES, SMALL_IMAGES = (32, 64, 112, 112), (2, 16, 28, 28)
LONG, SHORT = (25 << 20,), (48 << 10,)


def _rows(op: Callable[[Namespace], Callable[..., Any]], weights: int = 0) -> Case:
    """A function of rows of 768 and of some weights of that many elements."""
    more = ((768,),) * weights
    return Case(op, (ROWS, *more), (SMALL, *more), tuple(range(1 + weights)))


def _images(op: Callable[[Namespace], Callable[..., Any]], weights: int = 0) -> Case:
    large, cache = ((64,),) * weights, ((16,),) * weights
    return Case(op, (IMAGES, *large), (SMALL_IMAGES, *cache), tuple(range(1 + weights)))


def _chain(op: Callable[[Namespace], Callable[..., Any]]) -> Case:
    return Case(op, (LONG,), (SHORT,))


def _two(op: Callable[[Namespace], Callable[..., Any]]) -> Case:
    return Case(op, (ROWS, ROWS), (SMALL, SMALL), (0, 1))


CASES: dict[str, Case] = {
    "layer_norm": _rows(_norm("layer_norm", (768,)), 2),
    "rms_norm": _rows(lambda T: lambda x, w: T.nn.functional.rms_norm(x, (768,), w), 1),
    "group_norm": _images(_norm("group_norm", 8), 2),
    "instance_norm": _images(_instance_norm),
    "batch_norm_2d": _images(_batch_norm, 2),
    "batch_norm_1d": _rows(_batch_norm, 2),
    "batch_norm_small_images": Case(
        _batch_norm, ((1024, 512, 7, 7), (512,), (512,)), ((16, 64, 7, 7), (64,), (64,)), (0, 1, 2)
    ),
    "softmax": _rows(_f("softmax", dim=-1)),
    "log_softmax": _rows(_f("log_softmax", dim=-1)),
    "softmax_dim1": Case(_f("softmax", dim=1), ((64, 128, 3136),), ((2, 32, 784),)),
    "cross_entropy": Case(
        _cross_entropy(), ((32768, 768), Ints(768, (32768,))), ((64, 768), Ints(768, (64,)))
    ),
    "cross_entropy_10": Case(
        _cross_entropy(), ((2 << 20, 10), Ints(10, (2 << 20,))), ((4096, 10), Ints(10, (4096,)))
    ),
    "cross_entropy_30000": Case(
        _cross_entropy(), ((1024, 30000), Ints(30000, (1024,))), ((2, 30000), Ints(30000, (2,)))
    ),
    "cross_entropy_smooth_weights": Case(
        _cross_entropy(label_smoothing=0.1),
        ((32768, 768), Ints(768, (32768,)), (768,)),
        ((64, 768), Ints(768, (64,)), (768,)),
    ),
    "gelu": _chain(_f("gelu")),
    "gelu_tanh": _chain(_f("gelu", approximate="tanh")),
    "silu": _chain(_f("silu")),
    "relu": _chain(_f("relu")),
    "chain": _two(lambda T: lambda x, y: (x * y + 2.0 * x).tanh() * y),
    "bias_relu": _rows(lambda T: lambda x, b: (x + b).relu(), 1),
    "dropout": _chain(_f("dropout", 0.1, training=True)),
    "max_pool": _images(_f("max_pool2d", 3, stride=2, padding=1)),
    "max_pool_2": _images(_f("max_pool2d", 2)),
    "avg_pool": _images(_f("avg_pool2d", 3, stride=2, padding=1)),
    "avg_pool_2": _images(_f("avg_pool2d", 2)),
    "adaptive_avg_pool": _images(_f("adaptive_avg_pool2d", 7)),
    "adaptive_max_pool": _images(_f("adaptive_max_pool2d", 7)),
    "adaptive_max_pool_uneven": _images(_f("adaptive_max_pool2d", (5, 9))),
    "global_avg_pool": _images(_f("adaptive_avg_pool2d", 1)),
    "embedding": Case(
        lambda T: lambda i, w: T.nn.functional.embedding(i, w),
        (Ints(30000, (65536,)), (30000, 256)),
        (Ints(256, (512,)), (256, 64)),
        (1,),
        _unread_rows,
    ),
    "sum_last": _rows(lambda T: lambda x: x.sum(-1)),
    "sum_first": _rows(lambda T: lambda x: x.sum(0)),
    "sum_middle": Case(lambda T: lambda x: x.sum(1), ((64, 128, 3136),), ((2, 32, 784),)),
    "mean_all": _rows(lambda T: lambda x: x.mean()),
    "var_channels": _images(lambda T: lambda x: x.var((0, 2, 3))),
    "amax_last": _rows(lambda T: lambda x: x.amax(-1)),
    "norm_all": _rows(lambda T: lambda x: x.norm()),
    "argmax_last": Case(lambda T: lambda x: x.argmax(-1), (ROWS,), (SMALL,), ()),
    "cumsum_last": _rows(lambda T: lambda x: x.cumsum(-1)),
    "transpose": Case(lambda T: lambda x: x.t().contiguous(), ((5120, 5120),), ((192, 256),)),
    "transpose_add": Case(lambda T: lambda x, y: x.t() + y, ((5120, 5120),) * 2, ((192, 192),) * 2, (0, 1)),
    "heads": Case(
        lambda T: lambda x: x.reshape(x.shape[0], -1, 12, 64).permute(0, 2, 1, 3).contiguous(),
        ((64, 512, 768),),
        ((2, 32, 768),),
    ),
    "nchw_to_nhwc": _images(lambda T: lambda x: x.permute(0, 2, 3, 1).contiguous()),
    "cat_last": _two(lambda T: lambda x, y: T.cat([x, y], -1)),
    "cat_first": _two(lambda T: lambda x, y: T.cat([x, y], 0)),
    "split_gate": Case(
        lambda T: lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1].sigmoid(), (ROWS,), (SMALL,)
    ),
    "pad": _images(_f("pad", (1, 1, 1, 1))),
    "upsample": Case(_f("interpolate", scale_factor=2), ((32, 64, 56, 56),), ((2, 16, 14, 14),)),
}


def elements(given: Input) -> int:
    """How many elements an input has."""
    return prod(given.shape if isinstance(given, Ints) else given)
