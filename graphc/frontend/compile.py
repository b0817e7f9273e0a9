"""`graphc.compile`: one trace per input signature, one native call per use.

A call gathers arrays (arguments, state, random keys, numbers), runs the program, and wraps what
is new. State that the function changes is donated: the program writes over its buffers. If the
result can still be differentiated outside, the traced graph is replayed lazily instead, so that
forward, backward and update become one program when the optimizer steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from graphc.frontend import deferred, lazy, tree
from graphc.frontend.cell import Cell, Sharing, fresh_input, leaf_node
from graphc.frontend.compiler import check_backend, compile_graph
from graphc.frontend.errors import fail
from graphc.frontend.modes import MODE, settle
from graphc.frontend.record import (
    GradOutput,
    Inputs,
    NeedStatic,
    Output,
    Record,
    graph_of,
    inputs_of,
    module_names,
    record_call,
)
from graphc.frontend.replay import Replay
from graphc.frontend.tensor import Tensor, from_array, wrap_cell
from graphc.frontend.trace import Members, members
from graphc.ir.node import Node

log = logging.getLogger("graphc")
log.addHandler(logging.NullHandler())


class Stale(Exception):
    """Captured state has got another shape or dtype: the program does not fit any more."""


class Variant:
    """A function compiled for one signature."""

    def __init__(self, record: Record, backend: str) -> None:
        trace = record.trace
        self.mode = MODE.grad
        self.specs: list[tuple[Any, Any]] | None = None
        self.inputs: Inputs = inputs_of(record, module_names(record))
        self.result, self.outputs = record.result, record.outputs
        self.guards = list(trace.guards)
        self.modules = [(m, mode) for m, (mode, _) in trace.modules.items()]
        self.members = [(m, found) for m, (_, found) in trace.modules.items()]
        self.edits = Members.edits
        requires = {id(s.tensor): (s.tensor, s.requires) for s in trace.handles.values()}
        for captured in self.inputs.captured:  # also those that have been read as constants
            requires.setdefault(id(captured.tensor), (captured.tensor, captured.tensor._requires))
        self.leaves = [tensor for tensor, _ in requires.values()]
        self.requires = [flag for _, flag in requires.values()]
        self.with_grad = [g.tensor for g in trace.grads.values()]
        self.without_grad = list(trace.no_grads)
        self.draws = [(g, count) for g, (_, count) in trace.keys.items()]
        self.replay: Replay | None = None
        self.program: Any = None
        if record.differentiable:
            self.replay = Replay(record, self.inputs)
            return
        self._plan(record)
        graph = graph_of(self.targets, self.inputs.nodes, self.inputs.names, trace.name)
        first = len(self.inputs.arguments)
        state = range(first, first + len(self.cells))
        # A function that changes nothing is used many times with the same parameters: what follows from them
        # alone (packed weights) is kept until one of them changes.
        fixed = frozenset() if self.written else frozenset(state)
        self.program = compile_graph(graph, self.donate, backend, fixed)
        self.program.keep(state)
        self.prepared: tuple[list[Node], list[int]] | None = None
        self.graph = graph

    def _plan(self, record: Record) -> None:
        """Order the program's outputs: values, then changed state, arguments and gradients."""
        position = {n: i for i, n in enumerate(self.inputs.nodes)}
        values = [o for o in record.outputs if o.kind == "value"]
        self.targets: list[Node] = [o.node for o in values if o.node is not None]
        self.donate: dict[int, int] = {}
        self.written: list[Cell] = []
        for captured, node in record.writes:
            self.donate[len(self.targets)] = position[captured.node]
            self.targets.append(node)
            self.written.append(captured.tensor._cell)
        self.argument_writes = []
        for i, node in record.argument_writes.items():
            self.argument_writes.append((i, len(self.targets)))
            self.targets.append(node)
        self.grads: list[tuple[GradOutput, int]] = []
        for grad in record.grads:
            at = -1
            if grad.node is not None:
                at = len(self.targets)
                if grad.replaces is not None:
                    self.donate[at] = position[grad.replaces]
                self.targets.append(grad.node)
            self.grads.append((grad, at))
        self.cells = [c.tensor._cell for c in self.inputs.captured]
        self.views = [c.tensor for c in self.inputs.captured if c.tensor._cell.view is not None]
        self.nodes: list[Node] = []
        self.counts: list[int] = []
        self.sharing = -1
        self.types = [n.type for n in self.inputs.nodes]
        first = len(self.inputs.arguments)
        self.state_types = self.types[first : first + len(self.cells)]
        written = set(self.written)
        self.written_at = [i for i, c in enumerate(self.cells) if c in written]

    # ---------------------------------------------------------------- validity

    def takes(self, args: Sequence[Any]) -> bool:
        """Whether flat positional arguments have this variant's signature: the quick test."""
        specs = self.specs
        if specs is None or len(args) != len(specs) or MODE.grad is not self.mode:
            return False
        for arg, (kind, detail) in zip(args, specs, strict=True):
            if kind is Tensor:
                if not isinstance(arg, Tensor):
                    return False
                found, requires = deferred.kind_of(arg)
                if (found is not detail[0] and found != detail[0]) or requires is not detail[1]:
                    return False
            elif type(arg) is not kind or (detail is not None and arg != detail[0]):
                return False
        return True

    def holds(self) -> bool:
        """Whether what the trace assumed about the outside is still so."""
        for module, mode in self.modules:
            if module.training is not mode:
                return False
        if Members.edits != self.edits:
            if not all(_same(found, members(m)) for m, found in self.members):
                return False
            self.edits = Members.edits
        if [leaf._requires for leaf in self.leaves] != self.requires:
            return False
        for tensor in self.without_grad:
            if tensor._grad is not None:
                return False
        for tensor in self.with_grad:
            if tensor._grad is None:
                return False
        return all(getter() == found for getter, found in self.guards)

    def why_not(self) -> str:
        """In words, the assumption that does not hold."""
        for module, mode in self.modules:
            if module.training is not mode:
                return f"{type(module).__name__} is now in {'train' if module.training else 'eval'} mode"
        for module, found in self.members:
            if not _same(found, members(module)):
                return f"a parameter, buffer or child of {type(module).__name__} was replaced"
        for tensor, requires in zip(self.leaves, self.requires, strict=True):
            if tensor._requires is not requires:
                return (
                    f"a {tensor.dtype.name}{list(tensor.shape)} leaf has requires_grad={tensor._requires} now"
                )
        if any(t._grad is not None for t in self.without_grad):
            return "a parameter that had no gradient has one now"
        if any(t._grad is None for t in self.with_grad):
            return "a parameter that had a gradient has none now"
        for getter, found in self.guards:
            if getter() != found:
                return f"a setting changed from {found!r} to {getter()!r}"
        return "captured state has another shape or dtype"

    # --------------------------------------------------------------------- calls

    def call(self, leaves: Sequence[Any]) -> Any:
        """Run on argument leaves."""
        if self.replay is not None:
            return deferred.call(self.replay, leaves, self.result)
        if self.donate and MODE.pending:
            lazy.sync()
        elif self.donate or self.argument_writes or self.grads:
            settle()
        values = self._run(self._gather(leaves))
        for generator, count in self.draws:
            generator.offset += count
        for cell in self.written:
            cell.version += 1
        if self.argument_writes or self.grads:
            self._store(leaves, values)
        if len(self.outputs) == 1 and self.outputs[0].kind == "value" and isinstance(self.result, Tensor):
            return _wrap(values[0])
        return self._results(leaves, values)

    def _gather(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        inputs = self.inputs
        arrays: list[np.ndarray] = []
        for i in inputs.arguments:
            cell = leaves[i]._cell
            bound = cell.node.bound
            if cell.view is not None or type(bound) is not np.ndarray:
                bound = lazy.value(leaves[i])
            if cell in self.written:
                bound = bound.copy()  # the state it is will be overwritten
            arrays.append(bound)
        arrays += self.state()
        arrays += [g.key() for g in inputs.keys]
        for i in inputs.scalars:
            arrays.append(np.array(leaves[i]))
        for getter in inputs.dynamics:
            arrays.append(np.array(getter(), np.float64))
        return arrays

    def _run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the program on what it takes, as `_gather` has just found it."""
        if self.written:
            return self.program(arrays)
        now = self.nodes, [cell.version for cell in self.cells]
        values = self.program(arrays, changed=now != self.prepared)
        self.prepared = now
        return values

    def state(self) -> list[np.ndarray]:
        """The arrays of captured state and gradients. Stale if they do not fit any more."""
        nodes = [c.node for c in self.cells]
        known = nodes == self.nodes and Sharing.count == self.sharing and not self.views
        known = known and [c.vars for c in self.written].count(None) == len(self.written)
        if not known or [getrefcount(nodes[i]) for i in self.written_at] != self.counts:
            self._own()
            nodes = [c.node for c in self.cells]
            self.counts = [getrefcount(nodes[i]) for i in self.written_at]
        arrays = [n.bound for n in nodes]
        for tensor in self.inputs.grads:
            arrays.append(_writeable(tensor))
        return arrays

    def _own(self) -> None:
        """Bring captured state up to date, and make sure nobody else reads what will be overwritten."""
        captured = self.inputs.captured
        lazy.realise([c.tensor for c in captured])
        for cell, kind in zip(self.cells, self.state_types, strict=True):
            if cell.node.type != kind:
                raise Stale
        for cell in self.written:
            _unshare(cell)
        self.sharing = Sharing.count
        self.nodes = [c.node for c in self.cells]

    def _store(self, leaves: Sequence[Any], values: Sequence[np.ndarray]) -> None:
        for i, at in self.argument_writes:
            cell = leaves[i]._cell
            cell.node, cell.fn = leaf_node(values[at]), None
            cell.version += 1
        for grad, at in self.grads:
            leaf = leaves[grad.leaf] if isinstance(grad.leaf, int) else grad.leaf
            if at < 0:
                leaf._grad = None
            elif isinstance(grad.leaf, int) and leaf.grad is not None:
                leaf._grad = leaf.grad + from_array(values[at])
            elif grad.replaces is not None and leaf.grad is not None:
                leaf.grad._cell.version += 1
            else:
                leaf._grad = from_array(values[at])

    def _results(self, leaves: Sequence[Any], values: Sequence[np.ndarray]) -> Any:
        outputs, found = iter(self.outputs), iter(values)

        def make(_: Any) -> Any:
            output: Output = next(outputs)
            if output.kind == "value":
                return _wrap(next(found))
            return leaves[output.keep] if output.kind == "argument" else output.keep

        return tree.rebuild(self.result, make)


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two lists hold the same objects."""
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _wrap(array: np.ndarray) -> Tensor:
    return wrap_cell(Cell(leaf_node(array)))


def _writeable(leaf: Tensor) -> np.ndarray:
    """The array of a leaf's gradient, for the program to write over."""
    grad = leaf.grad
    assert grad is not None
    lazy.realise([grad])
    _unshare(grad._cell)
    return grad._cell.node.bound


def _unshare(cell: Cell) -> None:
    """Give a cell an input node and an array that nothing else refers to."""
    node = cell.node
    array = node.bound
    refs, cell.vars = cell.vars, None
    held = [n for r in refs or () if (n := r()) is not None and n.bound is array and getrefcount(n) > 2]
    cell.version += 1  # leaves on this cell get a new node when they are next used
    if getrefcount(node) > 3 or not array.flags.writeable or held:
        cell.node = fresh_input(node.type, array.copy())


class Compiled:
    """A compiled function or module. Call it as the original.

    compilations   programs made so far
    native_calls   programs run so far
    explain()      why each program was made
    """

    def __init__(self, function: Callable[..., Any], name: str, backend: str | None) -> None:
        self.__wrapped__ = function
        self.__name__ = name
        self._backend = backend
        self._variants: dict[Any, list[Variant]] = {}
        self._last: tuple[Any, Variant] | None = None
        self._static: frozenset[int] = frozenset()
        self._reasons: list[str] = []
        self.compilations = 0
        self.native_calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if MODE.trace is not None:
            return self.__wrapped__(*args, **kwargs)
        last = self._last
        if last is not None and not kwargs and last[1].takes(args) and last[1].holds():
            return self._run(last[0], last[1], args, args, kwargs)
        leaves = list(args) if not kwargs and _flat(args) else tree.leaves((args, kwargs))
        key = (
            None if not kwargs and _flat(args) else tree.structure((args, kwargs)),
            MODE.grad,
            *self._signature(leaves),
        )
        return self._run(key, self._find(key, args, kwargs, leaves), leaves, args, kwargs)

    def _run(self, key: Any, variant: Variant, leaves: Sequence[Any], args: Any, kwargs: Any) -> Any:
        try:
            found = variant.call(leaves)
        except Stale:
            self._variants.pop(key, None)
            self._last = None
            return self(*args, **kwargs)
        self.native_calls += 1
        lazy.STATS.native_calls += variant.replay is None  # a replay runs, and is counted, later
        return found

    def _signature(self, leaves: Sequence[Any]) -> list[Any]:
        key: list[Any] = []
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                kind, requires = deferred.kind_of(leaf)
                key += (kind.shape, kind.dtype, requires)
            elif type(leaf) is float:
                key.append(leaf if i in self._static else float)
            elif isinstance(leaf, np.ndarray):
                raise fail(
                    TypeError,
                    f"{self.__name__}: argument {i} is a NumPy array; pass graphc.from_numpy(array)",
                )
            else:
                key += (type(leaf), leaf)
        return key

    def _find(self, key: Any, args: Any, kwargs: Any, leaves: Sequence[Any]) -> Variant:
        try:
            known = self._variants.setdefault(key, [])
        except TypeError as error:
            raise fail(TypeError, f"{self.__name__}: a static argument cannot be hashed ({error})") from None
        for variant in known:
            if variant.holds():
                self._last = (key, variant)
                return variant
        reason = self._reason(key, known)
        variant = self._compile(args, kwargs)
        if self._static and any(i in self._static for i, leaf in enumerate(leaves) if type(leaf) is float):
            key = (*key[:2], *self._signature(leaves))
        self._variants.setdefault(key, []).append(variant)
        self._last = (key, variant)
        self._reasons.append(reason)
        log.info("%s", reason)
        return variant

    def _compile(self, args: Any, kwargs: Any) -> Variant:
        while True:
            try:
                record = record_call(self.__wrapped__, self.__name__, args, kwargs, self._static)
            except NeedStatic as need:
                self._static |= {need.leaf}
                continue
            variant = Variant(record, self._backend or lazy.SETTINGS.backend)
            if not kwargs and _flat(args):
                variant.specs = [_spec(a, i in self._static) for i, a in enumerate(args)]
            self.compilations += 1
            lazy.STATS.compilations += variant.replay is None
            return variant

    def _reason(self, key: Any, known: list[Variant]) -> str:
        """One line: why this call compiles."""
        head = f"graphc.compile: {self.__name__}: "
        if not self._variants or (len(self._variants) == 1 and not known):
            return head + "first call"
        if known:
            return head + f"recompiled, since {known[-1].why_not()}"
        others = [k for k, v in self._variants.items() if v and k is not key]
        alike = [k for k in others if len(k) == len(key) and k[0] == key[0]] or others
        return head + f"recompiled, since {_difference(alike[-1] if alike else (), key)}"

    def explain(self) -> list[str]:
        """Why each program was made, one line each."""
        return list(self._reasons)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["__wrapped__"], name)

    def __repr__(self) -> str:
        return f"<graphc.compile of {self.__name__}: {self.compilations} programs>"


def _spec(arg: Any, static: bool) -> tuple[Any, Any]:
    """What `Variant.takes` compares an argument with."""
    if isinstance(arg, Tensor):
        return Tensor, deferred.kind_of(arg)
    return type(arg), None if type(arg) is float and not static else (arg,)


def _flat(args: Sequence[Any]) -> bool:
    return not any(tree.is_nested(a) for a in args)


def _difference(old: Sequence[Any], new: Sequence[Any]) -> str:
    if len(old) != len(new) or old[:1] != new[:1]:
        return "the arguments are of another form"
    if old[1] != new[1]:
        return f"gradients are now {'on' if new[1] else 'off'}"
    for a, b in zip(old[2:], new[2:], strict=True):
        if a != b:
            return f"an argument changed from {_show(a)} to {_show(b)}"
    return "its arguments changed"


def _show(part: Any) -> str:
    return f"shape {list(part)}" if isinstance(part, tuple) else getattr(part, "name", None) or repr(part)


def name_of(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def compile(function: Any = None, *, backend: str | None = None, **options: Any) -> Any:
    """Compile a function, a Module, or a whole training step (also as a decorator).

    Arguments that are tensors or Python floats may change from call to call; everything else is
    part of the signature, and another value means another program. Parameters, buffers and optimizer
    state that the function changes are updated in place by the program. `backend` names a graphc
    backend; PyTorch's other options (mode, fullgraph, dynamic) are accepted and not needed.

    The function runs once per signature, on tensors without values: TracerError where it needs one.
    """
    unknown = set(options) - {"mode", "fullgraph", "dynamic", "options", "disable"}
    if unknown:
        raise fail(TypeError, f"compile() got unexpected options {sorted(unknown)}")
    if function is None:
        return lambda f: compile(f, backend=backend)
    if not callable(function):
        raise fail(TypeError, f"compile() needs a function or a Module, got {type(function).__name__}")
    if backend is not None:
        check_backend(backend)
    return Compiled(function, name_of(function), backend)
