"""Which kernels may overwrite an operand: proofs, and the near misses that must be refused."""

from __future__ import annotations

from graphc.ir.types import bool_, float32, int64
from graphc.loop.inplace import inplace_pairs
from graphc.loop.ir import (
    Accumulate,
    Alloc,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Local,
    Stmt,
    Store,
    Unary,
    Var,
    binary,
    index_const,
    load,
    unary,
)

N = 64
A, B, OUT = (Buffer(name, float32, (8 * N,)) for name in ("a", "b", "out"))


def loop(var: Var, *body: Stmt, mode: str = "vector") -> For:
    return For(var, index_const(var.extent), tuple(body), mode, 16)  # type: ignore[arg-type]


def var(name: str, extent: int = N) -> Var:
    return Var(int64, name, extent)


def kernel(*body: Stmt, params=(A, B, OUT), tasks: int = 1, task: Var | None = None) -> Kernel:
    return Kernel("k", params, task or var("t", tasks), tasks, body)


def pairs(*body: Stmt, **options) -> set[tuple[str, str]]:
    k = kernel(*body, **options)
    return {(k.params[r].name, k.params[w].name) for r, w in inplace_pairs(k)}


def at(row: Expr, column: Expr) -> Expr:
    return binary("add", binary("mul", row, index_const(N)), column)


def plus(a: Expr, b: Expr) -> Expr:
    return binary("add", a, b)


def test_elementwise() -> None:
    i = var("i")
    assert pairs(loop(i, Store(OUT, (i,), plus(load(A, (i,)), load(B, (i,)))))) == {
        ("a", "out"),
        ("b", "out"),
    }


def test_equal_index_expressions_need_not_be_one_object() -> None:
    t, i = var("t", 8), var("i")
    body = loop(i, Store(OUT, (at(t, i),), load(A, (at(t, i),))))
    assert pairs(body, tasks=8, task=t) == {("a", "out")}


def test_other_index_is_refused() -> None:
    i = var("i")
    shifted = plus(i, index_const(1))
    assert pairs(loop(i, Store(OUT, (i,), load(A, (shifted,))))) == set()
    back = binary("sub", index_const(N - 1), i)
    assert pairs(loop(i, Store(OUT, (i,), plus(load(A, (i,)), load(A, (back,)))))) == set()


def test_broadcast_operand_is_refused() -> None:
    r, i = var("r", 8), var("i")
    body = loop(r, loop(i, Store(OUT, (at(r, i),), plus(load(A, (at(r, i),)), load(B, (i,))))), mode="serial")
    assert pairs(body) == {("a", "out")}


def test_store_that_misses_a_loop_is_refused() -> None:
    """Every task writes the same places: another task may still read them."""
    t, i = var("t", 8), var("i")
    assert pairs(loop(i, Store(OUT, (i,), load(A, (i,)))), tasks=8, task=t) == set()
    r = var("r", 8)
    assert pairs(loop(r, loop(i, Store(OUT, (i,), load(A, (i,)))), mode="serial")) == set()


def rows(first: For, second: For, r: Var) -> For:
    return loop(r, first, second, mode="serial")


def test_earlier_sweep_over_the_row() -> None:
    """Softmax: the maximum of the row, then the row, read again and overwritten."""
    r, i, j = var("r", 8), var("i"), var("j")
    total = Buffer("total", float32, (), "local")
    sweep = loop(i, Accumulate(total, (), "max", load(A, (at(r, i),))))
    write = loop(j, Store(OUT, (at(r, j),), plus(load(A, (at(r, j),)), load(total, ()))))
    body = loop(r, Alloc(total), sweep, write, mode="serial")
    assert pairs(body) == {("a", "out")}


def test_later_sweep_is_refused() -> None:
    r, i, j = var("r", 8), var("i"), var("j")
    total = Buffer("total", float32, (), "local")
    write = loop(j, Store(OUT, (at(r, j),), load(A, (at(r, j),))))
    sweep = loop(i, Accumulate(total, (), "max", load(A, (at(r, i),))))
    assert pairs(rows(write, sweep, r)) == set()


def test_sweep_over_other_rows_is_refused() -> None:
    """The earlier sweep reads the next row as well, which the last iteration has overwritten."""
    r, i, j = var("r", 7), var("i"), var("j")
    total = Buffer("total", float32, (), "local")
    next_row = plus(r, index_const(1))
    sweep = loop(i, Accumulate(total, (), "max", load(A, (at(next_row, i),))))
    write = loop(j, Store(OUT, (at(r, j),), load(A, (at(r, j),))))
    assert pairs(rows(sweep, write, r)) == set()
    shorter = var("s", N - 1)
    sweep = loop(shorter, Accumulate(total, (), "max", load(A, (at(r, shorter),))))
    assert pairs(rows(sweep, write, r)) == set()


def test_load_after_the_store_is_refused() -> None:
    i = var("i")
    other = Buffer("other", float32, (8 * N,))
    stores = (Store(OUT, (i,), load(A, (i,))), Store(other, (i,), unary("exp", load(A, (i,)))))
    assert pairs(loop(i, *stores), params=(A, OUT, other)) == {("a", "other")}


def test_bound_loads_come_before_the_stores() -> None:
    i = var("i")
    other = Buffer("other", float32, (8 * N,))
    x = Local(float32, "x")
    body = loop(i, Let(x, load(A, (i,))), Store(OUT, (i,), x), Store(other, (i,), unary("exp", x)))
    assert pairs(body, params=(A, OUT, other)) == {("a", "out"), ("a", "other")}


def test_accumulating_and_two_stores_are_refused() -> None:
    i = var("i")
    assert pairs(loop(i, Accumulate(OUT, (i,), "add", load(A, (i,))))) == set()
    twice = (Store(OUT, (i,), load(A, (i,))), Store(OUT, (i,), load(A, (i,))))
    assert pairs(loop(i, *twice)) == set()


def test_index_bound_by_let() -> None:
    t, i = var("t", 8), var("i")
    place = Local(int64, "place")
    body = loop(i, Let(place, at(t, i)), Store(OUT, (place,), load(A, (place,))), mode="serial")
    assert pairs(body, tasks=8, task=t) == {("a", "out")}


def test_size_of_elements_must_agree() -> None:
    i = var("i")
    wide = Buffer("wide", int64, (8 * N,))
    assert pairs(loop(i, Store(OUT, (i,), load(wide, (i,)))), params=(wide, OUT)) == set()


def test_branches_that_exclude_each_other() -> None:
    """The same place stored in one branch or the other, in loops of different length."""
    t = var("t", 2)
    first = binary("lt", t, index_const(1))
    there = Unary(bool_, "not", first)

    def branch(condition: Expr, count: int, shift: int = 0) -> If:
        i = var("i", count)
        place = at(t, plus(i, index_const(shift)))
        return If(condition, (loop(i, Store(OUT, (place,), unary("neg", load(A, (place,))))),))

    both = {("a", "out")}
    assert pairs(branch(first, 40), branch(there, 39), task=t) == both
    again = binary("lt", t, index_const(1))
    assert pairs(branch(again, 40), branch(there, 39), task=t) == both
    assert pairs(branch(first, 40), branch(first, 39), task=t) == set()
    assert pairs(branch(first, 40), branch(there, 39, shift=1), task=t) == set()
    k = var("k", 3)
    assert pairs(loop(k, branch(first, 40), branch(there, 39), mode="serial"), task=t) == set()


def test_conditions_of_different_loops_exclude_nothing() -> None:
    """The same text under two loops holds at different times."""
    j = var("j", 8)
    even = binary("lt", j, index_const(4))
    i, k = var("i"), var("k")
    stores = [
        If(c, (loop(v, Store(OUT, (at(j, v),), load(A, (at(j, v),)))),))
        for c, v in ((even, i), (Unary(bool_, "not", even), k))
    ]
    assert pairs(loop(j, *stores, mode="serial")) == {("a", "out")}
    assert pairs(*(loop(j, s, mode="serial") for s in stores)) == set()


def test_a_load_outside_of_the_branches_is_read_first() -> None:
    t, i, j = var("t", 2), var("i", 40), var("j", 40)
    condition = binary("lt", t, index_const(1))
    stores = [
        If(c, (loop(v, Store(OUT, (at(t, v),), load(A, (at(t, v),)))),))
        for c, v in ((condition, i), (Unary(bool_, "not", condition), j))
    ]
    assert pairs(*stores, task=t) == {("a", "out")}
    late = Let(Local(float32, "late"), load(A, (at(t, index_const(3)),)))
    assert pairs(*stores, late, task=t) == set()


def gates(first: int, second: int, late: bool = False) -> set[tuple[str, str]]:
    """Pairs of a kernel that writes both halves of each row of OUT, after it has read two halves of A, or
    between them (`late`)."""
    r, j = var("r", 4), var("j")
    row = binary("mul", r, index_const(2 * N))

    def half(number: int) -> Expr:
        return plus(plus(row, index_const(number * N)), j)

    stores = Store(OUT, (half(0),), load(A, (half(first),))), Store(OUT, (half(1),), load(A, (half(second),)))
    x = Local(float32, "x")
    ahead = Let(x, load(A, (half(second),)))
    body = stores if late else (ahead, stores[0], Store(OUT, (half(1),), x))
    return pairs(For(r, index_const(4), (loop(j, *body),), "serial", 1))


def test_parts_of_a_row_are_apart() -> None:
    assert gates(0, 1) == {("a", "out")}
    assert gates(0, 1, late=True) == {("a", "out")}


def test_a_part_must_be_read_before_it_is_written() -> None:
    assert gates(1, 0) == {("a", "out")}
    assert gates(1, 0, late=True) == set()


def test_parts_that_reach_into_one_another_are_refused() -> None:
    """Rows of two parts of N elements, but steps of N from row to row: a part is written twice."""
    r, j = var("r", 4), var("j")
    here = plus(binary("mul", r, index_const(N)), j)
    after = plus(here, index_const(N))
    body = Store(OUT, (here,), load(A, (here,))), Store(OUT, (after,), load(A, (after,)))
    assert pairs(For(r, index_const(4), (loop(j, *body),), "serial", 1)) == set()
