"""The engine: `backward` and `grad` of recorded computations.

The work is done on nodes by `graphc.autodiff`. This file finds the leaves, cuts the graph where
user code takes part in the backward pass, keeps PyTorch's rules about freed history, and
accumulates into `.grad`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from graphc import ops
from graphc.autodiff import gradients
from graphc.autograd import anomaly
from graphc.frontend import hooks
from graphc.frontend.cell import Cell
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import let_go
from graphc.frontend.evaluation.relatives import relate, relate_pass
from graphc.frontend.functions.joining import stack
from graphc.frontend.functions.methods import attach
from graphc.frontend.history import (
    AccumulateGrad,
    CompiledGrad,
    CutGrad,
    GradFn,
    LeafHooks,
    free,
    walk,
)
from graphc.frontend.hooks import HookTable, RemovableHandle
from graphc.frontend.modes import MODE, no_grad, settle
from graphc.frontend.steps import adopted, foreseen
from graphc.frontend.tensor import (
    Tensor,
    add_hook,
    from_node,
    gradient_fn,
    inplace,
    operand,
    register,
    variable,
    wrap_cell,
)
from graphc.frontend.tracing import deferred
from graphc.ir.node import Node

Seeds = dict[Node, Node]


def _seed(tensor: Tensor, gradient: Tensor | None) -> Tensor:
    """The cotangent of an output, checked."""
    kind = tensor._cell.node.type
    if gradient is None:
        if kind.size != 1:
            raise fail(
                RuntimeError,
                "grad can be implicitly created only for scalar outputs: backward() was called on "
                f"{describe(tensor)}; reduce it first (.sum(), .mean()) or pass gradient=",
            )
        return from_node(ops.ones(kind))
    if not isinstance(gradient, Tensor):
        raise fail(TypeError, f"gradients can be either Tensors or None, but got {type(gradient).__name__}")
    if tuple(gradient.shape) != kind.shape:
        raise fail(
            RuntimeError,
            f"Mismatch in shape: grad_output[0] has a shape of {gradient.shape} and output[0] has a shape of "
            f"{tensor.shape}.",
        )
    return gradient if gradient.dtype is kind.dtype else gradient.to(kind.dtype)


def _add(into: Seeds, node: Node, ct: Node) -> None:
    known = into.get(node)
    into[node] = ct if known is None else ops.add(known, ct)


class _Sweep:
    """One backward pass: cotangents flow from `seeds` to the wanted nodes, stage by stage.

    A stage is a stretch of pure graph. Between stages stand cuts: Functions with a backward of
    their own, and values whose hooks may change the gradient. With `create_graph` the gradients that these
    are shown have history, which starts from `sources`: a second derivative flows through them too.
    """

    def __init__(
        self,
        functions: Sequence[GradFn],
        wanted: Sequence[Node],
        create_graph: bool,
        sources: Sequence[GradFn],
    ) -> None:
        self.wanted = list(dict.fromkeys(wanted))
        self.cuts = [fn for fn in functions if isinstance(fn, CutGrad)]
        self.hooked = [
            fn for fn in functions if fn.hooks and fn.node is not None and not isinstance(fn, AccumulateGrad)
        ]
        self.create_graph = create_graph
        self.found: Seeds = {}
        self.histories: list[GradFn] = list(sources)

    def run(self, seeds: Seeds) -> Seeds:
        """Cotangents of the wanted nodes."""
        stops: list[GradFn] = sorted({*self.cuts, *self.hooked}, key=lambda fn: fn.order, reverse=True)
        if not stops:
            self._stage(seeds, [])
            return self.found
        points = [n for fn in self.cuts for n in fn.outputs] + [fn.node for fn in self.hooked if fn.node]
        self._stage(seeds, points)
        for fn in stops:
            if isinstance(fn, CutGrad):
                self._cut(fn, points)
            if fn.hooks and fn.node is not None:
                self._hook(fn, points)
        return self.found

    def _stage(self, seeds: Seeds, points: list[Node]) -> None:
        if not seeds:
            return
        targets = list(dict.fromkeys([*self.wanted, *points]))
        found = gradients(list(seeds), list(seeds.values()), targets)
        for node, ct in zip(targets, found, strict=True):
            if ct is not None:
                _add(self.found, node, ct)

    def _tensor(self, node: Node) -> Tensor:
        return _result(node, self.create_graph, self.histories)

    def _cut(self, fn: CutGrad, points: list[Node]) -> None:
        cts = [self.found.get(n) for n in fn.outputs]
        if all(ct is None for ct in cts):
            return
        results = fn.run([None if ct is None else self._tensor(ct) for ct in cts])
        seeds: Seeds = {}
        for (node, source), ct in zip(fn.inputs, results, strict=True):
            if ct is not None and source is not None:
                if ct._cell.fn is not None:
                    self.histories.append(ct._cell.fn)
                _add(seeds, node, operand(ct, self.create_graph))
        self._stage(seeds, points)

    def _hook(self, fn: GradFn, points: list[Node]) -> None:
        """Show the gradient of a value to its hooks; what they change flows on as a correction."""
        assert fn.node is not None
        assert fn.hooks is not None
        before = self.found.get(fn.node)
        if before is None:
            return
        after = _call_hooks(fn.hooks, self._tensor(before))
        node = operand(after, self.create_graph)
        if node is before:
            return
        self.found[fn.node] = node
        self._stage_correction(fn.node, before, node, points)

    def _stage_correction(self, node: Node, before: Node, after: Node, points: list[Node]) -> None:
        others = [p for p in points if p is not node]
        targets = [t for t in dict.fromkeys([*self.wanted, *others]) if t is not node]
        found = gradients([node], [ops.sub(after, before)], targets)
        for target, ct in zip(targets, found, strict=True):
            if ct is not None:
                _add(self.found, target, ct)


def _call_hooks(table: HookTable, gradient: Tensor) -> Tensor:
    for hook in list(table.values()):  # (a hook may remove itself)
        changed = hook(gradient)
        if changed is not None:
            gradient = changed
    return gradient


def _prepare(
    outputs: Sequence[Tensor], gradient: Sequence[Tensor | None]
) -> tuple[Seeds, list[GradFn], list[GradFn]]:
    """Seeds on the outputs' nodes, everything reachable, and the histories of the seeds."""
    seeds: Seeds = {}
    roots: list[GradFn] = []
    histories: list[GradFn] = []
    for i, (out, ct) in enumerate(zip(outputs, gradient, strict=True)):
        node = operand(out, True) if out.requires_grad else None
        fn = gradient_fn(out)
        if node is None or fn is None:
            raise fail(
                RuntimeError,
                f"element {i} of tensors does not require grad and does not have a grad_fn ({describe(out)})",
            )
        seed = _seed(out, ct)
        if seed.requires_grad:
            found = gradient_fn(seed)
            if found is not None:
                histories.append(found)
        _add(seeds, node, operand(seed, True))
        roots.append(fn)
    functions = walk(roots)
    for fn in functions:
        if isinstance(fn, CompiledGrad) and fn.backend is not None and MODE.trace is None:
            MODE.backend = fn.backend
    if any(fn.freed for fn in functions):
        raise fail(
            RuntimeError,
            "Trying to backward through the graph a second time (or directly access saved tensors after "
            "they have "
            "already been freed). Saved intermediate values of the graph are freed when you call "
            ".backward() or "
            "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second "
            "time or if "
            "you need to access saved tensors after calling backward.",
        )
    return seeds, functions, [*roots, *histories]


def _result(node: Node, create_graph: bool, histories: Sequence[GradFn]) -> Tensor:
    """A gradient as a tensor: with history if it may be differentiated again."""
    if create_graph:
        out = wrap_cell(Cell(node, GradFn("GradBackward0", tuple(histories))))
        register(out)
        return out
    return from_node(node, True)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of `tensors` to `.grad` of the leaves they depend on (or of `inputs` only).

    RuntimeError for outputs without history, non-scalar outputs without `grad_tensors`, and
    history already freed by an earlier pass without `retain_graph`.
    """
    outputs = _sequence(tensors)
    given = [None] * len(outputs) if grad_tensors is None else list(_sequence(grad_tensors))
    seeds, functions, histories = _prepare(outputs, given)
    leaves = [fn for fn in functions if isinstance(fn, AccumulateGrad)]
    chosen = None if inputs is None else {id(t) for t in _sequence(inputs)}
    if chosen is not None:
        leaves = [fn for fn in leaves if id(fn.variable) in chosen]
    nodes = [fn.node for fn in leaves if fn.node is not None]
    extra = [] if inputs is None else [t for t in _sequence(inputs) if t._cell.fn is not None]
    sweep = _Sweep(functions, [*nodes, *[t._cell.node for t in extra]], create_graph, histories)
    found = _run(sweep, seeds, create_graph)
    for fn in leaves:
        assert fn.node is not None
        ct = found.get(fn.node)
        if ct is None:  # reached, but through functions that are constant almost everywhere
            ct = ops.zeros(fn.node.type)
        _accumulate(fn.variable, _result(ct, create_graph, sweep.histories), create_graph)
    for t in extra:
        ct = found.get(t._cell.node)
        if ct is not None:
            _accumulate(t, _result(ct, create_graph, sweep.histories), create_graph)
    taken = [t.grad for t in (*[fn.variable for fn in leaves], *extra)]
    relate_pass(functions, [*outputs, *[t for t in taken if t is not None]])
    if not (create_graph if retain_graph is None else retain_graph):
        free(functions)
        for t in outputs:
            let_go(t._cell)
    for fn in leaves:
        for hook in list(fn.variable._hooks.after.values()) if fn.variable._hooks else ():
            hook(fn.variable)


def _run(sweep: _Sweep, seeds: Seeds, create_graph: bool) -> Seeds:
    saved, MODE.grad = MODE.grad, create_graph
    try:
        found = sweep.run(seeds)
    finally:
        MODE.grad = saved
    anomaly.check(seeds, found)
    return found


def _accumulate(leaf: Tensor, gradient: Tensor, create_graph: bool) -> None:
    """leaf.grad += gradient, in place if there is a gradient already (as PyTorch does)."""
    if leaf._hooks:
        gradient = _call_hooks(leaf._hooks, gradient)
    old = leaf.grad
    if old is None:
        leaf.grad = gradient
    elif create_graph:
        leaf.grad = old + gradient
    else:
        with no_grad():
            inplace(old, old + gradient)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, which may be leaves or intermediate values.

    With `create_graph` the results can be differentiated again. RuntimeError when an input is not
    part of the graph, unless `allow_unused` (then its gradient is None, or zero with `materialize_grads`).

    is_grads_batched  `grad_outputs` and the results have one more dimension in front: an entry for each of
                      several backward passes
    only_inputs       False changes nothing, as in PyTorch
    """
    if not only_inputs:
        message = "grad(): only_inputs=False has no effect; autograd.backward fills the .grad of all leaves"
        warnings.warn(message, FutureWarning, stacklevel=2)
    outs, wanted = _sequence(outputs), _sequence(inputs)
    given = [None] * len(outs) if grad_outputs is None else list(_sequence(grad_outputs))
    rest = {"allow_unused": allow_unused, "materialize_grads": materialize_grads}
    if is_grads_batched:
        return _grad_of_each(outs, wanted, given, retain_graph, create_graph, rest)
    for t in wanted:
        if not t.requires_grad:
            raise fail(
                RuntimeError, f"One of the differentiated Tensors does not require grad ({describe(t)})"
            )
    seeds, functions, histories = _prepare(outs, given)
    standing = [_standing_for(t, functions) for t in wanted]
    sweep = _Sweep(functions, [node for nodes in standing for node in nodes], create_graph, histories)
    found = _run(sweep, seeds, create_graph)
    results: list[Tensor | None] = []
    for t, (node, *earlier) in zip(wanted, standing, strict=True):
        cts = [ct for n in (node, *earlier) if (ct := found.get(n)) is not None]
        ct = reduce(ops.add, cts) if cts else None
        if ct is None and (earlier or gradient_fn(t) in functions):
            ct = ops.zeros(node.type)
        if ct is not None:
            gradient = _result(ct, create_graph, sweep.histories)
            results.append(_call_hooks(t._hooks, gradient) if t._hooks else gradient)
        elif materialize_grads:
            results.append(from_node(ops.zeros(node.type)))
        elif allow_unused:
            results.append(None)
        else:
            raise fail(
                RuntimeError,
                "One of the differentiated Tensors appears to not have been used in the graph. Set "
                "allow_unused=True "
                f"if this is the desired behavior. ({describe(t)})",
            )
    relate([t for t in results if t is not None])
    if not (create_graph if retain_graph is None else retain_graph):
        free(functions)
    return tuple(results)


def _standing_for(tensor: Tensor, functions: Sequence[GradFn]) -> list[Node]:
    """The nodes that stand for a tensor in a history: one for the value that it has now and, for a leaf that
    was changed in place or shown to NumPy since it was used, those of its earlier uses."""
    if not tensor._requires:
        return [operand(tensor, True)]
    ends = [fn for fn in functions if isinstance(fn, AccumulateGrad) and fn.variable is tensor]
    return list(dict.fromkeys([variable(tensor), *[fn.node for fn in ends if fn.node is not None]]))


def _grad_of_each(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    batches: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
    rest: dict[str, bool | None],
) -> tuple[Tensor | None, ...]:
    """`grad` for each entry of the batched cotangents, stacked."""
    sizes = {len(b) for b in batches if b is not None}
    if len(sizes) != 1:
        raise fail(
            ValueError, f"grad(): is_grads_batched needs grad_outputs of one batch size, got {sorted(sizes)}"
        )
    count = sizes.pop()
    keep = create_graph if retain_graph is None else retain_graph
    passes = [
        grad(
            outputs,
            inputs,
            [None if b is None else b[i] for b in batches],
            retain_graph=keep or i + 1 < count,
            create_graph=create_graph,
            **rest,  # type: ignore[arg-type]
        )
        for i in range(count)
    ]
    return tuple(None if found[0] is None else stack(found) for found in zip(*passes, strict=True))


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


# -------------------------------------------------------------------- on Tensor


def _backward_method(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of this tensor to `.grad` of the leaves it depends on."""
    plain = gradient is None and retain_graph is None and not create_graph and inputs is None
    plain = plain and not anomaly.is_anomaly_enabled()  # (whose gradients are looked at now)
    if plain and MODE.events is not None and deferred.backward(self, backward):
        return
    if plain and foreseen.backward(self):
        return
    found = adopted.pending_pass(self) if plain else None
    if found is not None:
        if adopted.note(found):
            if deferred.backward(self, backward):
                return
        elif foreseen.add(found):
            return
    backward(self, gradient, retain_graph, create_graph, inputs)


def _register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(gradient)` whenever this tensor's gradient is computed; it may return another one."""
    if not self.requires_grad:
        raise fail(RuntimeError, "cannot register a hook on a tensor that doesn't require gradient")
    fn = self._cell.fn
    if fn is None:
        return hooks.add(_leaf_hooks(self), hook)
    return add_hook(fn, operand(self, True), hook)


def _register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `hook(tensor)` after each backward pass that adds to `.grad` of this leaf, when all gradients of
    the pass are there: an optimizer may step, or the gradient be dropped. RuntimeError for no leaf."""
    if not self.requires_grad:
        raise fail(RuntimeError, "cannot register a hook on a tensor that doesn't require gradient")
    if not self.is_leaf:
        raise fail(RuntimeError, "post accumulate grad hooks cannot be registered on non-leaf tensors")
    return hooks.add(_leaf_hooks(self).after, hook)


def _leaf_hooks(leaf: Tensor) -> LeafHooks:
    """The hooks of a leaf, to be added to."""
    settle()
    if leaf._hooks is None:
        leaf._hooks = LeafHooks()
    return leaf._hooks


foreseen.differentiate_by(backward)
attach(
    backward=_backward_method,
    register_hook=_register_hook,
    register_post_accumulate_grad_hook=_register_post_accumulate_grad_hook,
)
