"""Pull-based evaluation of a group's nodes at an index, down to loads of the group's inputs.

Every op's own lowering rule is used, so this knows kinds of ops only. Shared subexpressions are computed
once, each in the outermost loop where it can be (see `scope.py`). Reductions and other values that are not
functions of one index must be bound by whoever writes their loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.ir.node import Kind, Node, freeze
from graphc.ir.types import DType, bool_
from graphc.loop import index as ix
from graphc.loop.ir import Binary, Buffer, Cast, Const, Expr, Load, Select, Unary, load, select
from graphc.loop.lower.scope import Scope
from graphc.ops.op import INJECTIVE

Index = tuple[Expr, ...]


class LoweringError(Exception):
    """A group that no loop nest computes: fusion and lowering disagree (a bug, not a user's mistake)."""


class Want(NamedTuple):
    """The value of `node` at `index`; where `mask` is false, `other` (None: any value, memory untouched)."""

    node: Node
    at: Index
    mask: Expr | None
    other: Expr | None


class _Missing(Exception):
    """A rule asked for a value that is not there yet: compute it and try again."""

    def __init__(self, want: Want) -> None:
        self.want = want


class Evaluator:
    """Evaluates nodes into a Scope.

    buffer(node)   the buffer of a group input; its shape is the node's, or flat
    inputs         the nodes that are read from memory
    computed       is told every value that is computed by an op's rule
    """

    computed: Callable[[Node, Index, Expr], None] | None = None

    def __init__(self, scope: Scope, inputs: Sequence[Node], buffer: Callable[[Node], Buffer]) -> None:
        self.scope = scope
        self.inputs = frozenset(inputs)
        self.buffer = buffer
        self._bound: set[Node] = set()

    def bind(self, node: Node, index: Sequence[Expr], value: Expr) -> None:
        """Give the value of a node at an index, for the rest of the innermost open block."""
        self._bound.add(node)
        self.scope.remember((node, ix.flatten(index, node.shape)), value)

    def value(
        self, node: Node, index: Sequence[Expr], mask: Expr | None = None, other: Expr | None = None
    ) -> Expr:
        """The value of `node` at `index`; where the bool expression `mask` is false, `other`."""
        goal = _want(node, index, mask, other)
        stack = [goal]
        while stack:
            if self.scope.known(stack[-1]) is not None:
                stack.pop()
                continue
            missing = self._compute(stack[-1])
            if missing:
                stack.extend(missing)
            else:
                stack.pop()
        result = self.scope.known(goal)
        assert result is not None
        return result

    def _compute(self, want: Want) -> list[Want]:
        """Compute one value, or say what it needs first."""
        node, index, mask, other = want
        if mask is not None and ix.is_false(mask):
            self.scope.bind(want, other if other is not None else dummy(node.dtype))
            return []
        if node in self._bound:
            fixed = self.scope.known((node, ix.flatten(index, node.shape)))
            if fixed is not None:
                self.scope.remember(want, self._choose(want, fixed))
                return []
        if node in self.inputs:
            self.scope.bind(want, self._load(want))
            return []
        if node.kind not in INJECTIVE and node.kind is not Kind.CONSTANT:
            self.scope.bind(want, self._choose(want, self.unbound(want)))
            return []
        return self._apply(want)

    def unbound(self, want: Want) -> Expr:
        """The value of a node that is no function of one index, and that nobody has bound there."""
        raise LoweringError(f"{want.node!r} is read at an index where its loops have not run")

    def _apply(self, want: Want) -> list[Want]:
        """Run the op's lowering rule."""
        node, index, mask, _ = want
        if node.kind is Kind.ELEMENTWISE:
            wanted = [Want(x, index, mask, None) for x in node.inputs]
            missing = [w for w in wanted if self.scope.known(w) is None]
            if missing:
                return missing[::-1]
        is_view = node.kind is Kind.VIEW
        masked_inside = False

        def reader(x: Node) -> Callable[..., Expr]:
            def read(at: Sequence[Expr], inner: Expr | None = None, fill: Expr | None = None) -> Expr:
                nonlocal masked_inside
                if inner is not None:
                    masked_inside = True
                    inner = ix.canonical(inner)
                    both = inner if mask is None else ix.both(mask, inner)
                    wanted = _want(x, at, both, fill)
                else:
                    wanted = _want(x, at, mask, want.other if is_view else None)
                result = self.scope.known(wanted)
                if result is None:
                    raise _Missing(wanted)
                return result

            def read_named(at: Sequence[Expr], mask: Expr | None = None, other: Expr | None = None) -> Expr:
                return read(at, mask, other)

            return read_named

        assert node.op.lower is not None
        try:
            result = node.op.lower(node, index, [reader(x) for x in node.inputs])
        except _Missing as missing_one:
            return [missing_one.want]
        result = self._share(result)
        if not is_view or masked_inside:
            result = self._choose(want, result)
        result = self.scope.bind(want, result)
        if self.computed is not None and mask is None:
            self.computed(node, index, result)
        return []

    def _share(self, value: Expr) -> Expr:
        """`value` with a name for every part that occurs in it more than once."""
        order, uses = _by_dependence(value)
        if all(uses[e] == 1 for e in order):
            return value
        new: dict[Expr, Expr] = {}
        for e in order:
            new[e] = _with_operands(e, new)
            if uses[e] > 1:
                known = self.scope.known(("shared", e))  # in another value before
                new[e] = known if known is not None else self.scope.bind(("shared", e), new[e])
        return new[value]

    @staticmethod
    def _choose(want: Want, value: Expr) -> Expr:
        """`value` where the mask is true, `other` elsewhere."""
        if want.mask is None or want.other is None or value is want.other:
            return value
        return select(want.mask, value, want.other)

    def _load(self, want: Want) -> Expr:
        node, index, mask, other = want
        buffer = self.buffer(node)
        if not node.type.size:
            return other if other is not None else dummy(node.dtype)
        place = index if buffer.shape == node.shape else (ix.flatten(index, node.shape),)
        if mask is None:
            return load(buffer, place)
        return load(buffer, place, mask, other if other is not None else dummy(node.dtype))


def dummy(dtype: DType) -> Const:
    """What a masked-off operand is when nobody cares."""
    return Const(dtype, False if dtype is bool_ else (0.0 if dtype.is_float else 0))


def _want(node: Node, index: Sequence[Expr], mask: Expr | None, other: Expr | None) -> Want:
    at = tuple(
        [ix.ZERO if extent == 1 else ix.canonical(i) for i, extent in zip(index, node.shape, strict=True)]
    )
    if mask is not None:
        mask = ix.canonical(mask)
        if ix.is_true(mask):
            mask = None
    if mask is None:
        return Want(node, at, None, None)
    return Want(node, at, mask, _shared(other) if isinstance(other, Const) else other)


_constants: dict[tuple, Const] = {}


def _shared(value: Const) -> Const:
    """One object for equal constants, so that equal wants meet."""
    key = (value.dtype, freeze(value.value))  # by bits: a NaN is equal to itself, 0.0 is not -0.0
    return _constants.setdefault(key, value)


def _by_dependence(value: Expr) -> tuple[list[Expr], dict[Expr, int]]:
    """(the operations in `value`, operands first; how often each occurs as an operand).

    Names, constants, loads and index arithmetic count as atoms.
    """
    uses: dict[Expr, int] = {value: 1}
    order: list[Expr] = []
    done: set[Expr] = set()
    stack = [(value, False)]
    while stack:
        e, ready = stack.pop()
        if ready:
            order.append(e)
            continue
        if e in done:
            continue
        done.add(e)
        stack.append((e, True))
        for x in _parts(e):
            uses[x] = uses.get(x, 0) + 1
            stack.append((x, False))
    return order, uses


def _parts(expr: Expr) -> list[Expr]:
    """The operands that are operations themselves."""
    if isinstance(expr, Load) or "_form" in expr.__dict__:
        return []
    operations = [x for x in ix.operands(expr) if isinstance(x, Unary | Binary | Select | Cast)]
    return [x for x in operations if not _is_index(x)]


def _is_index(expr: Expr) -> bool:
    return "_form" in expr.__dict__ and not isinstance(expr, Cast)


def _with_operands(expr: Expr, new: dict[Expr, Expr]) -> Expr:
    """The operation on renamed operands; itself if none is renamed."""
    old = ix.operands(expr)
    args = [new.get(x, x) for x in old]
    if isinstance(expr, Load) or all(a is b for a, b in zip(args, old, strict=True)):
        return expr
    if isinstance(expr, Unary):
        return Unary(expr.dtype, expr.op, args[0])
    if isinstance(expr, Cast):
        return Cast(expr.dtype, args[0])
    if isinstance(expr, Select):
        return Select(expr.dtype, args[0], args[1], args[2])
    assert isinstance(expr, Binary)
    return Binary(expr.dtype, expr.op, args[0], args[1])
