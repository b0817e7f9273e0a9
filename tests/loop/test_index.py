"""Index simplification never changes a value, and resolves the patterns that views make."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import TRUE, Binary, Const, Expr, Var, index_const


def value_of(expr: Expr, env: dict[Expr, int]) -> int:
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, Var):
        return env[expr]
    assert isinstance(expr, Binary)
    a, b = value_of(expr.a, env), value_of(expr.b, env)
    table = {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "div": lambda: a // b,
        "rem": lambda: a % b,
        "min": lambda: min(a, b),
        "lt": lambda: a < b,
        "le": lambda: a <= b,
        "gt": lambda: a > b,
        "ge": lambda: a >= b,
        "eq": lambda: a == b,
        "ne": lambda: a != b,
        "and": lambda: a and b,
        "or": lambda: a or b,
    }
    return int(table[expr.op]())


VARS = tuple(Var(int64, f"v{i}", e) for i, e in enumerate((2, 3, 4, 6)))
ENVS = [dict(zip(VARS, point, strict=True)) for point in itertools.product(*[range(v.extent) for v in VARS])]


def raw(op: str, a: Expr, b: Expr) -> Expr:
    return Binary(int64, op, a, b)


leaves = st.one_of(st.sampled_from(VARS), st.integers(-7, 7).map(index_const))
positive = st.sampled_from([1, 2, 3, 4, 6, 8, 12]).map(index_const)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(raw, st.sampled_from(["add", "sub"]), inner, inner),
        st.builds(raw, st.just("mul"), inner, st.integers(-6, 6).map(index_const)),
        st.builds(raw, st.sampled_from(["div", "rem"]), inner, positive),
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(trees)
def test_canonical_form_keeps_the_value(tree):
    simple = ix.canonical(tree)
    bounds = ix.form(simple)
    for env in ENVS:
        value = value_of(tree, env)
        assert value_of(simple, env) == value
        assert bounds.low <= value <= bounds.high
    assert ix.canonical(simple) is simple


@settings(max_examples=200, deadline=None)
@given(trees, trees, st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
def test_comparisons_keep_the_value(a, b, op):
    condition = ix.compare(op, a, b)
    for env in ENVS:
        expected = value_of(Binary(TRUE.dtype, op, a, b), env)
        assert value_of(condition, env) == expected


@settings(max_examples=100, deadline=None)
@given(trees)
def test_linear_is_the_difference_quotient(tree):
    for var in VARS:
        slope = ix.linear(tree, var)
        if slope is None:
            continue
        for env in ENVS:
            if env[var] + 1 < var.extent:
                assert value_of(tree, env | {var: env[var] + 1}) - value_of(tree, env) == slope


def test_a_reshape_and_back_is_nothing():
    i, j, k = VARS[1:]
    for middle in [(12, 6), (72,), (3, 24), (1, 3, 2, 12), (2, 36), (9, 8)]:
        position = ix.flatten((i, j, k), (3, 4, 6))
        again = ix.flatten(ix.unflatten(position, middle), middle)
        assert again is position
        assert ix.unflatten(again, (3, 4, 6)) == (i, j, k)


def test_divisions_by_part_of_a_stride():
    i, j = Var(int64, "i", 10), Var(int64, "j", 4)
    assert ix.floordiv(ix.add(ix.mul(i, 4), j), 8) is ix.floordiv(i, 2)
    assert ix.mod(ix.add(ix.mul(i, 16), j), 16) is j
    x = Var(int64, "x", 1000)
    assert ix.floordiv(ix.floordiv(x, 3), 4) is ix.floordiv(x, 12)
    assert ix.floordiv(ix.mod(x, 12), 3) is ix.mod(ix.floordiv(x, 3), 4)
    parts = ix.add(
        ix.add(ix.mul(ix.floordiv(x, 12), 12), ix.mul(ix.mod(ix.floordiv(x, 4), 3), 4)), ix.mod(x, 4)
    )
    assert parts is x
    assert ix.compare("lt", ix.add(i, j), 13) is TRUE


def test_equal_sums_are_one_object():
    i, j = VARS[0], VARS[3]
    assert ix.add(ix.mul(i, 3), j) is ix.add(j, ix.mul(i, 3))
    assert ix.sub(ix.add(i, 5), 5) is i
    assert ix.linear(ix.mul(ix.floordiv(j, 4), 2), j) is None


def test_a_position_is_recognised_however_it_was_divided() -> None:
    """Blocks of 54 or 64 of a range that is walked as (2, 9, 9) or (4, 3, 10): no factor divides another."""
    for block, shape in [(54, (2, 9, 9)), (60, (4, 3, 10)), (12, (4, 3, 10)), (20, (4, 3, 10))]:
        position = ix.add(ix.mul(Var(int64, "t", 3), block), Var(int64, "i", block))
        assert ix.flatten(ix.unflatten(position, shape), shape) is position


def test_a_place_in_a_range_with_a_short_last_block() -> None:
    """Seven blocks of 5 cover range(32): positions divide as if there were no blocks."""
    position = ix.below(ix.add(ix.mul(Var(int64, "t", 7), 5), Var(int64, "i", 5)), 32)
    row = Var(int64, "r", 3)
    place = ix.add(ix.mul(row, 32), position)
    assert ix.floordiv(place, 32) is row
    assert ix.mod(place, 32) is position
    inner = Var(int64, "j", 4)
    assert ix.floordiv(ix.add(ix.mul(place, 4), inner), 128) is row
    assert ix.compare("lt", position, 32) is TRUE
    assert ix.compare("lt", position, 31) is not TRUE
