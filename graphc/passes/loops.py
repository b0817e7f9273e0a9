"""The bodies of loops, made small: simplified, without what nobody needs, without work that can go outside.

Needs: any graph of which autodiff is done. Leaves: an equal graph. The results of a loop stay siblings.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from graphc.ir.graph import Graph, rebuild, rewrite
from graphc.ir.node import Kind, Node
from graphc.ops.constant import input_
from graphc.ops.scan import Key, Loop, Scanned, key_of, replaced, scan, siblings
from graphc.passes import fold, simplify


def run(graph: Graph) -> Graph:
    """Improve every loop of a graph, from the inside out."""
    groups = siblings(graph.nodes)
    if not groups:
        return graph
    done: dict[Key, dict[Node, Node]] = {}

    def improve(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.kind is not Kind.SCAN:
            return rebuild(node, inputs)
        key = key_of(node)
        if key not in done:
            done[key] = _improved(groups[key], inputs)
        return done[key][node]

    return rewrite(graph, improve)


def _improved(results: Sequence[Node], inputs: tuple[Node, ...]) -> dict[Node, Node]:
    """What stands for each result of a loop whose inputs are now `inputs`."""
    loop: Loop = results[0].attrs.loop
    emits = list(dict.fromkeys(node.attrs.emit for node in results if node.attrs.emit is not None))
    # Parameters of their own: a value from outside may be a parameter of the loop around this one.
    carries = [input_(f"inner.carry{i}", c.type) for i, c in enumerate(loop.carries)]
    xs = [input_(f"inner.x{i}", x.type) for i, x in enumerate(loop.xs)]
    outputs = _simplified(loop, emits, carries, xs, inputs)
    n = len(carries)
    nexts, values = outputs[:n], outputs[n:]
    wanted = {node.attrs.final for node in results if node.attrs.final is not None}
    live = _live(carries, nexts, [*values, *[nexts[i] for i in wanted]], wanted)
    made: Scanned = scan(
        carries=[carries[i] for i in live],
        xs=xs,
        nexts=[nexts[i] for i in live],
        emits=values,
        init=[inputs[i] for i in live],
        stacks=inputs[n : n + len(loop.xs)],
        length=loop.length,
        reverse=loop.reverse,
    )
    finals = dict(zip(live, made.finals, strict=True))
    stacks = dict(zip(emits, made.stacked, strict=True))
    return {
        node: finals[node.attrs.final] if node.attrs.emit is None else stacks[node.attrs.emit]
        for node in results
    }


def _simplified(
    loop: Loop, emits: Sequence[Node], carries: Sequence[Node], xs: Sequence[Node], inputs: Sequence[Node]
) -> list[Node]:
    """The nexts and emits of a loop over placeholders `carries` and `xs`, and values from outside.

    What is the same in every step needs no parameter: constants, carries that never change, an x twice.
    """
    body = simplify.run(fold.run(run(simplify.run(loop.body(emits)))))
    n, m = len(carries), len(carries) + len(xs)
    by = dict(zip(loop.params, (*carries, *xs, *inputs[m:]), strict=True))
    by.update((c, inputs[i]) for i, c in enumerate(loop.carries) if body.outputs[i] is c)
    first: dict[Node, Node] = {}
    for param, x, stack in zip(loop.xs, xs, inputs[n:m], strict=True):
        by[param] = first.setdefault(stack, x)
    new = replaced((*body.inputs, *body.nodes), by)
    return [new[node] for node in body.outputs]


def _live(
    carries: Sequence[Node], nexts: Sequence[Node], roots: Sequence[Node], finals: Set[int]
) -> list[int]:
    """Numbers of the carries that `finals` name or `roots` depend on, in this step or a later one."""
    number = {carry: i for i, carry in enumerate(carries)}
    live = set(finals)
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in number and number[node] not in live:
            live.add(number[node])
            stack.append(nexts[number[node]])
        stack.extend(node.inputs)
    return sorted(live)
