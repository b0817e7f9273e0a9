"""May a kernel write its result over one of its operands?

Yes if every location of the operand is read, by the task that overwrites it, no later than the
overwrite. That is proved by comparing index expressions: each load of the operand must use the
index of the store, in the store's own innermost loop or in a loop over the same range that runs
earlier inside the same outer loops (an earlier sweep over the row). Several stores count as one if they
have the same index and stand under conditions that exclude each other; stores into different parts of a
row (the gates of a recurrent cell) never meet, and a load is asked about its own part alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from graphc.loop import index as ix
from graphc.loop.ir import (
    Accumulate,
    Address,
    Alloc,
    Binary,
    Block,
    Buffer,
    Cast,
    Check,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Listed,
    Load,
    Local,
    Note,
    Prefetch,
    Select,
    Stmt,
    Store,
    Tile,
    Unary,
    Var,
)

Index = tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Access:
    """One read or write of a param: where (textual order), inside which loops, at which index; `conditions`
    around it, each with the number of loops that are outside of it."""

    order: int
    loops: tuple[For, ...]
    index: Index | None  # None: a block of addresses (a Tile operand)
    conditions: tuple[tuple[Expr, int], ...]


_known: WeakKeyDictionary[Kernel, frozenset[tuple[int, int]]] = WeakKeyDictionary()


def inplace_pairs(kernel: Kernel) -> frozenset[tuple[int, int]]:
    """Pairs (read position, written position) of params that may be the same memory."""
    pairs = _known.get(kernel)
    if pairs is None:
        pairs = _known[kernel] = _prove(kernel)
    return pairs


def _prove(kernel: Kernel) -> frozenset[tuple[int, int]]:
    reads, writes = _accesses(kernel)
    lets = {stmt.local: stmt.value for stmt, _ in statements(kernel.body) if isinstance(stmt, Let)}
    position = {buffer: i for i, buffer in enumerate(kernel.params)}
    pairs = set()
    for target, stores in writes.items():
        cut = _cut(stores)
        if target in reads or not _writes_once(kernel, stores, lets, cut):
            continue
        for source, loads in reads.items():
            same = source.dtype.itemsize == target.dtype.itemsize and source.shape == target.shape
            if same and source not in writes and all(_overwritten(load, stores, cut) for load in loads):
                pairs.add((position[source], position[target]))
    return frozenset(pairs)


@dataclass(frozen=True)
class _Cut:
    """A flat array as rows of `count` parts of `width` elements."""

    width: int
    count: int

    def part(self, access: Access) -> Const | None:
        """The part in which an access is on all trips; None if it is not in one."""
        if access.index is None or len(access.index) != 1:
            return None
        part = ix.floordiv(ix.mod(access.index[0], self.width * self.count), self.width)
        return part if isinstance(part, Const) else None


def _cut(stores: list[Access]) -> _Cut | None:
    """The parts of a row into which stores inside the same loops write, each at the same place of its own."""
    first, *others = stores
    if not others or first.index is None or len(first.index) != 1:
        return None
    steps = [0]
    for other in others:
        if other.index is None or len(other.index) != 1 or other.loops != first.loops:
            return None
        step = ix.sub(other.index[0], first.index[0])
        if not isinstance(step, Const):
            return None
        steps.append(int(step.value))
    steps.sort()
    width = steps[1] - steps[0]
    return _Cut(width, len(steps)) if width and steps == list(range(steps[0], steps[-1] + 1, width)) else None


def _apart(a: Access, b: Access, cut: _Cut | None) -> bool:
    """Whether two accesses are in different parts of every row."""
    if cut is None:
        return False
    ours, theirs = cut.part(a), cut.part(b)
    return ours is not None and theirs is not None and ours.value != theirs.value


def _overwritten(load: Access, stores: list[Access], cut: _Cut | None) -> bool:
    """Whether the store that is made where `load` is made overwrites what that has read."""
    here = [store for store in stores if not _exclude(load, store) and not _apart(load, store, cut)]
    return bool(here) and all(_overwritten_later(load, store) for store in here)


def _exclude(a: Access, b: Access) -> bool:
    """Whether one is made under a condition and the other under its negation, inside the same loops."""
    return any(
        outside == others and a.loops[:outside] == b.loops[:outside] and (_negates(x, y) or _negates(y, x))
        for x, outside in a.conditions
        for y, others in b.conditions
    )


def _negates(a: Expr, b: Expr) -> bool:
    return isinstance(a, Unary) and a.op == "not" and same_expr(a.x, b, {})


def _writes_once(kernel: Kernel, stores: list[Access], lets: dict[Local, Expr], cut: _Cut | None) -> bool:
    """Whether there is one store (or several that exclude each other, with the same index, or that write
    different parts), and its index follows every loop around it (and the task)."""
    first = stores[0].index
    if first is None:
        return False
    for number, store in enumerate(stores[1:], 1):
        for other in stores[:number]:
            if not (_exclude(store, other) and _same_place(store, other)) and not _apart(store, other, cut):
                return False
    found: set[Expr] = set()
    stack = list(first)
    while stack:
        for e in walk(stack.pop()):
            if e not in found:
                found.add(e)
                if isinstance(e, Local) and e in lets:
                    stack.append(lets[e])
    needed = {loop.var for loop in stores[0].loops if not _is_one(loop.extent)}
    if kernel.tasks > 1:
        needed.add(kernel.task)
    return needed <= found


def _is_one(extent: Expr) -> bool:
    return isinstance(extent, Const) and extent.value == 1


def _overwritten_later(load: Access, store: Access) -> bool:
    """Whether each location of `load` is met again by `store`, in the same task and not earlier."""
    return load.order <= store.order and _same_place(load, store, extents=True)


def _same_place(a: Access, b: Access, extents: bool = False) -> bool:
    """Whether two accesses have the same index, in their own loops or shared ones; with `extents`, their own
    loops have the same ranges too."""
    if a.index is None or b.index is None or len(a.loops) != len(b.loops):
        return False
    renamed: dict[Var, Var] = {}
    for ours, theirs in zip(a.loops, b.loops, strict=True):
        if ours is theirs and not renamed:
            continue  # a shared outer loop
        if extents and not same_expr(ours.extent, theirs.extent, renamed):
            return False
        renamed[ours.var] = theirs.var
    return all(same_expr(x, y, renamed) for x, y in zip(a.index, b.index, strict=True))


def same_expr(a: Expr, b: Expr, renamed: dict[Var, Var]) -> bool:
    """Structural equality of two index expressions, reading variables of `a` through `renamed`."""
    pairs = [(a, b)]
    while pairs:
        a, b = pairs.pop()
        if isinstance(a, Var):
            if renamed.get(a, a) is not b:
                return False
        elif a is b:
            if renamed and any(isinstance(e, Local) or e in renamed for e in walk(a)):
                return False  # the same text in two loops: its variables mean different things
        elif isinstance(a, Const) and isinstance(b, Const):
            if a.dtype is not b.dtype or a.value != b.value:
                return False
        elif isinstance(a, Binary) and isinstance(b, Binary) and a.op == b.op:
            pairs += [(a.a, b.a), (a.b, b.b)]
        else:
            return False
    return True


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it (shared parts once)."""
    stack, seen = [expr], {expr}
    while stack:
        e = stack.pop()
        yield e
        for child in children(e):
            if child not in seen:
                seen.add(child)
                stack.append(child)


def children(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Load(_, _, index, mask, other):
            return (*index, *(e for e in (mask, other) if e is not None))
        case Address(_, _, index):
            return index
        case Unary(_, _, x) | Cast(_, x):
            return (x,)
        case Binary(_, _, a, b):
            return (a, b)
        case Select(_, condition, a, b):
            return (condition, a, b)
    return ()


def _accesses(kernel: Kernel) -> tuple[dict[Buffer, list[Access]], dict[Buffer, list[Access]]]:
    reads: dict[Buffer, list[Access]] = {}
    writes: dict[Buffer, list[Access]] = {}
    params = set(kernel.params)
    for order, (stmt, around) in enumerate(_nested(kernel.body)):
        loops = tuple(s for s in around if isinstance(s, For))
        conditions = _conditions(around)
        for root in expressions(stmt):
            for e in walk(root):
                if isinstance(e, Load | Address) and e.buffer in params:
                    index = e.index if isinstance(e, Load) else None
                    reads.setdefault(e.buffer, []).append(Access(order, loops, index, conditions))
        if isinstance(stmt, Store | Accumulate) and stmt.buffer in params:
            writes.setdefault(stmt.buffer, []).append(Access(order, loops, stmt.index, conditions))
        if isinstance(stmt, Accumulate) and stmt.buffer in params:
            reads.setdefault(stmt.buffer, []).append(Access(order, loops, stmt.index, conditions))
        if isinstance(stmt, Tile) and stmt.c.buffer in params:
            writes.setdefault(stmt.c.buffer, []).append(Access(order, loops, None, conditions))
    return reads, writes


def _conditions(around: tuple[For | If, ...]) -> tuple[tuple[Expr, int], ...]:
    found = []
    loops = 0
    for stmt in around:
        if isinstance(stmt, If):
            found.append((stmt.condition, loops))
        else:
            loops += 1
    return tuple(found)


def statements(body: Block) -> Iterator[tuple[Stmt, tuple[For, ...]]]:
    """Every statement with its enclosing loops, in textual order."""
    for stmt, around in _nested(body):
        yield stmt, tuple(s for s in around if isinstance(s, For))


def _nested(body: Block) -> Iterator[tuple[Stmt, tuple[For | If, ...]]]:
    """Every statement with the loops and conditions around it, in textual order."""
    stack: list[tuple[Stmt, tuple[For | If, ...]]] = [(s, ()) for s in reversed(body)]
    while stack:
        stmt, around = stack.pop()
        yield stmt, around
        if isinstance(stmt, For | If):
            stack += [(s, (*around, stmt)) for s in reversed(stmt.body)]


def _asked(tile: Tile) -> tuple[Expr, ...]:
    """The expressions in a tile's fetch."""
    if tile.fetch is None:
        return ()
    return (tile.fetch.at,) if isinstance(tile.fetch, Listed) else (tile.fetch.at, tile.fetch.step)


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions directly in a statement (not those of nested statements)."""
    match stmt:
        case For(_, extent, _, _, _):
            return (extent,)
        case Let(_, value):
            return (value,)
        case Store(_, index, value) | Accumulate(_, index, _, value):
            return (*index, value)
        case Note(_, slot, _, index):
            return (slot, *index)
        case Prefetch(_, index, _):
            return index
        case Check(condition, _) | If(condition, _):
            return (condition,)
        case Tile():
            fetch = _asked(stmt)
            walk = () if stmt.walk is None else (stmt.walk.at,)
            sizes = (stmt.depth, stmt.a_row, stmt.a_step, stmt.b_step, stmt.c_row)
            return (*sizes, stmt.a, stmt.b, stmt.c, *walk, *fetch)
        case Alloc(_):
            return ()
    raise TypeError(f"unknown statement {type(stmt).__name__}")
