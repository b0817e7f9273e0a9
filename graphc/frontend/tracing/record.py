"""What a trace leaves behind: a pure graph, where its inputs come from and where its outputs go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.collecting import no_collections
from graphc.frontend import tree
from graphc.frontend.cell import Cell, fresh_input, root
from graphc.frontend.evaluation.canonical import Pending, canonical
from graphc.frontend.evaluation.lazy import build_graph
from graphc.frontend.history import AccumulateGrad, CutGrad, walk
from graphc.frontend.tensor import Tensor, refresh, wrap_cell
from graphc.frontend.tracing.trace import Captured, Trace, tracing
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float64


class NeedStatic(BaseException):
    """A Python float argument was used where its value is needed: trace again with it as a constant."""

    def __init__(self, leaf: int) -> None:
        self.leaf = leaf


@dataclass(eq=False)
class Output:
    """One leaf of what the function returned.

    kind  "value": computed; "state": the handle `keep` itself; "argument": argument leaf `keep`;
          "static": the Python object `keep`
    """

    kind: str
    keep: Any = None
    node: Node | None = None
    differentiable: bool = False
    alias: bool = False  # it shares the storage of an argument, or of a tensor from outside
    label: str = ""  # of the operation that made it


@dataclass(eq=False)
class GradOutput:
    """The gradient that the function leaves in `.grad` of a leaf: computed (`node`), or None."""

    leaf: Tensor | int  # a tensor from outside, or an argument leaf
    node: Node | None
    replaces: Node | None = None  # the input that the old gradient was


@dataclass(eq=False)
class Record:
    """A traced function."""

    trace: Trace
    arguments: dict[int, Node] = field(default_factory=dict)  # argument leaf -> input
    scalars: dict[int, Node] = field(default_factory=dict)  # argument leaf -> input
    argument_writes: dict[int, Node] = field(default_factory=dict)
    argument_variables: dict[Node, int] = field(default_factory=dict)
    writes: list[tuple[Captured, Node]] = field(default_factory=list)
    grads: list[GradOutput] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    result: Any = None
    differentiable: bool = False
    calls_back: str = ""  # what a backward pass through a result has to call in Python

    @property
    def stands_for_calls(self) -> bool:
        """Whether results have history, all of it in the graph, and no value decides what is done: the graph
        may stand for ordinary calls."""
        return self.differentiable and not self.calls_back and not self.trace.asked


def _enter(record: Record, leaves: Sequence[Any], static: frozenset[int]) -> list[Any]:
    """Argument leaves as the function sees them: tensors and floats without values."""
    trace = record.trace
    seen: list[Any] = []
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            node = record.arguments[i] = fresh_input(leaf._cell.type, trace.mark)
            stand_in = object.__new__(type(leaf)) if type(leaf) is not Tensor else wrap_cell(leaf._cell)
            stand_in._cell = Cell(node)
            stand_in._requires = leaf.requires_grad
            seen.append(stand_in)
        elif type(leaf) is float and i not in static:
            node = record.scalars[i] = fresh_input(TensorType((), float64), _Number(trace, i))
            number = wrap_cell(Cell(node))
            number._weak = True
            seen.append(number)
        else:
            seen.append(leaf)
    return seen


class _Number:
    """Bound to the stand-in of a float argument."""

    def __init__(self, trace: Trace, leaf: int) -> None:
        self.what = f"a float argument of {trace.name!r}"
        self.leaf = leaf
        self.mark = trace.mark

    @property
    def active(self) -> bool:
        if self.mark.active:
            raise NeedStatic(self.leaf)
        return False


@no_collections
def record_call(
    function: Callable[..., Any],
    name: str,
    args: Any,
    kwargs: Any,
    static: frozenset[int] = frozenset(),
    apart: bool = False,
) -> Record:
    """Run `function` on stand-ins for its arguments and note all that it does to tensors.

    `apart`: it reads nothing that noted events change, which need not be built for it.
    """
    leaves = tree.leaves((args, kwargs))
    with tracing(name, apart) as trace:
        record = Record(trace)
        stand_ins = _enter(record, leaves, static)
        order = iter(stand_ins)
        new_args, new_kwargs = tree.rebuild((tuple(args), dict(kwargs)), lambda leaf: next(order))
        record.result = function(*new_args, **new_kwargs)
        _collect(record, leaves, stand_ins)
    return record


def _collect(record: Record, leaves: Sequence[Any], stand_ins: Sequence[Any]) -> None:
    """Note outputs, changed state and gradients, before everything is put back."""
    trace = record.trace
    own = {id(s): i for i, s in enumerate(stand_ins) if isinstance(s, Tensor)}
    for node, tensor in trace.variables.items():
        if id(tensor) in own:
            record.argument_variables[node] = own[id(tensor)]
    cells = {s._cell for s in stand_ins if isinstance(s, Tensor)}
    for leaf in tree.leaves(record.result):
        record.outputs.append(_output(record, leaf, own, cells))
    for i, s in enumerate(stand_ins):
        if i in record.arguments and s._cell.node is not record.arguments[i]:
            record.argument_writes[i] = _settled(s)
    for captured in trace.captured.values():
        if captured.written:
            record.writes.append((captured, captured.tensor._cell.node))
    _collect_grads(record, stand_ins)
    record.differentiable = any(o.differentiable for o in record.outputs)
    if record.differentiable:
        record.calls_back = _calls_back(record, stand_ins)


def _calls_back(record: Record, stand_ins: Sequence[Any]) -> str:
    """What of the results' history only Python can go through; empty if the graph says all."""
    results = [leaf for leaf in tree.leaves(record.result) if isinstance(leaf, Tensor)]
    roots = [fn for t in results if t._cell.trace is record.trace and (fn := t._cell.fn) is not None]
    found = walk(roots)
    for fn in found:
        if isinstance(fn, CutGrad):
            return f"the autograd.Function of {fn.label}"
    hooked = any(fn.hooks for fn in found if not isinstance(fn, AccumulateGrad))
    if hooked or any(s._hooks for s in stand_ins if isinstance(s, Tensor)):
        return "a hook on a gradient"
    return ""


def _settled(tensor: Tensor) -> Node:
    if tensor._cell.view is not None:
        refresh(tensor._cell)
    return tensor._cell.node


def _output(record: Record, leaf: Any, own: dict[int, int], arguments: set[Cell]) -> Output:
    if not isinstance(leaf, Tensor):
        return Output("static", leaf)
    if id(leaf) in own:
        return Output("argument", own[id(leaf)])
    if leaf._cell.trace is not record.trace:
        return Output("state", leaf)
    fn = leaf._cell.fn
    node = _settled(leaf)
    # What leads to history that a backward pass has used up cannot be differentiated again.
    differentiable = fn is not None and not any(f.freed for f in walk([fn]))
    base = root(leaf._cell)
    alias = base in arguments or base.trace is not record.trace
    return Output("value", None, node, differentiable, alias, fn.label if fn is not None else "")


def _collect_grads(record: Record, stand_ins: Sequence[Any]) -> None:
    trace = record.trace
    for saved in trace.handles.values():
        t = saved.tensor
        known = trace.grads.get(id(t))
        same = known is not None and t._grad is known.stand_in
        if t._grad is saved.grad or (same and known is not None and known.stand_in._cell.node is known.node):
            continue  # untouched, or only read
        if t._grad is None or id(t) in trace.consumed:
            record.grads.append(GradOutput(t, None))
        else:
            replaces = known.node if same and known is not None else None
            assert isinstance(t._grad, Tensor)  # promises are resolved when a trace meets them
            record.grads.append(GradOutput(t, _settled(t._grad), replaces))
    for i, s in enumerate(stand_ins):
        if i in record.arguments and s._grad is not None:
            record.grads.append(GradOutput(i, _settled(s._grad)))


# ---------------------------------------------------------------- graph of a record


@dataclass(eq=False)
class Inputs:
    """The inputs of a record's graph, grouped by where their values come from."""

    nodes: list[Node]
    names: list[str]
    arguments: list[int]  # argument leaves
    captured: list[Captured]
    grads: list[Tensor]  # leaves whose gradient is an input
    keys: list[Any]  # generators
    scalars: list[int]  # argument leaves
    dynamics: list[Callable[[], float]]


def inputs_of(record: Record, names: dict[Any, str]) -> Inputs:
    """All inputs, in the order in which calls gather them."""
    trace = record.trace
    found = Inputs([], [], [], [], [], [], [], [])

    def add(node: Node, name: str) -> None:
        found.nodes.append(node)
        found.names.append(name)

    for i, node in record.arguments.items():
        add(node, f"arg{i}")
        found.arguments.append(i)
    for k, (cell, captured) in enumerate(trace.captured.items()):
        add(captured.node, names.get(cell, f"state{k}"))
        found.captured.append(captured)
    for k, known in enumerate(trace.grads.values()):
        add(known.node, f"grad{k}")
        found.grads.append(known.tensor)
    for k, (generator, (node, _)) in enumerate(trace.keys.items()):
        add(node, f"key{k}")
        found.keys.append(generator)
    for i, node in record.scalars.items():
        add(node, f"scalar{i}")
        found.scalars.append(i)
    for k, (node, getter) in enumerate(trace.dynamics):
        add(node, f"dynamic{k}")
        found.dynamics.append(getter)
    return found


def unique_names(names: Sequence[str]) -> list[str]:
    """Names made distinct, in a form that printed IR can show."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        out.append(name if count == 0 else f"{name}_{count}")
    return out


def graph_of(
    targets: Sequence[Node], inputs: Sequence[Node], names: Sequence[str], name: str, barriers: bool = False
) -> Graph:
    """A graph from `inputs` to `targets`. TracerError if it needs a tensor of another trace.

    `barriers`: with those of differentiation, for a graph that is still to be differentiated.
    """
    found: Pending = canonical(targets, inputs, barriers)
    graph = build_graph(found, [found.index[n] for n in targets], given=unique_names(names))
    return Graph(graph.inputs, graph.outputs, graph.input_names, (), name)


def module_names(record: Record) -> dict[Any, str]:
    """Names of captured parameters and buffers, from the outermost modules called."""
    names: dict[Any, str] = {}
    for module in record.trace.modules:
        for listing in ("named_parameters", "named_buffers"):
            for path, tensor in getattr(module, listing)():
                names.setdefault(tensor._cell, path)
    return names
