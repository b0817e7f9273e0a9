"""A function compiled for one signature: its program, what it assumes, and how a call is made.

A call gathers arrays (arguments, state, random keys, numbers), runs the program, and wraps what
is new. State that the function changes is donated: the program writes over its buffers. If the result can
still be differentiated outside, the call is put off or built as lazy nodes instead
(`graphc.frontend.tracing.deferred`), so that forward, backward and update become one program.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from sys import getrefcount
from typing import Any

import numpy as np

from graphc.arrays import aligned_copy, is_aligned
from graphc.collecting import no_collections
from graphc.frontend import tree
from graphc.frontend.cell import Cell, Deferred, Flags, Sharing, fresh_input, leaf_node
from graphc.frontend.evaluation import lazy
from graphc.frontend.evaluation.compiler import compile_graph
from graphc.frontend.modes import MODE, settle
from graphc.frontend.sharing import present
from graphc.frontend.shown import Shown
from graphc.frontend.tensor import Tensor, from_array, wrap_cell
from graphc.frontend.tracing import deferred
from graphc.frontend.tracing.record import (
    GradOutput,
    Inputs,
    Output,
    Record,
    graph_of,
    inputs_of,
    module_names,
)
from graphc.frontend.tracing.replay import Replay
from graphc.frontend.tracing.trace import Members, members
from graphc.ir.node import Node


class Stale(Exception):
    """Captured state has got another shape or dtype: the program does not fit any more."""


_NODE, _BOUND, _VARS, _VERSION = map(attrgetter, ("node", "node.bound", "vars", "version"))
_REQUIRES, _TRAINING = map(attrgetter, ("_requires", "training"))


class Variant:
    """A function compiled for one signature, for a backend or (None) for the one that is set."""

    @no_collections
    def __init__(self, record: Record, backend: str | None = None, trains: bool = False) -> None:
        """`trains`: even if the function changes nothing itself, state will differ from call to call."""
        trace = record.trace
        self.mode = MODE.grad
        self.specs: list[tuple[Any, Any]] | None = None
        self.inputs: Inputs = inputs_of(record, module_names(record))
        self.extras = bool(self.inputs.keys or self.inputs.scalars or self.inputs.dynamics)
        self.result, self.outputs = record.result, record.outputs
        self.guards = list(trace.guards)
        self.modules = list(trace.modules)
        self.modes = [mode for mode, _ in trace.modules.values()]
        self.members = [found for _, found in trace.modules.values()]
        self.settings = [(m, kept) for m, found in trace.settings if (kept := _unchanged(m, found))]
        self.edits, self.flags = Members.edits, Flags.count
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
        # A backward pass outside would have to call Python in the midst of what is computed here: the
        # function is called as it is, on lazy tensors. With its backward pass inside, it is one program.
        self.calls_back = record.calls_back
        if self.calls_back:
            return
        if record.differentiable:
            self.replay = Replay(record, self.inputs, backend)
            return
        self._plan(record)
        graph = graph_of(self.targets, self.inputs.nodes, self.inputs.names, trace.name)
        first = len(self.inputs.arguments)
        state = range(first, first + len(self.cells))
        # A function that changes nothing is used many times with the same parameters: what follows from them
        # alone (packed weights) is kept until one of them changes.
        fixed = frozenset() if self.written or trains else frozenset(state)
        self.program = compile_graph(graph, self.donate, backend or lazy.SETTINGS.backend, fixed)
        self.program.keep(state)
        self.prepared: list[np.ndarray] | None = None  # the state of the last call
        self.graph = graph
        values = [t for t, o in zip(self.targets, self.outputs, strict=False) if o.kind == "value"]
        single = len(values) == len(self.outputs) == 1 and isinstance(self.result, Tensor)
        self.single: Node | None = fresh_input(values[0].type) if single else None  # one like the result's
        # Nothing but arguments and state goes in, and nothing but one result comes out.
        plain = not (self.extras or self.grads or self.inputs.grads)
        self.quick = single and plain and len(self.targets) == 1

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
        self.versions: list[int] = []
        self.shown = False  # whether others may write to memory of state
        self.arrays: list[np.ndarray] = []
        self.taken: list[Cell] = []  # what is written although history stands on its present value
        self.ids: list[int] = []  # of `arrays`
        self.counts: list[int] = []
        self.sharing = -1
        self.types = [n.type for n in self.inputs.nodes]
        first = len(self.inputs.arguments)
        self.state_types = self.types[first : first + len(self.cells)]

    # ---------------------------------------------------------------- validity

    def fits(self, args: Sequence[Any]) -> bool:
        """The quick test: flat positional arguments have this signature, and what was assumed holds."""
        specs = self.specs
        if specs is None or len(args) != len(specs) or MODE.grad is not self.mode:
            return False
        for arg, (kind, detail) in zip(args, specs):  # noqa: B905 (of one length; `strict` takes longer)
            if kind is Tensor:
                if not isinstance(arg, Tensor):
                    return False
                cell = arg._cell
                if type(cell) is Deferred:
                    if cell.type != detail[0] or cell.has_history is not detail[1]:
                        return False
                    continue
                found = cell.node.type
                if found is not detail[0] and found != detail[0]:
                    return False
                if (arg._requires or cell.fn is not None) is not detail[1]:
                    return False
            elif type(arg) is not kind or (detail is not None and arg != detail[0]):
                return False
        return self.holds()

    def holds(self) -> bool:
        """Whether what the trace assumed about the outside is still so."""
        if Members.edits != self.edits:  # modes count among them
            if list(map(_TRAINING, self.modules)) != self.modes:
                return False
            if not all(map(_same, self.members, map(members, self.modules))):
                return False
            if any(len(_unchanged(m, found)) != len(found) for m, found in self.settings):
                return False
            self.edits = Members.edits
        if Flags.count != self.flags:
            if list(map(_REQUIRES, self.leaves)) != self.requires:
                return False
            self.flags = Flags.count
        if self.without_grad and [t._grad is None for t in self.without_grad].count(False):
            return False
        if self.with_grad and [t._grad is None for t in self.with_grad].count(True):
            return False
        for getter, found in self.guards:  # noqa: SIM110 (a generator takes longer)
            if getter() != found:
                return False
        return True

    def why_not(self) -> str:
        """In words, the assumption that does not hold."""
        for module, mode in zip(self.modules, self.modes, strict=True):
            if module.training is not mode:
                return f"{type(module).__name__} is now in {'train' if module.training else 'eval'} mode"
        for module, found in zip(self.modules, self.members, strict=True):
            if not _same(found, members(module)):
                return f"a parameter, buffer or child of {type(module).__name__} was replaced"
        for module, values in self.settings:
            for name in values.keys() - _unchanged(module, values).keys():
                now = module.__dict__.get(name)
                return f"{name!r} of {type(module).__name__} changed from {values[name]!r} to {now!r}"
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
        if self.quick and self.prepared is self.arrays and self.known():
            values = self.program.again(self._arguments(leaves), self.arrays)
            if values is not None:
                return self._wrap(values[0])
        if self.donate and MODE.pending:
            lazy.sync()
        elif self.donate or self.argument_writes or self.grads:
            settle()
        arrays = self._gather(leaves)
        values = self.program(arrays, None, self.prepared is not self.arrays, self.arrays)
        self.prepared = self.arrays
        if self.written or self.draws:
            for generator, count in self.draws:
                generator.offset += count
            for cell in self.written:
                cell.version += 1
        if self.argument_writes or self.grads:
            self._store(leaves, values)
        return self._results(leaves, values) if self.single is None else self._wrap(values[0])

    def _wrap(self, array: np.ndarray) -> Tensor:
        """A tensor for the only result."""
        like = self.single
        assert like is not None
        return wrap_cell(Cell(fresh_input(like.type, array, like.attrs)))

    def _arguments(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        """The arrays of the arguments."""
        arrays: list[np.ndarray] = []
        for i in self.inputs.arguments:
            cell = leaves[i]._cell
            bound = cell.node.bound
            if cell.view is not None or type(bound) is not np.ndarray:
                bound = lazy.memory(leaves[i])
            if self.written and cell in self.written:
                bound = bound.copy()  # the state it is will be overwritten
            arrays.append(bound)
        return arrays

    def _gather(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        """The arrays of all inputs."""
        inputs, arrays = self.inputs, self._arguments(leaves)
        arrays += self.arrays if not inputs.grads and self.known() else self.state()
        if not self.extras:
            return arrays
        arrays += [g.key() for g in inputs.keys]
        for i in inputs.scalars:
            arrays.append(np.array(leaves[i]))
        for getter in inputs.dynamics:
            arrays.append(np.array(getter(), np.float64))
        return arrays

    def state(self) -> list[np.ndarray]:
        """The arrays of captured state and gradients. Stale if they do not fit any more."""
        if not self.known():
            self.own()
        return self.held()

    def held(self) -> list[np.ndarray]:
        """The same, of state that is `known`, or made so by `own`."""
        if not self.inputs.grads:
            return self.arrays
        return [*self.arrays, *map(_writeable, self.inputs.grads)]

    def known(self) -> bool:
        """Whether captured state is as the last call left it, and nobody else has got hold of the nodes of
        what is written."""
        if self.views or self.shown:
            return False
        if not self.written:
            return list(map(_VERSION, self.cells)) == self.versions
        if list(map(id, map(_BOUND, self.cells))) != self.ids or Sharing.count != self.sharing:
            return False
        unused = list(map(_VARS, self.written)).count(None) == len(self.written)
        return unused and list(map(getrefcount, list(map(_NODE, self.written)))) == self.counts

    def own(self, take_over: bool = False) -> None:
        """Bring captured state up to date, and make sure nobody else reads what will be overwritten.

        History that stands on a value keeps it, in an array of its own; or else, with `take_over`, loses it
        when the program has run (`overwritten`). Stale if state does not fit any more.
        """
        captured = self.inputs.captured
        lazy.realise([c.tensor for c in captured])
        for cell, kind in zip(self.cells, self.state_types, strict=True):
            if cell.node.type != kind:
                raise Stale
        before, versions = self.arrays, self.versions
        self.arrays = []  # references that are not other people's
        for cell in self.written:
            _unshare(cell, take_over)
        self.sharing = Sharing.count
        self.arrays = [_array(cell) for cell in self.cells]
        self.versions = list(map(_VERSION, self.cells))
        self.shown = any(type(cell.node.bound) is Shown for cell in self.cells)
        if (take_over or (self.shown and self.versions == versions)) and _same(self.arrays, before):
            self.arrays = before  # what was prepared from them still holds
        self.taken = [cell for cell in self.written if cell.vars is not None]
        self.ids = list(map(id, self.arrays))
        self.counts = list(map(getrefcount, list(map(_NODE, self.written))))

    def overwritten(self) -> None:
        """The program has written over state that was taken over: who needs its value of before is told."""
        for cell in self.taken:
            lazy.overwritten(cell, cell.node.bound)
        self.taken = []

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


def _unchanged(module: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Those attributes that still are what they were. (What the traced function itself changes is none.)"""
    fields = module.__dict__
    return {n: v for n, v in values.items() if n in fields and type(fields[n]) is type(v) and fields[n] == v}


def _wrap(array: np.ndarray) -> Tensor:
    return wrap_cell(Cell(leaf_node(array)))


def _writeable(leaf: Tensor) -> np.ndarray:
    """The array of a leaf's gradient, for the program to write over."""
    grad = leaf.grad
    assert grad is not None
    lazy.realise([grad])
    _unshare(grad._cell)
    return grad._cell.node.bound


def _array(cell: Cell) -> np.ndarray:
    """The array of a cell's value, which nobody writes to while a program keeps it."""
    return (present(cell) if type(cell.node.bound) is Shown else cell.node).bound


def _unshare(cell: Cell, take_over: bool = False) -> None:
    """Give a cell an input node and an array that nothing else refers to (but for the nodes of leaves, with
    `take_over`), and that suits compiled code: every vector of one that begins within a cache line would
    straddle two lines, at every step."""
    node = cell.node
    array = node.bound
    if type(array) is Shown:
        array = array.array
        if not node.bound.is_seen:
            node.bound = array
    held = [r for r in cell.vars or () if (n := r()) is not None and n.bound is array and getrefcount(n) > 2]
    cell.vars, held = (held or None, []) if take_over else (None, held)
    cell.version += 1  # leaves on this cell get a new node when they are next used
    shown = type(node.bound) is Shown
    if shown or getrefcount(node) > 3 or not array.flags.writeable or held or not is_aligned(array):
        cell.node = fresh_input(node.type, aligned_copy(array))
