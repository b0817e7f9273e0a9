"""Loops of what runs along an axis: each element takes the values of the one before it further."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod

from graphc.ir.node import Node
from graphc.ir.types import int32, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Const, Expr, Store, binary, cast, load, select, unary
from graphc.loop.lower.box import enter, make_box
from graphc.loop.lower.evaluate import Evaluator, LoweringError
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Grid, lanes_for
from graphc.loop.lower.scope import Scope

LINES = 4  # side by side: the cycles of an addition; more would press each other out of L1
Values = tuple[Expr, ...]  # what one element hands to the next: of these the last is stored
Operands = Callable[[Expr], list[tuple[Expr, Values]]]  # each line's place and values at a position
Step = Callable[[Values | None, Values, Expr], Values]  # (from the element before, operands here, position)


def write_running(
    scope: Scope, frame: Frame, evaluator: Evaluator, node: Node, wanted: int, width: int
) -> None:
    """Lines along the axis are independent; vectors run across them where they are neighbours, else several
    are worked through side by side: each step waits for the one before it in its line."""
    axis, reverse = node.attrs.axis, getattr(node.attrs, "reverse", False)
    outer, length, inner = prod(node.shape[:axis]), node.shape[axis], prod(node.shape[axis + 1 :])
    vector = 2 if inner >= 4 else None
    together = 1 if vector else math.gcd(outer, LINES)
    dims = (outer // together, together, inner)
    unroll = (1,) if together > 1 else ()
    box = make_box(dims, vector, lanes_for(max(inner, 2), width, 1), wanted, unroll)
    frame.set_tasks(box.tasks)
    step = _step_of(node, length)
    with enter(scope, box, frame.task()) as first:
        lines = [ix.unflatten(ix.add(first, offset), (outer, inner)) for offset in box.offsets]

        def operands(at: Expr) -> list[tuple[Expr, Values]]:
            """For each line, the place of its element at this position, and the values there."""
            places = [ix.flatten((o, at, i), (outer, length, inner)) for o, i in lines]
            index = [ix.unflatten(place, node.shape) for place in places]
            values = [tuple([evaluator.value(x, i) for x in node.inputs]) for i in index]
            return list(zip(places, values, strict=True))

        start = ix.const(length - 1 if reverse else 0)
        states: list[tuple[Buffer, ...]] = []
        for place, values in operands(start):
            made = step(None, values, start)
            states.append(tuple([scope.alloc("acc", value.dtype, (), "local") for value in made]))
            _keep(scope, frame, node, states[-1], made, place)

        def advance(at: Expr) -> None:
            for state, (place, values) in zip(states, operands(at), strict=True):
                before = tuple([scope.let(load(local, ())) for local in state])
                _keep(scope, frame, node, state, step(before, values, at), place)

        extreme = node.op.name in ("running_arg", "running_extreme")
        if extreme and vector is None and _blocks_pay(length, 2 * width, together):
            _in_blocks(scope, frame, node, states, operands, advance, 2 * width)
        elif length > 1:
            with scope.loop("j", length - 1) as j:
                advance(ix.sub(length - 2, j) if reverse else ix.add(j, 1))


def _blocks_pay(length: int, size: int, lines: int) -> bool:
    """Whether most blocks of values in any order have no new extreme: the n-th of a line has one in one of n
    cases."""
    blocks = (length - 1) // size
    return blocks > 1 and lines * (1 + math.log(blocks)) <= blocks / 2


def _in_blocks(
    scope: Scope,
    frame: Frame,
    node: Node,
    states: list[tuple[Buffer, ...]],
    operands: Operands,
    advance: Callable[[Expr], None],
    size: int,
) -> None:
    """Running extremes, or their positions, after the first: blocks of elements without a new extreme, in any
    of the lines, are compared and written in vectors; the others element by element. Extremes get rare along
    a line."""
    length = node.shape[node.attrs.axis]
    blocks = Grid(length - 1, size)
    with scope.loop("b", blocks.tasks) as block:
        extent = blocks.extent(block)

        def at(e: Expr) -> Expr:
            return ix.below(ix.add(ix.add(ix.mul(block, size), e), 1), length)

        some = scope.alloc("some", int32, (), "local")
        scope.put(Store(some, (), Const(int32, 0)))
        bests = [scope.let(load(best, ()), "best") for best, *_ in states]
        with scope.loop("e", extent, size, "vector", size) as e:
            for best, (_, (x,)) in zip(bests, operands(at(e)), strict=True):
                new = _better(scope.let(x), best, node.attrs.largest)
                scope.put(Accumulate(some, (), "or", select(new, Const(int32, 1), Const(int32, 0))))
        any_new = scope.let(load(some, ()), "new")
        with scope.when(binary("eq", any_new, Const(int32, 0))):
            founds = [scope.let(cast(load(found, ()), node.dtype), "found") for *_, found in states]
            with scope.loop("e", extent, size, "vector", size) as e:
                for found, (place, _) in zip(founds, operands(at(e)), strict=True):
                    frame.store(scope, node, place, found)
        with scope.when(binary("ne", any_new, Const(int32, 0))), scope.loop("e", extent, size) as e:
            advance(at(e))


def _keep(
    scope: Scope, frame: Frame, node: Node, state: tuple[Buffer, ...], made: Values, place: Expr
) -> None:
    """Hand the values on, and store the last of them."""
    made = tuple([scope.let(value) for value in made])
    for local, value in zip(state, made, strict=True):
        scope.put(Store(local, (), value))
    frame.store(scope, node, place, cast(made[-1], node.dtype))


def _step_of(node: Node, length: int) -> Step:
    """How an element follows from the one before it."""
    match node.op.name:
        case "cumsum":
            return lambda before, here, at: here if before is None else (binary("add", before[0], here[0]),)
        case "recurrence":
            return _recurrence
        case "running_arg":
            return _place_of_extreme(node.attrs.largest, length)
        case "running_extreme":
            return _extreme(node.attrs.largest)
    raise LoweringError(f"no loops for {node!r}")


def _recurrence(before: Values | None, here: Values, at: Expr) -> Values:
    scale, x = here
    return (x,) if before is None else (binary("add", binary("mul", scale, before[0]), x),)


def _better(x: Expr, best: Expr, largest: bool) -> Expr:
    """Whether an element is the extreme of those so far: also if it is equal, or NaN."""
    better = binary("ge" if largest else "le", x, best)
    return binary("or", better, unary("isnan", x)) if x.dtype.is_float else better


def _extreme(largest: bool) -> Step:
    """The extreme so far."""

    def step(before: Values | None, here: Values, at: Expr) -> Values:
        (x,) = here
        return here if before is None else (select(_better(x, before[0], largest), x, before[0]),)

    return step


def _place_of_extreme(largest: bool, length: int) -> Step:
    """The extreme so far, and where it is, in as few bits as positions need."""
    kind = int32 if length < 2**31 else int64

    def step(before: Values | None, here: Values, at: Expr) -> Values:
        (x,), place = here, cast(at, kind)
        if before is None:
            return x, Const(kind, 0)
        better = _better(x, before[0], largest)
        return select(better, x, before[0]), select(better, place, before[1])

    return step
