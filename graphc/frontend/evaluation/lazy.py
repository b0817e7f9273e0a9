"""Computing values: pending nodes become one program, found again by the structure of the graph.

`realise(tensors)` computes what some tensors need. `sync()` computes every pending tensor of
this thread in one program, and lets new values take over the buffers of those they replace.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.frontend.cell import Cell, Steps, fresh_input, is_constant, share
from graphc.frontend.drawn import Drawn
from graphc.frontend.evaluation.along import along
from graphc.frontend.evaluation.canonical import OVERWRITTEN, Gone, Pending, canonical
from graphc.frontend.evaluation.compiler import check_backend, compile_graph
from graphc.frontend.evaluation.parts import FEW
from graphc.frontend.evaluation.places import at_places, places_type
from graphc.frontend.evaluation.relatives import relatives
from graphc.frontend.modes import MODE, not_while_recording, settle
from graphc.frontend.pending import recorded
from graphc.frontend.shown import Shown
from graphc.frontend.tensor import Tensor, refresh
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node, make, no_sites, site_of
from graphc.ops.constant import CONSTANT, constant, input_


@dataclass
class Settings:
    """What the front end hands to the compiler; see `graphc.set_backend`."""

    backend: str = "llvm"


@dataclass
class Stats:
    """Counters for people and tests: programs compiled and run, lazily or by `compile`."""

    compilations: int = 0
    native_calls: int = 0


_MOVED = (Kind.VIEW, Kind.CONSTANT, Kind.INPUT)
LONG = 512  # operations without a program in between, from which on loops are looked for (`rounds`)
MOVES = 32  # graphs up to this size that only move data (zeros, slices, transposes) need no program

FORWARD = 32  # pending tensors that a forward pass may leave

SETTINGS = Settings()
STATS = Stats()


def compilations() -> int:
    """Programs compiled so far in this process, by reading values or by `compile`."""
    return STATS.compilations


def native_calls() -> int:
    """Programs run so far in this process, by reading values or by calling what `compile` made."""
    return STATS.native_calls


class Unbound:
    """Bound to the arguments of a trace: there is no value, and after the trace there never will be."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.active = True


# -------------------------------------------------------------------- programs


@dataclass
class _Variant:
    """A program for one structure: `lifted` are the open scalars that it takes as inputs."""

    scalars: list[Any]
    lifted: tuple[int, ...]
    program: Any

    def fits(self, scalars: list[Any]) -> bool:
        if not self.lifted:
            return scalars == self.scalars
        lifted = self.lifted
        return all(a == b or i in lifted for i, (a, b) in enumerate(zip(scalars, self.scalars, strict=True)))


CAPACITY = (
    1024  # structures whose programs are kept; those unused for longest go first, and their code with them
)
_programs: OrderedDict[tuple, list[_Variant]] = OrderedDict()


def clear_programs() -> None:
    """Forget all compiled lazy programs (for tests and for measuring compilation)."""
    _programs.clear()


def build_graph(
    found: Pending, outputs: Sequence[int], lifted: Sequence[int] = (), given: Sequence[str] | None = None
) -> Graph:
    """The pending graph over inputs of its own.

    Leaves become inputs, in order, followed by the lifted scalars. With `given` (names of the given
    nodes), these are the inputs and leaves become constants.
    """
    new: list[Node] = []
    inputs: list[Node] = []
    as_input = {found.scalar_at[i]: i for i in lifted}
    arrays = dict(zip(found.leaf_at, found.arrays, strict=True))
    extra: dict[int, Node] = {}
    with no_sites():
        for at, node in enumerate(found.order):
            if given is not None and at < len(given):
                fresh = input_(given[at], node.type)
                inputs.append(fresh)
            elif at in arrays and given is not None:
                fresh = constant(arrays[at], node.type.dtype)
            elif at in arrays:
                fresh = input_(f"x{len(inputs)}", node.type)
                inputs.append(fresh)
            elif at in as_input:
                i = as_input[at]
                if node.op is CONSTANT:
                    fresh = extra[i] = input_(f"s{i}", node.type)
                else:
                    extra[i] = input_(f"s{i}", places_type(found.scalars[i]))
                    fresh = at_places(node, new[found.index[node.inputs[0]]], extra[i])
            else:
                fresh = make(node.op, [new[found.index[n]] for n in node.inputs], node.attrs)
            fresh.site = site_of(node) or fresh.site  # an equal graph may have been made elsewhere
            new.append(fresh)
    inputs += [extra[i] for i in lifted]
    return Graph(tuple(inputs), tuple(new[at] for at in outputs), tuple(n.attrs.name for n in inputs))


def _variants(key: tuple) -> list[_Variant]:
    """The programs known for a structure, which is now the last used."""
    variants = _programs.pop(key, None)
    if variants is None:
        variants = []
        while len(_programs) >= CAPACITY:
            _programs.popitem(last=False)
    _programs[key] = variants
    return variants


def _find(found: Pending, outputs: tuple[int, ...], donate: tuple[tuple[int, int], ...]) -> _Variant:
    backend = MODE.backend or SETTINGS.backend
    key = (tuple(found.key), outputs, donate, backend)
    variants = _variants(key)
    known = tuple(variants)  # (other threads may find others)
    for variant in known:
        if variant.fits(found.scalars):
            return variant
    lifted: tuple[int, ...] = ()
    if known:
        last = known[-1]
        changed = [i for i, (a, b) in enumerate(zip(found.scalars, last.scalars, strict=True)) if a != b]
        lifted = tuple(sorted({*last.lifted, *changed}))
    graph = build_graph(found, outputs, lifted)
    STATS.compilations += 1
    variant = _Variant(found.scalars, lifted, compile_graph(graph, dict(donate), backend))
    variants[:] = [variant] if lifted else [*known, variant]
    return variant


def _only_moves(found: Pending) -> bool:
    if not found.order or found.order[-1].kind not in _MOVED:  # mostly the answer
        return False
    leaves = set(found.leaf_at)
    return all(n.kind in _MOVED or at in leaves for at, n in enumerate(found.order))


def _move(found: Pending, outputs: tuple[int, ...]) -> list[np.ndarray]:
    """The values of a graph that only moves data: NumPy has them sooner than a program is compiled."""
    arrays = dict(zip(found.leaf_at, found.arrays, strict=True))
    values: list[np.ndarray] = []
    for at, node in enumerate(found.order):
        if at in arrays:
            values.append(arrays[at])
        else:
            assert node.op.evaluate is not None
            inputs = [values[found.index[n]] for n in node.inputs]
            values.append(np.asarray(node.op.evaluate(inputs, node.attrs)))
    return [np.array(values[at], order="C") for at in outputs]


def run(
    found: Pending, outputs: tuple[int, ...], donate: tuple[tuple[int, int], ...] = ()
) -> list[np.ndarray]:
    """Compile, or find, the program of a pending graph, and run it."""
    if not donate and len(found.order) <= MOVES and _only_moves(found):
        return _move(found, outputs)
    variant = _find(found, outputs, donate)
    found.cut()
    arrays = found.arrays
    if variant.lifted:
        arrays = [*arrays, *[found.scalar(i) for i in variant.lifted]]
    STATS.native_calls += 1
    try:
        return variant.program(arrays)
    except IndexError:  # nothing has changed, but an equal graph, made at another line, may be named
        _give_sites(found, outputs, variant.lifted)
        return variant.program(arrays)


def _give_sites(found: Pending, outputs: Sequence[int], lifted: Sequence[int]) -> None:
    """Let the graph that a program was compiled from, which equals this one, tell this one's lines."""
    build_graph(found, outputs, lifted)


# ---------------------------------------------------------------------- values


def store(cell: Cell, array: np.ndarray) -> None:
    """Give a cell its value. Without history that can still be used, it becomes a leaf."""
    node = cell.node
    if cell.fn is None or cell.fn.freed or is_constant(node):
        cell.node = fresh_input(node.type, array)
        cell.tracks = False
    else:
        node.bound = array
    cell.old = cell.past = None


def let_go(cell: Cell) -> None:
    """Make a cell whose value is known and whose history has been used up a leaf: the graph can go."""
    fn, array = cell.fn, cell.node.bound
    if fn is not None and fn.freed and cell.view is None and type(array) is np.ndarray:
        cell.node = fresh_input(cell.node.type, share(array))


def forget(tensor: Tensor) -> None:
    """A tensor is not pending any more."""
    if tensor._seq:
        MODE.pending.discard(tensor._seq)
        tensor._seq = 0


def _resolve(cell: Cell) -> bool:
    """Settle a cell whose value needs no program; whether it is settled."""
    node = cell.node
    bound = node.bound
    seen = node
    while type(bound) is Node or (bound is None and seen.op.kind is Kind.BARRIER):
        seen = seen.inputs[0] if bound is None else bound
        bound = seen.bound
    if type(bound) is Drawn:
        bound = seen.bound = bound.array()
    if type(bound) is np.ndarray:
        if seen is not node:
            node.bound = share(bound)
        cell.past = None
        return True
    if type(bound) is Shown:
        cell.past = None
        return True
    if seen.op is CONSTANT:
        store(cell, np.ascontiguousarray(seen.attrs.array).reshape(seen.type.shape))
        return True
    return False


_look_ahead: Callable[[], None] | None = None


def look_ahead_by(function: Callable[[], None]) -> None:
    """Set what may compute more than is read, before something is (`graphc.frontend.steps.foreseen`)."""
    global _look_ahead
    _look_ahead = function


def realise(tensors: Sequence[Tensor]) -> None:
    """Compute the values of some tensors, and of their relatives, in one program. TracerError for traced
    ones."""
    cells: dict[Cell, None] = {}
    for t in tensors:
        cell = t._cell
        if cell.view is not None:
            refresh(cell)
        if not _resolve(cell):
            cells[cell] = None
    if cells and _look_ahead is not None:
        _look_ahead()
        cells = {cell: None for cell in cells if not _resolve(cell)}
    if cells:
        compute(list(cells))
    for t in tensors:
        forget(t)
    if not MODE.pending:
        MODE.backend = None


def compute(cells: list[Cell], donating: bool = False) -> None:
    """Run one program for the values of `cells` (if `donating`, of all that is pending). If a check fails,
    in-place changes are undone."""
    MODE.pending.limit = recorded() + LONG
    nodes = [c.node for c in cells]  # once: another thread may be computing some of them too
    found = canonical(nodes, parts=FEW)
    if not donating:
        more = [cell for cell in relatives(found, cells) if not _resolve(cell)]
        if more:
            cells = cells + more
            nodes += [c.node for c in more]
            found = canonical(nodes, parts=FEW)
    outputs = [found.index[n] for n in nodes]
    if not donating:
        kept = along(found, outputs)
        cells = [*cells, *kept.values()]
        nodes += [c.node for c in kept.values()]
        outputs += kept
    donate = _donations(cells, outputs, found) if donating else ()
    try:
        values = run(found, tuple(outputs), donate)
    except IndexError:
        for cell in cells:
            _undo(cell)
        raise
    for o, i in donate:
        _overwrite(cells[o], found.leaves[i])
    settled = sorted(zip(outputs, map(_within, nodes), values, strict=True), key=lambda item: item[0])
    del nodes, found
    taken: set[int] = set()
    for cell, array in zip(cells, values, strict=True):
        if id(array) in taken:  # two cells with one node: each has an array of its own
            array = array.copy()
        taken.add(id(array))
        store(cell, array)
    _keep(settled)


def _keep(settled: list[tuple[int, Node, np.ndarray]]) -> None:
    """Let nodes that somebody still holds (histories, other tensors) keep their values too.

    Last ones first, since a node that goes lets go of its operands; the list is used up.
    """
    while settled:
        _, node, array = settled.pop()
        if node.bound is None and sys.getrefcount(node) > 2 and not is_constant(node):
            node.bound = share(array)
        del node


def _within(node: Node) -> Node:
    """The node whose value a detached one shows."""
    while node.bound is None and node.op.kind is Kind.BARRIER:
        node = node.inputs[0]
    return node


def _undo(cell: Cell) -> None:
    """Take back what the failed step, or any change that needs the check that failed, did to a cell.

    A parameter must not be left without a value, nor a counter have counted a step that was none.
    """
    past, cell.past = cell.past, None
    node = cell.node
    while past and (past[-1][0] == Steps.count or _is_checked(node)):
        _, node, _ = past.pop()
    if node is not cell.node and not _is_checked(node):
        cell.node, cell.fn, cell.tracks, cell.old = node, None, False, None
        cell.version += 1


def _is_checked(node: Node) -> bool:
    """Whether computing a node makes the program check something."""
    return any(n.kind is Kind.CHECK for n in canonical([node]).order)


def _overwrite(cell: Cell, leaves: Sequence[Node]) -> None:
    """The buffer of a replaced value has been taken over: nobody may read it any more."""
    old = cell.old
    assert old is not None
    overwritten(cell, old.bound)
    for node in (old, *leaves):
        node.bound = OVERWRITTEN


def overwritten(cell: Cell, array: np.ndarray) -> None:
    """The nodes of leaves on a cell, as far as they are bound to `array`, have lost their value."""
    for ref in cell.vars or ():
        node = ref()
        if node is not None and node.bound is array:
            node.bound = OVERWRITTEN
    cell.vars = None


def _donations(cells: list[Cell], outputs: Sequence[int], found: Pending) -> tuple[tuple[int, int], ...]:
    """(output, leaf) pairs: the buffer of a replaced value that is no other cell's value too."""
    slot_of = {id(a): i for i, a in enumerate(found.arrays)}
    leaf_at = set(found.leaf_at)
    pairs = []
    taken: set[int] = set()
    seen: set[int] = set()
    for o, cell in enumerate(cells):
        old, at = cell.old, outputs[o]
        if old is None or at in seen or at in leaf_at or type(old.bound) is not np.ndarray:
            continue
        seen.add(at)
        slot = slot_of.get(id(old.bound))
        if slot is None or slot in taken or old.type != cell.node.type:
            continue
        if old.bound.flags.writeable:
            taken.add(slot)
            pairs.append((o, slot))
    return tuple(pairs)


def sync() -> None:
    """Compute every pending tensor of this thread in one program, reusing replaced buffers."""
    settle()
    pending = MODE.pending
    if not pending or MODE.trace is not None:
        return
    cells: dict[Cell, None] = {}
    for tensor in pending:
        tensor._seq = 0
        if not _is_settled(tensor._cell):
            cells[tensor._cell] = None
    pending.clear()
    if cells:
        try:
            compute(list(cells), donating=True)
        except Gone:  # which is for those to hear who read what cannot be computed any more
            others = list(filter(_can_be_computed, cells))
            if others:
                compute(others, donating=True)
    MODE.backend = None


def end_batch() -> None:
    """Compute what is pending, but for a forward pass that is still to be differentiated.

    Targets are made for it (by a teacher, a target network); the program of its backward pass does it all.
    """
    settle()
    pending = list(MODE.pending)
    others = [tensor for tensor in pending if not may_be_differentiated(tensor)]
    if MODE.trace is not None or not 0 < len(pending) - len(others) <= FORWARD:
        sync()
        return
    cells = {tensor._cell: None for tensor in others if not _is_settled(tensor._cell)}
    if cells:
        compute(list(cells))
    for tensor in others:
        forget(tensor)


def _is_settled(cell: Cell) -> bool:
    if cell.view is not None:
        simplify_view(cell)
    return _resolve(cell)


def may_be_differentiated(tensor: Tensor) -> bool:
    """Whether a tensor has history that no backward pass has used up (nor that of its operands)."""
    fn = tensor._cell.fn
    return fn is not None and not fn.freed and not any(p.freed for p in fn.parents)


def _can_be_computed(cell: Cell) -> bool:
    try:
        canonical([cell.node])
    except Gone:
        return False
    return True


def simplify_view(cell: Cell) -> None:
    """Bring a view up to date, and let go of a base that nobody else can see.

    The base of a chain of views first: one that is a view itself leads to what others may change.
    """
    refresh(cell)
    chain = [cell]
    while (view := chain[-1].view) is not None:
        chain.append(view.cell)
    while len(chain) > 1:
        base = chain.pop()
        cell = chain[-1]
        view = cell.view
        unseen = view is not None and view.handle() is None and sys.getrefcount(base) <= 3
        if unseen and base.view is None:
            cell.view = None


def value(tensor: Tensor) -> np.ndarray:
    """The computed array of a tensor: C-contiguous, and not to be written to."""
    array = memory(tensor)
    shown = tensor._cell.node.bound
    return shown.snapshot() if type(shown) is Shown and shown.is_seen else array


def memory(tensor: Tensor) -> np.ndarray:
    """The same, to be read at once: users may have arrays on this memory and write to it later."""
    not_while_recording()
    cell = tensor._cell
    trace = MODE.trace
    if trace is not None and cell.trace is not trace:
        raise trace.needs_value("the value of a tensor from outside is needed inside a traced function")
    if cell.view is not None:
        refresh(cell)
    bound = cell.node.bound
    if type(bound) is np.ndarray:
        return bound
    if type(bound) is not Shown:
        realise([tensor])
        bound = cell.node.bound
    return bound.array if type(bound) is Shown else bound


def set_backend(name: str, **options: bool) -> None:
    """Choose the backend of programs compiled from now on ("llvm", or "reference": NumPy), and its options.

    "llvm" has two: `winograd` (True), whether convolutions of small windows may run by Winograd's algorithm,
    which takes a third to two thirds of the time and has a larger, bounded rounding error (see
    graphc.loop.lower.convolution.winograd);
    `layout` (True), whether convolutions of a network that is not trained may keep their channels last.
    ValueError unless a backend is registered as `name` and has these options.
    """
    SETTINGS.backend = check_backend(name, options)
