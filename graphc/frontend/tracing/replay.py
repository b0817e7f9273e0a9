"""Calls of a compiled function whose result is still to be differentiated: its graph, built again.

The nodes recorded by the trace are rebuilt on the present leaves, without running the Python
function. The results are lazy tensors with history; the program is compiled (or found) when they
are read, together with backward and update if these come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.frontend import tree
from graphc.frontend.cell import Cell, fresh_input, leaf_node, root
from graphc.frontend.history import CompiledGrad, GradFn
from graphc.frontend.modes import MODE, no_grad
from graphc.frontend.tensor import (
    Tensor,
    from_node,
    gradient_fn,
    needs_grad,
    operand,
    rebind,
    register,
    variable,
    wrap_cell,
    write,
)
from graphc.frontend.tracing.record import Inputs, Output, Record, graph_of
from graphc.ir.node import Node, make, no_sites, set_site, site_of


class Replay:
    """A recorded function as nodes to build again.

    types, differentiable, aliases, labels   of the results that are computed, in order
    likes                  input nodes of their types
    grad_leaves            leaves from outside whose gradient a backward pass through a result computes
    can_wait               whether a call may be put off (`graphc.frontend.tracing.deferred`)
    sources                the cells outside that it reads; for `checked` see `deferred`
    backend                the one that the function was compiled for; None: the one that is set
    """

    def __init__(self, record: Record, inputs: Inputs, backend: str | None) -> None:
        trace = record.trace
        self.inputs, self.backend = inputs, backend
        self.outputs = record.outputs
        self.draws = [(g, count) for g, (_, count) in trace.keys.items()]
        self.takes_extras = bool(inputs.keys or inputs.scalars or inputs.dynamics or self.draws)
        late = _late(record, inputs)
        own = {n: i for n, i in record.argument_variables.items() if n not in late}
        self.leaves = [
            (n, t) for n, t in trace.variables.items() if n not in record.argument_variables and n not in late
        ]
        self.argument_leaves = list(own.items())
        self.writes = [captured.tensor for captured, _ in record.writes]
        self.argument_writes = list(record.argument_writes)
        targets: list[Node] = list(late.values())  # first, so that they are built before what reads `late`
        targets += [o.node for o in record.outputs if o.node is not None]
        self.n_values = len(targets) - len(late)
        targets += [node for _, node in record.writes]
        targets += [record.argument_writes[i] for i in self.argument_writes]
        given = [*inputs.nodes, *[n for n, _ in self.leaves], *[n for n, _ in self.argument_leaves], *late]
        names = [*inputs.names, *[f"leaf{i}" for i in range(len(given) - len(inputs.nodes))]]
        self.graph = graph_of(targets, given, names, trace.name, barriers=True)
        index = self.graph.index
        self.steps = [(n.op, tuple([index[i] for i in n.inputs]), n.attrs, n) for n in self.graph.nodes]
        self.input_at = [index.get(n, -1) for n in self.graph.inputs]
        self.target_at = [index[n] for n in self.graph.outputs[len(late) :]]
        # A leaf that is used after it was changed: (its node's place, the new value's place, whose leaf).
        places = zip(self.input_at[len(given) - len(late) :], self.graph.outputs, late, strict=False)
        owners = {n: record.argument_variables.get(n, t) for n, t in trace.variables.items()}
        self.late = {at: (index[value], owners[n]) for at, value, n in places if at >= 0}
        del self.input_at[len(given) - len(late) :]
        values = [o for o in record.outputs if o.node is not None]
        self.types = [o.node.type for o in values if o.node is not None]
        self.likes = [fresh_input(kind) for kind in self.types]
        self.differentiable = [o.differentiable for o in values]
        self.aliases = [o.alias for o in values]
        self.labels = [o.label for o in values]
        self.single = len(values) == len(record.outputs) == 1 and isinstance(record.result, Tensor)
        self.grad_leaves = [t for _, t in self.leaves]
        self.joints: dict[Any, list[Any]] = {}  # programs of steps that begin with a call of this function
        self.can_wait = not (late or self.argument_writes or inputs.grads)
        self.sources = frozenset([root(captured.tensor._cell) for captured in inputs.captured])
        self.checked = -1

    def call(self, leaves: Sequence[Any], result: Any) -> Any:
        """Build the graph on argument leaves and present state; `result` with what is computed."""
        nodes, fn = self.build(leaves, [leaf_node(array) for array in self.extras(leaves)])
        return self._results(leaves, nodes, result, fn)

    def extras(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        """The keys and numbers that a call reads; its random draws count as done."""
        if not self.takes_extras:
            return []
        inputs = self.inputs
        arrays = [g.key() for g in inputs.keys]
        for generator, count in self.draws:
            generator.offset += count
        arrays += [np.array(leaves[i]) for i in inputs.scalars]
        arrays += [np.array(getter(), np.float64) for getter in inputs.dynamics]
        return arrays

    def build(self, leaves: Sequence[Any], extras: Sequence[Node]) -> tuple[list[Node], GradFn]:
        """The nodes of what is computed, and their history. State that the function changes is changed.

        `extras` are nodes for the arrays of `extras(leaves)`.
        """
        present, fns = self._present(leaves, extras)
        nodes: list[Node] = [None] * len(self.steps)  # type: ignore[list-item]
        for at, node in zip(self.input_at, present, strict=True):
            if at >= 0:
                nodes[at] = node
        with no_sites():
            for at, (op, operands, attrs, original) in enumerate(self.steps):
                if at in self.late:
                    value, owner = self.late[at]
                    leaf = leaves[owner] if isinstance(owner, int) else owner
                    nodes[at], accumulate = _changed(leaf, nodes[value])
                    fns.append(accumulate)
                elif nodes[at] is None and not operands:
                    nodes[at] = original
                elif nodes[at] is None:
                    nodes[at] = fresh = make(op, [nodes[i] for i in operands], attrs)
                    set_site(fresh, site_of(original))
        targets = [nodes[at] for at in self.target_at]
        self._write(leaves, targets)
        if self.backend is not None and MODE.trace is None:
            MODE.want(self.backend, targets)
        return targets[: self.n_values], CompiledGrad(tuple(fns), self.backend)

    def _present(self, leaves: Sequence[Any], extras: Sequence[Node]) -> tuple[list[Node], list[GradFn]]:
        """What the inputs are now, and where gradients go."""
        inputs = self.inputs
        present = [operand(leaves[i], True) for i in inputs.arguments]
        with no_grad():  # a trace refuses outside values that it would have to follow
            present += [operand(c.tensor.detach(), False) for c in inputs.captured]
        for t in inputs.grads:
            gradient = t.grad
            assert gradient is not None
            present.append(operand(gradient, False))
        present += extras
        present += [variable(t) for _, t in self.leaves]
        present += [operand(leaves[i], True) for _, i in self.argument_leaves]
        sources = [t for _, t in self.leaves] + [leaves[i] for i in inputs.arguments]
        fns = {fn: None for t in sources if needs_grad(t) and (fn := gradient_fn(t)) is not None}
        return present, list(fns)

    def _write(self, leaves: Sequence[Any], targets: Sequence[Node]) -> None:
        changed = targets[self.n_values :]
        owners = [*self.writes, *[leaves[i] for i in self.argument_writes]]
        for tensor, node in zip(owners, changed, strict=True):
            if tensor._cell.node is not node:
                write(tensor._cell)
                rebind(tensor._cell, node, None, True)
                register(tensor)

    def _results(self, leaves: Sequence[Any], targets: Sequence[Node], result: Any, fn: GradFn) -> Any:
        outputs, found = iter(self.outputs), iter(targets)

        def make_output(_: Any) -> Any:
            output: Output = next(outputs)
            if output.kind == "argument":
                return leaves[output.keep]
            if output.kind != "value":
                return output.keep
            node = next(found)
            if not output.differentiable:
                return from_node(node, True)
            tensor: Tensor = wrap_cell(Cell(node, fn))
            register(tensor)
            return tensor

        return tree.rebuild(result, make_output)


def _late(record: Record, inputs: Inputs) -> dict[Node, Node]:
    """The variables of leaves that had been changed in place when they were used, and what they held then."""
    given = {*inputs.nodes, *record.arguments.values()}
    return {n: n.bound for n in record.trace.variables if isinstance(n.bound, Node) and n.bound not in given}


def _changed(leaf: Tensor, value: Node) -> tuple[Node, GradFn]:
    """Change a leaf in place, where the function did; its variable from then on, and where gradients go."""
    rebind(leaf._cell, value, None, True)
    register(leaf)
    with no_grad():  # no round ends here: nobody knows yet of the results that read the leaf's old value
        accumulate = gradient_fn(leaf)
        assert accumulate is not None
        return variable(leaf), accumulate
