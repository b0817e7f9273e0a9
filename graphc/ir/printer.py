"""Graphs as text: readable, deterministic SSA that `ir.parser` reads back into the same graph.

::

    graph main(x=%0, w=%1) {
      %0: f32[64, 784] = input() {name="x"}  # train.py:10
      %1: f32[10, 784] = input() {name="w"}  # train.py:11 in Net.fc
      %2: f32[64, 10] = dot_general(%0, %1) {contract=((1,), (1,)), batch=((), ())}  # train.py:12 in Net.fc
      return logits=%2
    }

Attributes called `shape` and `dtype` that only repeat the result's type are left out. A loop stands before
the first of its results, with numbers of its own, and the results name it::

    loop @0 {length=3, reverse=false}(carry=%0, x=%1, const=%2) {
      %0: f32[4] = input() {name="carry0"}
      ...
      return %5
    }
    %7: f32[3, 4] = scan(%3, %4, %6) {loop=@0, emit=%5}
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.node import Attrs, Kind, Node, freeze, site_of
from graphc.ir.types import DType, TensorType
from graphc.ops.scan import Loop, ScanAttrs

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
LISTED = 16  # array constants up to this many elements are written out as numbers


def print_graph(graph: Graph, *, sites: bool = True) -> str:
    """The text of a graph. Equal structure gives equal text (apart from names and sites)."""
    nodes = list(dict.fromkeys((*graph.inputs, *graph.nodes)))
    number = {node: i for i, node in enumerate(nodes)}
    inputs = _named(graph.inputs, graph.input_names, number)
    lines = [f"graph {word(graph.name)}({inputs}) {{"]
    lines += [f"  {line}" for line in _Writer(sites).lines(nodes, number)]
    lines.append(f"  return {_named(graph.outputs, graph.output_names, number)}".rstrip())
    return "\n".join([*lines, "}"]) + "\n"


class _Writer:
    """Writes nodes, with the loops that they are results of; loops are numbered as they are met."""

    def __init__(self, sites: bool) -> None:
        self.sites = sites
        self.count = 0

    def lines(self, nodes: Sequence[Node], number: Mapping[Node, int]) -> list[str]:
        """The lines of a graph's (or a body's) nodes."""
        lines: list[str] = []
        named: dict[Loop, tuple[str, Mapping[Node, int]]] = {}
        for node in nodes:
            if node.kind is Kind.SCAN and node.attrs.loop not in named:
                loop: Loop = node.attrs.loop
                body = _body(loop, nodes)
                named[loop] = f"@{self.count}", body
                self.count += 1
                lines += self._loop(loop, *named[loop])
            text = _result_text(node, *named[node.attrs.loop]) if node.kind is Kind.SCAN else None
            lines.append(node_line(node, number, sites=self.sites, attrs=text))
        return lines

    def _loop(self, loop: Loop, name: str, number: Mapping[Node, int]) -> list[str]:
        """The body of a loop, indented."""
        roles = zip(("carry", "x", "const"), (loop.carries, loop.xs, loop.consts), strict=True)
        params = ", ".join([f"{role}=%{number[p]}" for role, group in roles for p in group])
        start = f"loop {name} {{length={loop.length}, reverse={value_text(loop.reverse)}}}({params}) {{"
        inner = self.lines(list(number), number)
        end = f"return {_named(loop.nexts, (), number)}".rstrip()
        return [start, *[f"  {line}" for line in (*inner, end)], "}"]


def _body(loop: Loop, nodes: Iterable[Node]) -> dict[Node, int]:
    """The nodes of a loop's body, with their numbers: all that its results among `nodes` need."""
    results = [node.attrs for node in nodes if node.kind is Kind.SCAN and node.attrs.loop == loop]
    body = loop.body([attrs.emit for attrs in results if attrs.emit is not None])
    return {node: i for i, node in enumerate(dict.fromkeys((*body.inputs, *body.nodes)))}


def _result_text(node: Node, loop: str, number: Mapping[Node, int]) -> str:
    """Which result of a loop a scan node is."""
    attrs: ScanAttrs = node.attrs
    result = f"final={attrs.final}" if attrs.emit is None else f"emit=%{number[attrs.emit]}"
    return f"loop={loop}, {result}"


def _outline_text(node: Node) -> str:
    """Which result of which loop a scan node is, where the loop itself is not printed."""
    loop, emit = node.attrs.loop, node.attrs.emit
    result = f"final={node.attrs.final}" if emit is None else f"emit={emit.op.name} {emit.type}"
    return f"length={loop.length}, reverse={value_text(loop.reverse)}, {result}"


def node_line(node: Node, number: Mapping[Node, int], *, sites: bool = True, attrs: str | None = None) -> str:
    """`%2: f32[3] = add(%0, %1)  # train.py:3 in Net`; `attrs` is the text of the attributes, if known."""
    operands = ", ".join([f"%{number[n]}" for n in node.inputs])
    text = f"%{number[node]}: {node.type} = {node.op.name}({operands})"
    if attrs is None:
        attrs = _outline_text(node) if node.kind is Kind.SCAN else attrs_text(node.attrs, node.type)
    if attrs:
        text += f" {{{attrs}}}"
    site = site_of(node) if sites else None
    return f"{text}  # {site}" if site else text


def _named(nodes: Sequence[Node], names: Sequence[str], number: Mapping[Node, int]) -> str:
    labels = [f"{word(name)}=" if name else "" for name in names] + [""] * (len(nodes) - len(names))
    return ", ".join([f"{label}%{number[n]}" for label, n in zip(labels, nodes, strict=True)])


def word(name: str) -> str:
    """A name as it is if it looks like one, else quoted."""
    return name if _WORD.match(name) else json.dumps(name)


def attrs_text(attrs: Attrs, result: TensorType) -> str:
    """`field=value, ...` without what the result type already says."""
    known: dict[str, Any] = {"shape": result.shape, "dtype": result.dtype}
    parts = []
    for field in fields(attrs):  # type: ignore[arg-type]
        value = getattr(attrs, field.name)
        if field.name in known and freeze(known[field.name]) == freeze(value):
            continue
        parts.append(f"{field.name}={value_text(value, result.dtype)}")
    return ", ".join(parts)


def value_text(value: Any, dtype: DType | None = None) -> str:
    """One attribute value; `dtype` is the element type of raw bytes."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.short
    if isinstance(value, tuple):
        inner = ", ".join([value_text(v, dtype) for v in value])
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, bytes):
        return _bytes_text(value, dtype)
    if isinstance(value, Attrs):
        named = [f"{f.name}={value_text(getattr(value, f.name), dtype)}" for f in fields(value)]  # type: ignore[arg-type]
        return f"{type(value).__name__}({', '.join(named)})"
    raise TypeError(f"attribute of type {type(value).__name__} has no text form")


def _float_text(value: float) -> str:
    text = repr(value)
    if freeze(float(text)) == freeze(value):
        return text
    return f"bits({int.from_bytes(freeze(value)[1], 'little'):#x})"  # a NaN with a payload


def _bytes_text(value: bytes, dtype: DType | None) -> str:
    """Few elements as `[1.0, 2.0]`, many (or odd NaNs) as base64."""
    if dtype is not None and len(value) <= LISTED * dtype.itemsize:
        numbers = np.frombuffer(value, dtype.numpy)
        if np.array(numbers.tolist(), dtype.numpy).tobytes() == value:
            return "[" + ", ".join([value_text(v) for v in numbers.tolist()]) + "]"
    return f'base64"{base64.b64encode(value).decode()}"'
