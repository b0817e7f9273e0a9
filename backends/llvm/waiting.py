"""Waiting for a word of memory to change, as LLVM IR: spin, then offer the CPU, then sleep until woken.

A thread that sleeps is woken in some 10 microseconds at best, and far later where others want its CPU: other
processes, or other guests of the machine that this one is a guest of, whose CPU a sleeper gives away. So
between spinning and sleeping a waiter yields for a while: whoever else has work on this CPU gets it at once,
and if nobody has, it is still there when the word changes.

Sleeping and waking are the system's calls that work on an address: futex on Linux, ulock on macOS,
WaitOnAddress on Windows.
"""

from __future__ import annotations

from graphc.backends.llvm.target import Target


def emit_waiting(target: Target) -> str:
    """Definitions of `pause`, `wait`, `wait_for` and `change`. RuntimeError for an unknown system.

    A waiter looks `spins` times, a pause apart (some 20 ns), then a quarter as often between offers of its
    CPU (a microsecond or so apart), and then it sleeps.
    """
    pause = {"x86_64": _PAUSE_X86, "aarch64": _PAUSE_ARM}[target.arch]
    return "\n".join((_system(target), pause, _WAIT))


def _system(target: Target) -> str:
    """sleep(word, old): until woken, or at once if the word is no longer `old`; wake(word): all sleepers;
    offer(): let others run on this CPU."""
    if "linux" in target.triple:
        number = {"x86_64": 202, "aarch64": 98}[target.arch]
        return _FUTEX.replace("@nr@", str(number))
    if "windows" in target.triple:
        return _WINDOWS
    if "darwin" in target.triple or "macos" in target.triple:
        return _DARWIN
    raise RuntimeError(f"no sleep and wake calls are known for {target.triple}")


_FUTEX = """
declare i64 @syscall(i64, ...)
define internal void @sleep(ptr %word, i32 %old) noinline nounwind {
  call i64 (i64, ...) @syscall(i64 @nr@, ptr %word, i32 128, i32 %old, ptr null)  ; FUTEX_WAIT_PRIVATE
  ret void
}
define internal void @wake(ptr %word) noinline nounwind {
  call i64 (i64, ...) @syscall(i64 @nr@, ptr %word, i32 129, i32 2147483647)  ; FUTEX_WAKE_PRIVATE
  ret void
}
declare i32 @sched_yield()
define internal void @offer() noinline nounwind {
  call i32 @sched_yield()
  ret void
}
"""

_DARWIN = """
declare i32 @__ulock_wait(i32, ptr, i64, i32)
declare i32 @__ulock_wake(i32, ptr, i64)
define internal void @sleep(ptr %word, i32 %old) noinline nounwind {
  %wide = zext i32 %old to i64
  call i32 @__ulock_wait(i32 1, ptr %word, i64 %wide, i32 0)  ; UL_COMPARE_AND_WAIT
  ret void
}
define internal void @wake(ptr %word) noinline nounwind {
  call i32 @__ulock_wake(i32 257, ptr %word, i64 0)  ; with ULF_WAKE_ALL
  ret void
}
declare i32 @sched_yield()
define internal void @offer() noinline nounwind {
  call i32 @sched_yield()
  ret void
}
"""

_WINDOWS = """
declare i32 @WaitOnAddress(ptr, ptr, i64, i32)
declare void @WakeByAddressAll(ptr)
define internal void @sleep(ptr %word, i32 %old) noinline nounwind {
  %place = alloca i32
  store i32 %old, ptr %place
  call i32 @WaitOnAddress(ptr %word, ptr %place, i64 4, i32 -1)
  ret void
}
define internal void @wake(ptr %word) noinline nounwind {
  call void @WakeByAddressAll(ptr %word)
  ret void
}
declare i32 @SwitchToThread()
define internal void @offer() noinline nounwind {
  call i32 @SwitchToThread()
  ret void
}
"""

_PAUSE_X86 = """
declare void @llvm.x86.sse2.pause()
define internal void @pause() alwaysinline nounwind {
  call void @llvm.x86.sse2.pause()
  ret void
}
"""

_PAUSE_ARM = """
declare void @llvm.aarch64.hint(i32)
define internal void @pause() alwaysinline nounwind {
  call void @llvm.aarch64.hint(i32 1)
  ret void
}
"""

# A waiter counts itself among the sleepers before it looks at the word a last time, and the changer of the
# word looks for sleepers after the change: with both sequentially consistent, no wake-up is lost.
# `wait` returns the word once it is no longer `old`; `wait_for` returns once it is at least `need`.
_WAIT = """
define internal i32 @wait(ptr %word, ptr %sleepers, i32 %old, i64 %spins) nounwind {
entry:
  br label %spin
spin:
  %n = phi i64 [ 0, %entry ], [ %n1, %again ]
  %seen = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %seen, %old
  br i1 %changed, label %done, label %count
count:
  %n1 = add i64 %n, 1
  %tired = icmp uge i64 %n1, %spins
  br i1 %tired, label %patient, label %again
again:
  call void @pause()
  br label %spin
patient:
  %offers = lshr i64 %spins, 2
  br label %yield
yield:
  %o = phi i64 [ 0, %patient ], [ %o1, %yielded ]
  %last = icmp uge i64 %o, %offers
  br i1 %last, label %bed, label %politely
politely:
  call void @offer()
  %o1 = add i64 %o, 1
  br label %look.again
look.again:
  %k = phi i64 [ 0, %politely ], [ %k1, %still ]
  %met = load atomic i32, ptr %word acquire, align 4
  %come = icmp ne i32 %met, %old
  br i1 %come, label %done, label %still
still:
  call void @pause()
  %k1 = add i64 %k, 1
  %often = icmp uge i64 %k1, 16
  br i1 %often, label %yielded, label %look.again
yielded:
  br label %yield
bed:
  atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %look
look:
  %now = load atomic i32, ptr %word seq_cst, align 4
  %awake = icmp ne i32 %now, %old
  br i1 %awake, label %up, label %rest
rest:
  call void @sleep(ptr %word, i32 %old)
  br label %look
up:
  atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  %result = phi i32 [ %seen, %spin ], [ %met, %look.again ], [ %now, %up ]
  ret i32 %result
}
define internal void @wait_for(ptr %word, ptr %sleepers, i32 %need, i64 %spins) noinline nounwind {
entry:
  %first = load atomic i32, ptr %word acquire, align 4
  br label %test
test:
  %seen = phi i32 [ %first, %entry ], [ %later, %more ]
  %enough = icmp uge i32 %seen, %need
  br i1 %enough, label %done, label %more
more:
  %later = call i32 @wait(ptr %word, ptr %sleepers, i32 %seen, i64 %spins)
  br label %test
done:
  ret void
}
define internal void @change(ptr %word, ptr %sleepers, i32 %amount) nounwind {
  atomicrmw add ptr %word, i32 %amount seq_cst
  %sleeping = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %sleeping, 0
  br i1 %any, label %some, label %none
some:
  call void @wake(ptr %word)
  br label %none
none:
  ret void
}
"""
