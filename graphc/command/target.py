"""What `graphc dump` works on: finding TARGET and tracing it to a graph."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc import nn, ops
from graphc.autodiff import gradients
from graphc.frontend.tracing.compile import Compiled
from graphc.frontend.tracing.graphs import TensorSpec, trace_program
from graphc.ir.graph import Graph
from graphc.ir.parser import ParseError, parse_graph
from graphc.ir.types import BY_NAME, DType, uint32
from graphc.ops.op import REGISTRY


class UsageError(Exception):
    """The command line asks for something that cannot be; the message says what would be right."""


@dataclass(frozen=True)
class Target:
    """A traced program: its graph, and which outputs overwrite which inputs."""

    name: str
    graph: Graph
    donate: Mapping[int, int]


def load(target: str, inputs: Sequence[str], train: bool = False) -> Target:
    """Trace TARGET: `file.py:name` (Module class or instance, function, compiled step) or a saved graph.

    Raises UsageError for what cannot be found or traced.
    """
    path, _, name = target.rpartition(":")
    if path.endswith(".py"):
        found = _object(Path(path), name)
        examples = [parse_spec(text) for text in inputs]
        return _trace(name, found, examples, train)
    if target.endswith(".py"):
        raise UsageError(f"{target} is a file: say what in it, as {target}:NAME")
    if inputs:
        raise UsageError("a saved graph has its own input shapes: leave out --input")
    return _saved(Path(target))


def parse_spec(text: str) -> TensorSpec:
    """`1x3x224x224:float32`; `:float32` may be left out, and `scalar:int64` has no dimensions."""
    shape_text, _, dtype_text = text.partition(":")
    if shape_text != "scalar" and not re.fullmatch(r"\d+(x\d+)*", shape_text):
        raise UsageError(f"--input {text!r}: write the shape as 1x3x224x224 (or scalar), then :DTYPE")
    shape = () if shape_text == "scalar" else tuple(map(int, shape_text.split("x")))
    return TensorSpec(shape, _dtype(dtype_text or "float32", text))


def _dtype(name: str, where: str) -> DType:
    dtype = BY_NAME.get(name)
    if dtype is None or dtype is uint32:
        known = ", ".join(n for n, t in BY_NAME.items() if t is not uint32)
        raise UsageError(f"--input {where!r}: no dtype {name!r} (there are {known})")
    return dtype


def _object(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UsageError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            offered = [n for n, v in vars(module).items() if _traceable(v) and not n.startswith("_")]
            raise UsageError(f"{path} has no {name!r} (it has {', '.join(offered) or 'nothing to trace'})")
        found = getattr(found, part)
    return found


def _traceable(value: Any) -> bool:
    return isinstance(value, nn.Module | Compiled) or (callable(value) and hasattr(value, "__module__"))


def _trace(name: str, found: Any, examples: Sequence[TensorSpec], train: bool) -> Target:
    if isinstance(found, type):
        if not issubclass(found, nn.Module):
            raise UsageError(f"{name} is a class, but no nn.Module")
        try:
            found = found()
        except TypeError as error:
            raise UsageError(
                f"{name}() failed ({error}): make an instance in the file and name that"
            ) from None
    if not callable(found):
        raise UsageError(
            f"{name} is a {type(found).__name__}: expected a Module, a function or a compiled step"
        )
    if isinstance(found, nn.Module):
        found.train(train)
    try:
        graph, donate = trace_program(found, *examples)
    except TypeError as error:
        if "argument" in str(error):
            raise UsageError(f"calling {name} with {len(examples)} --input failed: {error}") from None
        raise
    return Target(name, graph, donate)


def _saved(path: Path) -> Target:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path} as a graph: {error}; expected file.py:NAME or a saved graph"
        ) from None
    try:
        graph = parse_graph(text, REGISTRY)
    except ParseError as error:
        raise UsageError(f"{path} is no graph: {error}") from None
    return Target(path.stem, graph, {})


def differentiate(target: Target) -> Target:
    """The joint forward and backward graph: outputs, then gradients of every floating-point input.

    The cotangents of the outputs are further inputs, named ct0, ct1, ...
    """
    graph = target.graph
    outputs = [n for n in graph.outputs if n.dtype.is_float]
    if not outputs:
        raise UsageError(f"{target.name} has no floating-point output to differentiate")
    cotangents = [ops.input_(f"ct{i}", node.type) for i, node in enumerate(outputs)]
    wanted = [n for n in graph.inputs if n.dtype.is_float]
    found = gradients(outputs, cotangents, wanted)
    reached = [(i, g) for i, (n, g) in enumerate(zip(wanted, found, strict=True)) if g is not None]
    names = dict(zip(graph.inputs, graph.input_names or [""] * len(graph.inputs), strict=True))
    joint = Graph(
        (*graph.inputs, *cotangents),
        (*graph.outputs, *(g for _, g in reached)),
        (*names.values(), *(f"ct{i}" for i in range(len(cotangents)))),
        (*_output_names(graph), *(f"grad_{names[wanted[i]] or i}" for i, _ in reached)),
        graph.name,
    )
    return Target(target.name, joint, target.donate)


def _output_names(graph: Graph) -> tuple[str, ...]:
    return graph.output_names or tuple(f"out{i}" for i in range(len(graph.outputs)))
