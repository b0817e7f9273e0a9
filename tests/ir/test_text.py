"""The text form of graphs: every op round-trips to the same interned nodes, and mistakes are named."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Kind, Node, Site, no_sites, set_site, site_of
from graphc.ir.parser import ParseError, parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, float32, float64, int64
from graphc.ops.op import SAMPLES
from graphc.ops.sample import Arg, Sample


def graph_of(sample: Sample, index: int) -> Graph:
    args = [a if isinstance(a, Arg) else Arg(tuple(a)) for a in sample.args]
    dtype = sample.dtypes[0]
    inputs = [
        ops.input_(f"in {index}.{i}", TensorType(a.shape, a.dtype or dtype)) for i, a in enumerate(args)
    ]
    out = sample.function(*inputs)
    return Graph(tuple(inputs), (out,) if isinstance(out, Node) else tuple(out))


def samples() -> list[tuple[str, int]]:
    return [(name, i) for name in SAMPLES for i, s in enumerate(SAMPLES[name]()) if isinstance(s, Sample)]


def reparse(graph: Graph) -> Graph:
    return parse_graph(print_graph(graph), ops.REGISTRY)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_op_round_trips(name: str) -> None:
    for i, sample in enumerate(SAMPLES[name]()):
        if isinstance(sample, Sample):
            graph = graph_of(sample, i)
            back = reparse(graph)
            assert back.outputs == graph.outputs
            assert back.inputs == graph.inputs
            assert print_graph(back) == print_graph(graph)


def scalar(name: str = "x") -> Node:
    return ops.input_(name, TensorType((), float32))


def test_names_sites_and_unused_inputs_survive() -> None:
    with no_sites():
        a, b = ops.input_("a", TensorType((2,), float32)), ops.input_("b", TensorType((3,), int64))
        y = ops.exp(a)
    set_site(y, Site("train file.py", 12, "LeNet.fc1"))
    graph = Graph((a, b), (y, y), ("weight", "odd name"), ("loss",), "step 1")
    text = print_graph(graph)
    assert text == (
        'graph "step 1"(weight=%0, "odd name"=%1) {\n'
        '  %0: f32[2] = input() {name="a"}\n'
        '  %1: i64[3] = input() {name="b"}\n'
        "  %2: f32[2] = exp(%0)  # train file.py:12 in LeNet.fc1\n"
        "  return loss=%2, %2\n"
        "}\n"
    )
    back = reparse(graph)
    assert (back.input_names, back.name) == (("weight", "odd name"), "step 1")
    assert back.outputs == (y, y)
    assert back.output_names[0] == "loss"


def test_site_is_restored_on_new_nodes() -> None:
    text = (
        "graph main(%0) {\n  %0: f32[] = input() {name=\"restored\"}\n"
        "  %1: f32[] = tan(%0)  # a.py:3 in Net\n  return %1\n}\n"
    )  # fmt: skip
    graph = parse_graph(text, ops.REGISTRY)
    assert site_of(graph.outputs[0]) == Site("a.py", 3, "Net")


@pytest.mark.parametrize("value", [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 1e38, 0.1])
@pytest.mark.parametrize("dtype", [float32, float64])
def test_float_constants_keep_their_bits(value: float, dtype) -> None:
    node = ops.constant(value, dtype)
    assert reparse(Graph((), (node,))).outputs[0] is node


def test_nan_payloads_keep_their_bits() -> None:
    quiet = np.array([0x7FF8000000000123], np.uint64).view(np.float64)
    for node in (ops.constant(quiet), ops.constant(float(quiet[0]), float64)):
        assert reparse(Graph((), (node,))).outputs[0] is node


@pytest.mark.parametrize("size", [1, 3, 16, 17, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_array_constants_keep_their_bits(size: int, dtype: str) -> None:
    data = (np.random.default_rng(0).standard_normal(size) * 3).astype(dtype)
    node = ops.constant(data)
    assert reparse(Graph((), (node,))).outputs[0] is node


def test_deep_graphs_need_no_recursion() -> None:
    node = scalar("deep")
    for _ in range(5000):
        node = ops.sin(node)
    graph = Graph((toposort([node])[0],), (node,))
    assert reparse(graph).outputs[0] is node


HEAD = 'graph main(%0) {\n  %0: f32[2] = input() {name="x"}\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a graph"),
        (HEAD + "  %1: f32[2] = frob(%0)\n  return %1\n}", "line 3: unknown op"),
        (HEAD + "  %1: f32[2] = exp(%7)\n  return %1\n}", "line 3: %7 is not defined before"),
        (HEAD + "  %1: f32[3] = exp(%0)\n  return %1\n}", "exp gives f32[2], not f32[3]"),
        (HEAD + "  %0: f32[2] = exp(%0)\n  return %0\n}", "%0 is defined twice"),
        (HEAD + "  %1: f33[2] = exp(%0)\n  return %1\n}", "unknown element type"),
        (HEAD + "  %1: f32[2] = exp(%0) {a=1}\n  return %1\n}", "attributes do not fit"),
        (HEAD + "  %1: f32[2] = exp(%0) $\n  return %1\n}", "cannot read '$'"),
        (HEAD + "  %1: f32[2] = add(%0)\n  return %1\n}", "add: takes 2 operands"),
        (HEAD + "  %1: f32[2] = exp(%0\n  return %1\n}", "expected ')', found the end of the line"),
        (HEAD + "  return %1\n}", "%1 is not defined before"),
        (HEAD + "  return %0\n", "expected"),
    ],
)
def test_mistakes_in_the_text_are_named(text: str, says: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(text, ops.REGISTRY)
    assert says in str(caught.value)


def test_samples_reach_most_kinds() -> None:
    kinds = {ops.REGISTRY[name].kind for name in SAMPLES}
    assert {Kind.ELEMENTWISE, Kind.VIEW, Kind.REDUCE, Kind.CONTRACT, Kind.CONSTANT} <= kinds
