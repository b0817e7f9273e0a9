"""How a thread waits for a word: it spins, then offers its CPU, then sleeps. The system's calls are stand-ins
that count, and change the word when they have been called often enough."""

from __future__ import annotations

import ctypes
from functools import cache

import pytest

from graphc.backends.llvm.engine import get_engine
from graphc.backends.llvm.objects import build_object
from graphc.backends.llvm.target import get_target
from graphc.backends.llvm.waiting import emit_waiting

LINUX = "linux" in get_target().triple
pytestmark = pytest.mark.skipif(not LINUX, reason="the stand-ins are Linux's calls")

_STANDINS = """
define internal void @counted(ptr %counter, i64 %limit) {
  %n = load i64, ptr %counter
  %n1 = add i64 %n, 1
  store i64 %n1, ptr %counter
  %enough = icmp uge i64 %n1, %limit
  %word = load ptr, ptr @watched
  %now = load i32, ptr %word
  %next = select i1 %enough, i32 1, i32 %now
  store atomic i32 %next, ptr %word seq_cst, align 4
  ret void
}
define internal i32 @sched_yield() {
  %limit = load i64, ptr @most_offers
  call void @counted(ptr @offers, i64 %limit)
  ret i32 0
}
define internal i64 @syscall(i64 %number, ...) {
  call void @counted(ptr @sleeps, i64 1)
  ret i64 0
}
@watched = internal global ptr null
@offers = internal global i64 0
@sleeps = internal global i64 0
@most_offers = internal global i64 0
define void @graphc_try_waiting(ptr %word, ptr %sleepers, i64 %spins, i64 %most, ptr %result) {
  store ptr %word, ptr @watched
  store i64 0, ptr @offers
  store i64 0, ptr @sleeps
  store i64 %most, ptr @most_offers
  %seen = call i32 @wait(ptr %word, ptr %sleepers, i32 0, i64 %spins)
  %offered = load i64, ptr @offers
  %slept = load i64, ptr @sleeps
  %wide = zext i32 %seen to i64
  store i64 %wide, ptr %result
  %second = getelementptr i64, ptr %result, i64 1
  store i64 %offered, ptr %second
  %third = getelementptr i64, ptr %result, i64 2
  store i64 %slept, ptr %third
  ret void
}
"""


@cache
def _loaded():
    target = get_target()
    text = f'target triple = "{target.triple}"\n{emit_waiting(target)}\n{_STANDINS}'
    for declaration in ("declare i64 @syscall(i64, ...)", "declare i32 @sched_yield()"):
        assert declaration in text
        text = text.replace(declaration, "")
    return get_engine(target).load({"graphc_try_waiting": build_object(text, target)})


def wait(spins: int, most_offers: int, word: int = 0) -> tuple[int, int, int]:
    """What `wait` saw, and how often it offered its CPU and slept; the word changes with the last offer."""
    kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    call = ctypes.CFUNCTYPE(None, *kinds)(_loaded().address("graphc_try_waiting"))
    words, result = (ctypes.c_int32 * 2)(word, 0), (ctypes.c_int64 * 3)()
    at = ctypes.addressof(words)
    call(at, at + 4, spins, most_offers, ctypes.addressof(result))
    assert words[1] == 0, "the waiter has left, and is still counted among the sleepers"
    return result[0], result[1], result[2]


def test_what_has_changed_already_costs_nothing():
    assert wait(100, 10**6, word=7) == (7, 0, 0)


@pytest.mark.parametrize("offers", [1, 2, 25])
def test_a_change_is_seen_between_offers(offers):
    assert wait(100, offers) == (1, offers, 0)


@pytest.mark.parametrize("spins", [1, 50, 100, 2000])
def test_who_has_offered_in_vain_sleeps(spins):
    assert wait(spins, 10**6) == (1, spins // 4, 1)
