"""Index arithmetic: int64 expressions in one canonical form, simplified with the ranges of variables.

An index expression is a sum of integer multiples of *atoms* plus a constant. An atom is a variable, or
anything that is not such a sum: a floor division or a remainder that could not be resolved, a loaded
number, a product of two expressions. Equal sums are the same object, so equality of indices is `is`.
The rules that matter::

    (16*i + j) // 16  ->  i      when 0 <= j < 16          x // 3 // 4        ->  x // 12
    (16*i + j) %  16  ->  j                                (x % 12) // 3      ->  (x // 3) % 4
    (4*i + j) // 8    ->  i // 2 when 0 <= j < 4           4*(x // 4) + x % 4 ->  x

so that chains of reshapes, transposes and slices come out as plain strides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from graphc.ir.types import bool_, int64
from graphc.loop.ir import COMPARE_OPS, ONE, TRUE, ZERO, Binary, Cast, Const, Expr, Load, Select, Unary, Var

Index = tuple[Expr, ...]
FALSE = Const(bool_, False)
INF = math.inf

_interned: WeakValueDictionary[tuple, Expr] = WeakValueDictionary()
_sequence = itertools.count()
_ITSELF = object()  # in place of a reference to the expression that holds it


class Form(NamedTuple):
    """An expression as constant + sum of coefficient * atom, and its range [low, high]."""

    terms: tuple[tuple[Expr, int], ...]
    constant: int
    low: float
    high: float


# ------------------------------------------------------------------- the form of an expression


def form(expr: Expr) -> Form:
    """The canonical sum that `expr` is. Remembered on the expression itself, which never changes.

    (Of an atom, only its range is remembered: an expression that refers to itself would have to wait for the
    garbage collector, and most live very shortly.)
    """
    known = expr.__dict__.get("_form")
    if type(known) is Form:
        return known
    if known is not None:
        return Form(((expr, 1),), 0, *known)
    found = _compute_form(expr)
    is_atom = len(found.terms) == 1 and found.terms[0][0] is expr
    expr.__dict__["_form"] = (found.low, found.high) if is_atom else found
    return found


def _compute_form(expr: Expr) -> Form:
    if isinstance(expr, Const):
        value = int(expr.value)
        return Form((), value, value, value)
    if isinstance(expr, Binary) and expr.dtype is int64:
        a, b = canonical(expr.a), canonical(expr.b)
        match expr.op:
            case "add":
                return form(add(a, b))
            case "sub":
                return form(sub(a, b))
            case "mul" if isinstance(a, Const) or isinstance(b, Const):
                return form(mul(a, b))
            case "div" | "rem" if isinstance(b, Const) and int(b.value) > 0:
                by = int(b.value)
                return form(floordiv(a, by) if expr.op == "div" else mod(a, by))
        return form(_atom(expr.op, a, b))
    return _atom_form(expr)


def _atom_form(expr: Expr) -> Form:
    low, high = _atom_range(expr)
    return Form(((expr, 1),), 0, low, high)


def _atom_range(expr: Expr) -> tuple[float, float]:
    if isinstance(expr, Var):
        return 0, max(expr.extent - 1, 0)
    if isinstance(expr, Binary):
        if expr.op == "rem" and isinstance(expr.b, Const) and expr.b.value > 0:
            return 0, min(int(expr.b.value) - 1, max(form(expr.a).high, 0) if form(expr.a).low >= 0 else INF)
        if expr.op == "div" and isinstance(expr.b, Const) and expr.b.value > 0:
            inner, by = form(expr.a), int(expr.b.value)
            return _floor(inner.low, by), _floor(inner.high, by)
        if expr.op in ("min", "max"):
            a, b = form(expr.a), form(expr.b)
            pick = min if expr.op == "min" else max
            return pick(a.low, b.low), pick(a.high, b.high)
    if isinstance(expr, Cast) and expr.x.dtype is bool_:
        return 0, 1
    return -INF, INF


def _floor(value: float, by: int) -> float:
    return value if math.isinf(value) else int(value) // by


def _intern(key: tuple, build: Callable[[], Expr]) -> Expr:
    known = _interned.get(key)
    if known is None:
        known = _interned[key] = build()
    return known


def _atom(op: str, a: Expr, b: Expr) -> Expr:
    """The one int64 operation `op` on canonical operands that stands for itself in sums."""
    key = (op, a, b)
    known = _interned.get(key)
    if known is None:
        known = _interned[key] = Binary(int64, op, a, b)
        known.__dict__["_form"] = _atom_range(known)
    return known


def _number(atom: Expr) -> int:
    """Atoms are ordered by first appearance, which makes sums canonical and printed text deterministic."""
    number = atom.__dict__.get("_number")
    if number is None:
        number = atom.__dict__["_number"] = next(_sequence)
    return number


def const(value: int) -> Const:
    """The one int64 constant of this value."""
    if value == 0:
        return ZERO
    if value == 1:
        return ONE
    return _intern(("const", value), lambda: Const(int64, value))  # type: ignore[return-value]


def _build(terms: Mapping[Expr, int], constant: int) -> Expr:
    """The canonical expression of a sum; coefficients may be zero."""
    live = {a: k for a, k in terms.items() if k}
    if len(live) > 1:
        constant += _recombine(live)
    if not live:
        return const(constant)
    if len(live) == 1 and constant == 0:
        ((atom, k),) = live.items()
        if k == 1:
            return atom
    ordered = tuple(sorted(live.items(), key=lambda t: (-abs(t[1]), _number(t[0]))))
    return _intern(("sum", ordered, constant), lambda: _sum(ordered, constant))


def _sum(ordered: tuple[tuple[Expr, int], ...], constant: int) -> Expr:
    expr: Expr | None = None
    for atom, k in ordered:
        term = atom if k == 1 else Binary(int64, "mul", atom, const(k))
        expr = term if expr is None else Binary(int64, "add", expr, term)
    assert expr is not None
    if constant:
        base = form(_build(dict(ordered), 0))  # whose range may be known better: see `below`
        expr = Binary(int64, "add", expr, const(constant))
        expr.__dict__["_form"] = Form(ordered, constant, base.low + constant, base.high + constant)
        return expr
    low: float = 0
    high: float = 0
    for atom, k in ordered:
        a, b = _atom_range(atom)
        low += k * (a if k > 0 else b)
        high += k * (b if k > 0 else a)
    expr.__dict__["_form"] = Form(ordered, constant, low, high)
    return expr


def _recombine(terms: dict[Expr, int]) -> int:
    """k*(x % c) + k*c*(x // c) -> k*x, in place; gives the constant that comes out."""
    constant = 0
    pending = True
    while pending:
        pending = False
        for atom, k in list(terms.items()):
            if not (isinstance(atom, Binary) and atom.op == "rem" and isinstance(atom.b, Const)):
                continue
            by = int(atom.b.value)
            whole = floordiv(atom.a, by)
            if terms.get(whole) == k * by:
                del terms[atom], terms[whole]
                inner = form(atom.a)
                constant += k * inner.constant
                for a, c in inner.terms:
                    terms[a] = terms.get(a, 0) + k * c
                    if not terms[a]:
                        del terms[a]
                pending = True
                break
    return constant


# ----------------------------------------------------------------------------- constructors


def lift(value: Expr | int) -> Expr:
    """An int as an expression; expressions as they are."""
    return const(value) if isinstance(value, int) else value


def canonical(expr: Expr | int) -> Expr:
    """The same value in canonical form (the one object for that sum)."""
    if isinstance(expr, int):
        return const(expr)
    if isinstance(expr, Var):
        return expr
    known = expr.__dict__.get("_canonical")
    if known is _ITSELF:
        return expr
    if known is None:
        if isinstance(expr, Binary) and expr.op in COMPARE_OPS and expr.a.dtype is int64:
            known = compare(expr.op, expr.a, expr.b)
        elif isinstance(expr, Binary) and expr.dtype is bool_ and expr.op in ("and", "or"):
            known = (both if expr.op == "and" else either)(canonical(expr.a), canonical(expr.b))
        elif isinstance(expr, Unary) and expr.op == "not":
            known = negate(canonical(expr.x))
        elif isinstance(expr, Cast):
            inner = canonical(expr.x)
            known = _intern(("cast", expr.dtype, inner), lambda: Cast(expr.dtype, inner))
        elif isinstance(expr, Select):
            parts = (canonical(expr.condition), canonical(expr.a), canonical(expr.b))
            known = _intern(("select", *parts), lambda: Select(expr.dtype, *parts))
        elif expr.dtype is int64 and isinstance(expr, Const | Binary):
            sums = form(expr)
            known = _build(dict(sums.terms), sums.constant)
        else:
            known = expr
        expr.__dict__["_canonical"] = _ITSELF if known is expr else known
    return known


def add(a: Expr | int, b: Expr | int) -> Expr:
    x, y = form(lift(a)), form(lift(b))
    terms = dict(x.terms)
    for atom, k in y.terms:
        terms[atom] = terms.get(atom, 0) + k
    return _build(terms, x.constant + y.constant)


def sub(a: Expr | int, b: Expr | int) -> Expr:
    return add(a, mul(b, -1))


def mul(a: Expr | int, b: Expr | int) -> Expr:
    x, y = form(lift(a)), form(lift(b))
    if x.terms and y.terms:
        left, right = canonical(lift(a)), canonical(lift(b))
        return _atom("mul", left, right)
    if x.terms:
        x, y = y, x
    k = x.constant
    return _build({atom: c * k for atom, c in y.terms}, y.constant * k)


def floordiv(a: Expr | int, by: int) -> Expr:
    """a // by for a positive constant."""
    if by == 1:
        return canonical(a)
    quotient, rest = _split(form(lift(a)), by)
    return add(quotient, _divide(rest, by)) if rest is not None else quotient


def mod(a: Expr | int, by: int) -> Expr:
    """a % by for a positive constant."""
    if by == 1:
        return ZERO
    _, rest = _split(_unwrap(form(lift(a)), by), by)
    return ZERO if rest is None else _remainder(rest, by)


def _split(sums: Form, by: int) -> tuple[Expr, Expr | None]:
    """(q, r) with value = by*q + r, where r has no term or constant that `by` divides."""
    quotient = {a: k // by for a, k in sums.terms if k % by == 0}
    rest = {a: k for a, k in sums.terms if k % by}
    whole, constant = divmod(sums.constant, by)
    q = _build(quotient, whole)
    if not rest and not constant:
        return q, None
    return q, _build(rest, constant)


def _divide(rest: Expr, by: int) -> Expr:
    """rest // by, for a rest of `_split`."""
    sums = form(rest)
    low, high = _floor(sums.low, by), _floor(sums.high, by)
    if low == high and not math.isinf(low):
        return const(int(low))
    major, minor, step = _layers(sums, by)
    if step > 1:
        return floordiv(_whole(sums, major, minor, step), by // step)
    if len(sums.terms) == 1 and sums.constant == 0 and sums.terms[0][1] == 1:
        atom = sums.terms[0][0]
        if isinstance(atom, Binary) and isinstance(atom.b, Const):
            inner = int(atom.b.value)
            if atom.op == "div":
                return floordiv(atom.a, inner * by)
            if atom.op == "rem" and inner % by == 0:
                return mod(floordiv(atom.a, by), inner // by)
    return _atom("div", rest, const(by))


def _remainder(rest: Expr, by: int) -> Expr:
    """rest % by, for a rest of `_split`."""
    sums = form(rest)
    low, high = _floor(sums.low, by), _floor(sums.high, by)
    if low == high and not math.isinf(low):
        return add(rest, -int(low) * by)
    major, minor, step = _layers(sums, by)
    if step > 1:
        carried = mod(_whole(sums, major, minor, step), by // step)
        return add(mul(carried, step), mod(minor, step))
    return _atom("rem", rest, const(by))


def _layers(sums: Form, by: int) -> tuple[Expr, Expr, int]:
    """(major, minor, step): the sum is step*major + minor, and `step` divides `by`.

    As many terms as possible are major, which makes the result the same whichever way a position was
    divided before; step 1 if no term can be.
    """
    terms = sorted(sums.terms, key=lambda t: -abs(t[1]))
    for cut in range(len(terms), 0, -1):
        step = math.gcd(by, *[k for _, k in terms[:cut]])
        if step > 1:
            whole, constant = divmod(sums.constant, step)
            major = _build({a: k // step for a, k in terms[:cut]}, whole)
            return major, _build(dict(terms[cut:]), constant), step
    return ZERO, ZERO, 1


def _whole(sums: Form, major: Expr, minor: Expr, step: int) -> Expr:
    """(step*major + minor) // step, with what is known of the range of that sum (see `below`)."""
    quotient, high = add(major, floordiv(minor, step)), _floor(sums.high, step)
    return quotient if math.isinf(high) else below(quotient, int(high) + 1)


def _unwrap(sums: Form, by: int) -> Form:
    """k*(x % c) -> k*x inside a remainder by a divisor of k*c."""
    terms: dict[Expr, int] = {}
    constant, changed = sums.constant, False
    for atom, k in sums.terms:
        is_rem = isinstance(atom, Binary) and atom.op == "rem" and isinstance(atom.b, Const)
        if is_rem and (k * int(atom.b.value)) % by == 0:  # type: ignore[attr-defined]
            inner = form(atom.a)  # type: ignore[attr-defined]
            constant += k * inner.constant
            for a, c in inner.terms:
                terms[a] = terms.get(a, 0) + k * c
            changed = True
        else:
            terms[atom] = terms.get(atom, 0) + k
    return form(_build(terms, constant)) if changed else sums


def below(expr: Expr, extent: int) -> Expr:
    """`expr`, of which is known that it is less than `extent` wherever it is computed: the place in a range
    whose last block is shorter than the others."""
    expr = canonical(expr)
    sums = form(expr)
    if len(sums.terms) > 1 and sums.high >= extent:
        expr.__dict__["_form"] = sums._replace(high=extent - 1)  # of this sum of these very variables
    return expr


def minimum(a: Expr | int, b: Expr | int) -> Expr:
    x, y = canonical(a), canonical(b)
    if form(x).high <= form(y).low:
        return x
    if form(y).high <= form(x).low:
        return y
    return _atom("min", x, y)


# ------------------------------------------------------------------------------ conditions

_ALWAYS = {  # op -> (true when the difference a - b lies in this range, false when in that one)
    "lt": ((-INF, -1), (0, INF)),
    "le": ((-INF, 0), (1, INF)),
    "gt": ((1, INF), (-INF, 0)),
    "ge": ((0, INF), (-INF, -1)),
    "eq": ((0, 0), None),
    "ne": (None, (0, 0)),
}


def compare(op: str, a: Expr | int, b: Expr | int) -> Expr:
    """a comparison of index expressions; TRUE or FALSE where ranges decide it."""
    difference = sub(a, b)
    sums = form(difference)
    for span, answer in zip(_ALWAYS[op], (TRUE, FALSE), strict=True):
        if span is not None and span[0] <= sums.low and sums.high <= span[1]:
            return answer
    if op in ("eq", "ne") and (sums.low > 0 or sums.high < 0):
        return FALSE if op == "eq" else TRUE
    left, right = _build(dict(sums.terms), 0), const(-sums.constant)
    return _intern((op, left, right), lambda: Binary(bool_, op, left, right))


def is_true(condition: Expr | None) -> bool:
    return condition is None or (isinstance(condition, Const) and bool(condition.value))


def is_false(condition: Expr | None) -> bool:
    return isinstance(condition, Const) and not condition.value


def both(a: Expr, b: Expr) -> Expr:
    if is_true(a) or is_false(b) or a is b:
        return b
    if is_true(b) or is_false(a):
        return a
    return _intern(("and", a, b), lambda: Binary(bool_, "and", a, b))


def either(a: Expr, b: Expr) -> Expr:
    if is_true(a) or is_false(b) or a is b:
        return a
    if is_true(b) or is_false(a):
        return b
    return _intern(("or", a, b), lambda: Binary(bool_, "or", a, b))


def negate(a: Expr) -> Expr:
    if isinstance(a, Const):
        return FALSE if a.value else TRUE
    return _intern(("not", a), lambda: Unary(bool_, "not", a))


def all_of(conditions: Iterable[Expr]) -> Expr:
    result: Expr = TRUE
    for c in conditions:
        result = both(result, c)
    return result


def inside(index: Expr, extent: int) -> Expr:
    """0 <= index < extent."""
    return both(compare("ge", index, 0), compare("lt", index, extent))


# ------------------------------------------------------------------------- shapes, questions


def flatten(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The row-major position of an index in an array of this shape."""
    if len(index) == 1:
        return canonical(index[0])
    terms: dict[Expr, int] = {}
    constant, stride = 0, 1
    for i, extent in zip(reversed(index), reversed(shape), strict=True):
        sums = form(i)
        constant += stride * sums.constant
        for atom, k in sums.terms:
            terms[atom] = terms.get(atom, 0) + stride * k
        stride *= extent
    return _build(terms, constant)


def unflatten(position: Expr, shape: Sequence[int]) -> Index:
    """The index at a row-major position; axes of extent 1 get 0, and a shape of no axes the empty index."""
    index: list[Expr] = []
    live = [d for d, extent in enumerate(shape) if extent != 1]
    for d in range(len(shape) - 1, -1, -1):
        if shape[d] == 1:
            index.append(ZERO)
        elif d == live[0]:
            index.append(canonical(position))
        else:
            index.append(mod(position, shape[d]))
            position = floordiv(position, shape[d])
    return tuple(reversed(index))


def linear(expr: Expr, var: Var) -> int | None:
    """The coefficient of `var` in an index expression; None if the expression is not linear in it."""
    total = 0
    for atom, k in form(expr).terms:
        if atom is var:
            total = k
        elif depends(atom, var):
            return None
    return total


def depends(expr: Expr, var: Var) -> bool:
    """Whether `var` occurs in `expr`. (What a `Local` stands for is not looked into.)"""
    return var in variables(expr)


def variables(expr: Expr) -> frozenset[Expr]:
    """The variables and locals that occur in an expression."""
    known = expr.__dict__.get("_variables")
    if known is None:
        known = _find_variables(expr)
        if expr not in known:  # a variable would refer to itself
            expr.__dict__["_variables"] = known
    return known


def _find_variables(expr: Expr) -> frozenset[Expr]:
    found: set[Expr] = set()
    seen: set[Expr] = set()
    stack = [expr]
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        known = e.__dict__.get("_variables")
        if known is not None:
            found |= known
        elif parts := operands(e):
            stack.extend(parts)
        elif not isinstance(e, Const):
            found.add(e)
    return frozenset(found)


def operands(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside an expression."""
    if isinstance(expr, Binary):
        return (expr.a, expr.b)
    if isinstance(expr, Unary | Cast):
        return (expr.x,)
    if isinstance(expr, Select):
        return (expr.condition, expr.a, expr.b)
    if isinstance(expr, Load):
        return (*expr.index, *[e for e in (expr.mask, expr.other) if e is not None])
    return tuple(getattr(expr, "index", ()))  # an Address
