"""The pullback of a loop: another loop, that runs the other way.

The results of a loop are differentiated together. The reverse loop carries the cotangents of the carries; it
reads those of the emits, and values of the forward loop: what is dear to compute was saved by the forward
loop (as further results of it), what is cheap is computed again. The cotangent of a constant is a sum over
the steps: where it is a contraction or a sum of what each step has, the steps' operands are stacked and ONE
contraction over all steps is done after the loop (`totals.py`); what is left is added up in carries.

A pullback depends on the loop alone, not on what it is applied to; it is made once, as a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from graphc.autodiff.active import differentiable_from
from graphc.autodiff.residuals import choose
from graphc.autodiff.totals import Totals
from graphc.ir.graph import depending, rebuild, substitute, toposort
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.ops.arithmetic import add
from graphc.ops.constant import input_
from graphc.ops.scan import Loop, scan, stack_of
from graphc.ops.spread import zeros

Gradients = Callable[[Sequence[Node], Sequence[Node], Sequence[Node]], list[Node | None]]
Result = tuple[Node | None, int | None]  # a result of a loop: its emit, or the number of its carry


def pull(
    results: Sequence[Node], cts: Sequence[Node], wanted: tuple[int, ...], gradients: Gradients
) -> list[Node | None]:
    """Cotangents of the loop inputs at positions `wanted`, for cotangents of some results of the loop.

    `gradients` differentiates a body; None stands for an input without a differentiable path.
    """
    loop, inputs = results[0].attrs.loop, results[0].inputs
    kinds = tuple([(node.attrs.emit, node.attrs.final) for node in results])
    made = _pullback(loop, kinds, wanted, gradients)
    given = dict(zip((*made.inputs, *made.cts), (*inputs, *cts), strict=True))
    new = substitute(made.order, lambda node, ins: given[node] if node in given else rebuild(node, ins))
    return [None if node is None else new[node] for node in made.outputs]


@dataclass(frozen=True)
class _Pullback:
    """A graph from a loop's inputs and its results' cotangents to its inputs' cotangents."""

    inputs: tuple[Node, ...]
    cts: tuple[Node, ...]
    outputs: tuple[Node | None, ...]
    order: tuple[Node, ...]


@lru_cache(256)
def _pullback(
    loop: Loop, results: tuple[Result, ...], wanted: tuple[int, ...], gradients: Gradients
) -> _Pullback:
    step = _Step(loop, results, {loop.params[i] for i in wanted}, gradients)
    n = len(loop.carries) + len(loop.xs)
    inputs = (*[input_(f"in{i}", t) for i, t in enumerate(loop.input_types()[:n])], *loop.consts)
    cts = tuple([input_(f"ct{i}", _result_type(loop, result)) for i, result in enumerate(results)])
    found = _Reverse(loop, results, step, inputs, cts).cotangents()
    outputs = tuple([found.get(loop.params[i]) for i in wanted])
    order = toposort([node for node in outputs if node is not None])
    return _Pullback(inputs, cts, outputs, tuple(order))


def _result_type(loop: Loop, result: Result) -> TensorType:
    emit, final = result
    if emit is None:
        assert final is not None
        return loop.carries[final].type
    return TensorType((loop.length, *emit.type.shape), emit.type.dtype)


class _Step:
    """The pullback of one step of a loop, as nodes over the body's parameters and cotangents.

    carried  numbers of the carries that have a cotangent, and `dcarries` its placeholder
    demits   the placeholders of the emits' cotangents, by result
    grads    cotangents of the parameters that are wanted or carried
    """

    def __init__(
        self, loop: Loop, results: Sequence[Result], wanted: set[Node], gradients: Gradients
    ) -> None:
        emits = {r: emit for r, (emit, _) in enumerate(results) if emit is not None}
        finals = {final for _, final in results if final is not None}
        active = _active_carries(loop, list(emits.values()), wanted)
        self.demits = {r: input_(f"demit{r}", emit.type) for r, emit in emits.items()}
        wrt = [loop.carries[i] for i in sorted(active)]
        wrt += [p for p in (*loop.xs, *loop.consts) if p in wanted]
        carried = finals & active
        while True:
            self.carried = sorted(carried)
            self.dcarries = {i: input_(f"dcarry{i}", loop.carries[i].type) for i in self.carried}
            outputs = [*[loop.nexts[i] for i in self.carried], *emits.values()]
            found = gradients(outputs, [*self.dcarries.values(), *self.demits.values()], wrt)
            self.grads = {p: g for p, g in zip(wrt, found, strict=True) if g is not None}
            reached = {i for i in active if loop.carries[i] in self.grads}
            if reached <= carried:
                return
            carried |= reached


def _active_carries(loop: Loop, emits: Sequence[Node], wanted: set[Node]) -> set[int]:
    """Numbers of the carries that depend, in some step, on a wanted parameter."""
    order = toposort((*loop.nexts, *emits))
    active = {i for i, carry in enumerate(loop.carries) if carry in wanted}
    while True:
        nodes = differentiable_from(order, wanted | {loop.carries[i] for i in active})
        more = {i for i, after in enumerate(loop.nexts) if after in nodes} - active
        if not more:
            return active
        active |= more


class _Reverse:
    """The reverse loop of a step's pullback, and the cotangents that come out of it."""

    def __init__(
        self, loop: Loop, results: Sequence[Result], step: _Step, inputs: Sequence[Node], cts: Sequence[Node]
    ) -> None:
        self.loop, self.step, self.inputs, self.cts = loop, step, inputs, cts
        self.last = {final: ct for (_, final), ct in zip(results, cts, strict=True) if final is not None}
        self.xs = {x: step.grads[x] for x in loop.xs if x in step.grads}
        consts = {c: step.grads[c] for c in loop.consts if c in step.grads}
        before = {i: step.grads.get(loop.carries[i]) for i in step.carried}
        self.nexts = {i: zeros(loop.carries[i].type) if g is None else g for i, g in before.items()}
        everything = toposort((*self.nexts.values(), *self.xs.values(), *consts.values()))
        late = {*step.dcarries.values(), *step.demits.values()}
        self.late = depending(everything, late)
        self.varying = depending(everything, {*late, *loop.carries, *loop.xs})
        self.totals = Totals(consts, self.varying, loop)

    def cotangents(self) -> dict[Node, Node]:
        """By parameter of the body: the cotangent of the loop's input."""
        loop, step, totals = self.loop, self.step, self.totals
        stacked = [node for node in totals.stacked if node in self.late]
        sums = {node: input_(f"sum{i}", node.type) for i, node in enumerate(totals.summed)}
        roots = [*self.nexts.values(), *totals.summed, *self.xs.values(), *stacked]
        saved = choose(roots, self.late, self.varying, loop)
        held = {node: input_(f"saved{i}", node.type) for i, node in enumerate(saved)}
        new = substitute(
            toposort(roots), lambda node, ins: held[node] if node in held else rebuild(node, ins)
        )
        made = scan(
            carries=[*step.dcarries.values(), *sums.values()],
            xs=[*step.demits.values(), *held.values(), *loop.xs],
            nexts=[
                *[new[node] for node in self.nexts.values()],
                *[add(sums[node], new[node]) for node in totals.summed],
            ],
            emits=[*[new[node] for node in self.xs.values()], *[new[node] for node in stacked]],
            init=[*self._last_carries(), *[zeros(node.type) for node in totals.summed]],
            stacks=[
                *[self.cts[r] for r in step.demits],
                *[self._forward(node) for node in saved],
                *self.inputs[len(loop.carries) : len(loop.carries) + len(loop.xs)],
            ],
            length=loop.length,
            reverse=not loop.reverse,
        )
        n, m = len(step.carried), len(self.xs)
        first = zip([loop.carries[i] for i in step.carried], made.finals[:n], strict=True)
        found = {carry: node for carry, node in first if carry in step.grads}
        found.update(zip(self.xs, made.stacked[:m], strict=True))
        stacks = dict(zip(stacked, made.stacked[m:], strict=True))
        stacks.update({node: self._forward(node) for node in totals.stacked if node not in self.late})
        found.update(totals.finish(stacks, dict(zip(totals.summed, made.finals[n:], strict=True))))
        return found

    def _last_carries(self) -> list[Node]:
        """Cotangents of the carries after the last step."""
        return [self.last.get(i) or zeros(self.loop.carries[i].type) for i in self.step.carried]

    def _forward(self, node: Node) -> Node:
        """The values that a node of the body had in all steps of the forward loop."""
        return stack_of(self.loop, self.inputs, node)
