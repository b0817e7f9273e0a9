"""Making a batch of samples."""

from __future__ import annotations

import collections.abc
import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.frontend.evaluation.lazy import memory
from graphc.frontend.functions.creation import tensor
from graphc.frontend.functions.joining import stack
from graphc.frontend.tensor import Tensor, from_array
from graphc.ir.types import float64

_Key = type | tuple[type, ...]
ERROR = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"


def collate(batch: Sequence[Any], *, collate_fn_map: dict[_Key, Callable[..., Any]] | None = None) -> Any:
    """Combine a list of samples element by element, with a function for each type of leaf.

    Dicts, named tuples, tuples and lists are taken apart and put together again; RuntimeError if
    sequences differ in length, TypeError for a leaf without a function.
    """
    first = batch[0]
    functions = collate_fn_map or {}
    for kinds, function in functions.items():
        if isinstance(first, kinds):
            return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, collections.abc.Mapping):
        return _like_mapping(
            first, {key: _part([sample[key] for sample in batch], key, functions) for key in first}
        )
    if isinstance(first, collections.abc.Sequence):
        lengths = [len(sample) for sample in batch]
        if lengths.count(len(first)) != len(batch):
            raise RuntimeError(f"each element in list of batch should be of equal size, but got {lengths}")
        columns = [_part(part, i, functions) for i, part in enumerate(zip(*batch, strict=True))]
        if isinstance(first, tuple) and hasattr(first, "_fields"):
            return type(first)(*columns)
        if isinstance(first, tuple):  # PyTorch gives a list here, whatever the samples are
            return columns
        try:
            return type(first)(columns)  # type: ignore[call-arg]
        except TypeError:
            return columns
    raise TypeError(ERROR.format(type(first)))


def _part(parts: Sequence[Any], at: Any, functions: dict[_Key, Callable[..., Any]]) -> Any:
    """What stands at one place of each sample, collated; errors name the place."""
    try:
        return collate(parts, collate_fn_map=functions)
    except (RuntimeError, TypeError) as error:
        error.add_note(f"at [{at!r}] of the samples")
        raise


def _like_mapping(first: Any, items: dict) -> Any:
    if type(first) is dict:
        return items
    try:
        clone = copy.copy(first)
        clone.update(items)
        return clone
    except (TypeError, AttributeError):
        return items


def _check_shapes(batch: Sequence[Any]) -> None:
    first = batch[0].shape
    for i, part in enumerate(batch):
        if part.shape != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and "
                f"{list(part.shape)} at entry {i}: pad the samples, or give the DataLoader a collate_fn"
            )


def _tensors(batch: Sequence[Tensor], **_: Any) -> Tensor:
    if any(t.requires_grad for t in batch):
        return stack(list(batch))
    _check_shapes(batch)
    return from_array(np.stack([memory(t) for t in batch]))


def _arrays(batch: Sequence[np.ndarray], **_: Any) -> Any:
    first = batch[0]
    if first.dtype.kind in "SUOV":
        raise TypeError(ERROR.format(first.dtype))
    _check_shapes(batch)
    return tensor(np.stack(batch))


def _array_scalars(batch: Sequence[np.generic], **_: Any) -> Tensor:
    return tensor(np.asarray(batch))


def _floats(batch: Sequence[float], **_: Any) -> Tensor:
    return tensor(list(batch), dtype=float64)


def _ints(batch: Sequence[int], **_: Any) -> Tensor:
    return tensor(list(batch))


def _unchanged(batch: Sequence[Any], **_: Any) -> Sequence[Any]:
    return batch


default_collate_fn_map: dict[_Key, Callable[..., Any]] = {
    Tensor: _tensors,
    np.ndarray: _arrays,
    (np.bool_, np.number): _array_scalars,
    float: _floats,
    int: _ints,
    str: _unchanged,
    bytes: _unchanged,
}


def default_collate(batch: Sequence[Any]) -> Any:
    """A batch from a list of samples: tensors, arrays and numbers become tensors with a new first axis.

    Strings stay lists; dicts, named tuples, tuples and lists are collated element by element.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def default_convert(data: Any) -> Any:
    """Arrays (also inside dicts, tuples and lists) as tensors; everything else as it is."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray | np.generic):
        return data if data.dtype.kind in "SUOV" else tensor(data)
    if isinstance(data, collections.abc.Mapping):
        return _like_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*[default_convert(d) for d in data])
    if isinstance(data, tuple):
        return [default_convert(d) for d in data]
    if isinstance(data, collections.abc.Sequence) and not isinstance(data, str | bytes):
        return type(data)([default_convert(d) for d in data])  # type: ignore[call-arg]
    return data
