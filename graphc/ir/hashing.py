"""The structural hash of a graph: equal for equal computations, in any process.

Input names, output names and sites do not count; the order of inputs and outputs does.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.node import NO_ATTRS, Attrs, Kind, Op, freeze
from graphc.ir.types import DType, TensorType


def structural_hash(graph: Graph, *extra: str) -> str:
    """32 hex digits that identify the computation (and the strings `extra`)."""
    return hashlib.blake2b(encode(graph, *extra), digest_size=16).hexdigest()


def encode(graph: Graph, *extra: str) -> bytes:
    """The canonical byte string that `structural_hash` digests; injective up to structure."""
    number = {node: i for i, node in enumerate(graph.inputs)}
    parts = [repr((extra, [str(n.type) for n in graph.inputs]))]
    add = parts.append
    for node in graph.nodes:
        if node.op.kind is Kind.INPUT:
            if node not in number:
                raise ValueError(f"graph reads an input it does not declare: {node.attrs}")
            continue
        number[node] = len(number)
        attrs = "" if node.attrs is NO_ATTRS else encode_value(node.attrs)
        add(f"{node.op.name}{[number[n] for n in node.inputs]}{attrs}")
    add(repr([number[n] for n in graph.outputs]))
    return "\n".join(parts).encode()


_fields: dict[type, tuple[str, ...]] = {}


def _field_names(kind: type) -> tuple[str, ...]:
    names = _fields.get(kind)
    if names is None:
        names = _fields[kind] = tuple(f.name for f in fields(kind))
    return names


def encode_value(value: Any) -> str:
    """A text for one attribute value; different values have different texts."""
    kind = type(value)
    if kind is int or kind is str or kind is bool or value is None or kind is bytes:
        return repr(value)
    if kind is float:
        return freeze(value)[1].hex() + "f"
    if kind is tuple:
        return "(" + ",".join([encode_value(v) for v in value]) + ")"
    if isinstance(value, Attrs):
        outline = value.outline
        if outline is not None:
            return f"{kind.__name__}{encode_value(outline)}"
        inner = ",".join([encode_value(getattr(value, name)) for name in _field_names(kind)])
        return f"{kind.__name__}({inner})"
    return _encode_rare(value)


def _encode_rare(value: Any) -> str:
    if isinstance(value, DType):
        return value.short
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        digest = hashlib.blake2b(data.tobytes(), digest_size=16).hexdigest()
        return f"array({data.dtype.str},{data.shape},{digest})"
    if isinstance(value, TensorType):
        return str(value)
    if isinstance(value, Op):
        return value.name
    if isinstance(value, Graph):
        return structural_hash(value)
    raise TypeError(f"attribute of type {type(value).__name__} has no structural encoding")
