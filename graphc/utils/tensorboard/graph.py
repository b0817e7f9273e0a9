"""A graphc graph as TensorBoard's graph: nodes named by the module they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.graph import Graph
from graphc.ir.node import Node, site_of
from graphc.ir.printer import attrs_text
from graphc.ir.types import TensorType
from graphc.utils.tensorboard import protocol as pb

_DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "uint32": 22}


def graph_def(graph: Graph) -> Any:
    """The GraphDef of a graph; a node made in ``Net.fc1`` is ``Net/fc1/dot_general_7``."""
    names: dict[Node, str] = {}
    given = dict(zip(graph.inputs, graph.input_names, strict=False))
    for number, node in enumerate(graph.nodes):
        site = site_of(node)
        scope = site.module.replace(".", "/") + "/" if site is not None and site.module else ""
        names[node] = f"input/{given[node]}" if node in given else f"{scope}{node.op.name}_{number}"
    nodes = [_node(node, names[node], [names[i] for i in node.inputs]) for node in graph.nodes]
    for i, node in enumerate(graph.outputs):
        nodes.append(pb.NodeDef(name=f"output/{i}", op="output", input=[names[node]], attr=_shape(node.type)))
    return pb.GraphDef(node=nodes, versions=pb.VersionDef(producer=22))


def _shape(kind: TensorType) -> dict[str, Any]:
    dims = [pb.TensorShapeProto.Dim(size=n) for n in kind.shape]
    shapes = pb.AttrValue.ListValue(shape=[pb.TensorShapeProto(dim=dims)])
    return {
        "_output_shapes": pb.AttrValue(list=shapes),
        "dtype": pb.AttrValue(type=_DTYPES[kind.dtype.name]),
    }


def _node(node: Node, name: str, inputs: Sequence[str]) -> Any:
    text = attrs_text(node.attrs, node.type)
    site = site_of(node)
    attr = _shape(node.type)
    if text:
        attr["attrs"] = pb.AttrValue(s=text[:1000].encode())
    if site is not None:
        attr["site"] = pb.AttrValue(s=str(site).encode())
    return pb.NodeDef(name=name, op=node.op.name, input=inputs, attr=attr)
