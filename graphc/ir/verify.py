"""Well-formedness of a graph: what every pass may rely on and must leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node, Op, make, site_of
from graphc.ops.scan import Loop, siblings


class VerifyError(Exception):
    """A graph breaks a rule of the IR: a bug in the compiler, not in the user's program."""


def verify(graph: Graph, ops: Mapping[str, Op] | None = None) -> None:
    """Check a graph; raises VerifyError naming the node.

    Inputs are INPUT nodes, declared once each; every INPUT node in use is declared; operands come
    from registered ops (if `ops` is given); each node's type is what its op infers; each node is the
    interned one; names do not outnumber what they name. The bodies of loops are graphs like any other, with
    parameters of the usual names and without checks.
    """
    _verify_interface(graph)
    for (_, loop), results in siblings(graph.nodes).items():
        _verify_loop(loop, results, ops)
    declared = set(graph.inputs)
    for node in graph.nodes:
        if node.kind is Kind.INPUT:
            if node not in declared:
                raise _wrong(node, "is not declared as an input of the graph")
            continue
        if ops is not None and ops.get(node.op.name) is not node.op:
            raise _wrong(node, "has an op that is not in the registry")
        if not isinstance(node.attrs, node.op.attrs):
            raise _wrong(node, f"has attributes {type(node.attrs).__name__}, not {node.op.attrs.__name__}")
        _verify_type(node)


def _verify_loop(loop: Loop, results: Sequence[Node], ops: Mapping[str, Op] | None) -> None:
    """Check the body of a loop, all wanted emits included."""
    for prefix, params in (("carry", loop.carries), ("x", loop.xs), ("const", loop.consts)):
        for i, param in enumerate(params):
            if param.kind is not Kind.INPUT or param.attrs.name != f"{prefix}{i}":
                raise _wrong(param, f"is parameter {prefix}{i} of a loop but has another name")
    body = loop.body([node.attrs.emit for node in results if node.attrs.emit is not None])
    check = next((node for node in body.nodes if node.kind is Kind.CHECK), None)
    if check is not None:
        raise _wrong(check, "stands in the body of a loop, where checks come too late")
    try:
        verify(body, ops)
    except VerifyError as error:
        raise _wrong(results[0], f"has a broken body: {error}") from error


def _verify_interface(graph: Graph) -> None:
    for node in graph.inputs:
        if node.kind is not Kind.INPUT:
            raise _wrong(node, "is declared as an input but is computed")
    if len(set(graph.inputs)) != len(graph.inputs):
        raise VerifyError(f"graph {graph.name!r} declares an input twice")
    for what, names, nodes in _interfaces(graph):
        if len(names) > len(nodes):
            raise VerifyError(f"graph {graph.name!r} has {len(names)} {what} names for {len(nodes)} {what}s")


def _interfaces(graph: Graph) -> list[tuple[str, Sequence[str], Sequence[Node]]]:
    return [("input", graph.input_names, graph.inputs), ("output", graph.output_names, graph.outputs)]


def _verify_type(node: Node) -> None:
    try:
        inferred = node.op.infer([n.type for n in node.inputs], node.attrs)
    except (ValueError, TypeError) as error:
        raise _wrong(node, f"is ill-typed: {error}") from error
    if inferred != node.type:
        raise _wrong(node, f"has type {node.type}, but its op infers {inferred}")
    if make(node.op, node.inputs, node.attrs) is not node:
        raise _wrong(node, "is not interned: it was not built by make()")


def _wrong(node: Node, message: str) -> VerifyError:
    site = site_of(node)
    return VerifyError(f"{node.op.name} node of type {node.type}{f' ({site})' if site else ''} {message}")
