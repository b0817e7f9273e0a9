"""The native half of the runtime, written as LLVM IR: the walker of call tables and its thread team.

All workers walk the same table of kernel calls. Worker w of n has tasks [T*w/n, T*(w+1)/n) of a call with T
tasks, or none of a serial call unless it is worker 0. In a shared call a worker claims its tasks in chunks,
and when it has none left, claims those of others: one whose CPU is busy elsewhere does not hold up the rest.
Workers meet at barriers only where the table says so.

Memory shared with Python (words of 8 bytes)::

    job   0 calls   1 number of calls   2 gate   3 slots   4 bases   5 largest number of args   6 status
          7 scratch of worker 0   8 bytes from one worker's scratch to the next   9 workers
          10 claims of worker 0   11 bytes from one worker's claims to the next
    call  0 kernel  1 tasks  2 first slot (in slots)  3 number of args
          4 flags: 1 barrier before, 2 serial, 4 shared
    slot  0 number of the base  1 bytes from it
    claim of worker w in call i: how many of its tasks are taken

The team's words lie 128 bytes apart, so that no two of them share a cache line or a prefetched pair of
lines. A waiting thread spins for a while and then sleeps on the word's address (futex, or the system's
like).
"""

from __future__ import annotations

from graphc.backends.llvm.target import Target

JOB_WORDS = 12
CALL_WORDS = 5
SLOT_WORDS = 2
BARRIER, SERIAL, SHARED = 1, 2, 4

LINE = 128
TEAM_WORDS = ("ticket", "ticket_sleepers", "job", "stop", "arrived", "epoch", "epoch_sleepers", "spins")
TEAM_BYTES = LINE * len(TEAM_WORDS)
RUN, WORKER = "graphc_run", "graphc_worker"


def team_offset(word: str) -> int:
    """Byte offset of one of TEAM_WORDS."""
    return LINE * TEAM_WORDS.index(word)


def emit_walker(target: Target) -> str:
    """LLVM IR of the module with `graphc_run(job, team) -> status` and `graphc_worker(team, index)`."""
    pause = {"x86_64": _PAUSE_X86, "aarch64": _PAUSE_ARM}[target.arch]
    triple = f'target triple = "{target.triple}"'
    text = "\n".join((triple, _system(target), pause, _WAIT, _BARRIER, _WALK, _ENTRY))
    for word in TEAM_WORDS:
        text = text.replace(f"@{word}@", str(team_offset(word)))
    return text


def _system(target: Target) -> str:
    """sleep(word, old): until woken, or at once if the word is no longer `old`; wake(word): all sleepers."""
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
  br i1 %tired, label %bed, label %again
again:
  call void @pause()
  br label %spin
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
  %result = phi i32 [ %seen, %spin ], [ %now, %up ]
  ret i32 %result
}
define internal void @change(ptr %word, ptr %sleepers) nounwind {
  atomicrmw add ptr %word, i32 1 seq_cst
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

_BARRIER = """
define internal void @barrier(ptr %team, i64 %workers) noinline nounwind {
entry:
  %alone = icmp ule i64 %workers, 1
  br i1 %alone, label %done, label %meet
meet:
  %arrived = getelementptr i8, ptr %team, i64 @arrived@
  %epoch = getelementptr i8, ptr %team, i64 @epoch@
  %sleepers = getelementptr i8, ptr %team, i64 @epoch_sleepers@
  %old = load atomic i32, ptr %epoch acquire, align 4
  %count = atomicrmw add ptr %arrived, i64 1 acq_rel
  %missing = sub i64 %workers, 1
  %last = icmp eq i64 %count, %missing
  br i1 %last, label %open, label %hold
open:
  store atomic i64 0, ptr %arrived monotonic, align 8
  call void @change(ptr %epoch, ptr %sleepers)
  br label %done
hold:
  %spins.at = getelementptr i8, ptr %team, i64 @spins@
  %spins = load i64, ptr %spins.at
  call i32 @wait(ptr %epoch, ptr %sleepers, i32 %old, i64 %spins)
  br label %done
done:
  ret void
}
"""

# The status is read between two barriers, so that every worker takes the same way after the gate.
# Claims need no ordering: what tasks read and write is ordered by barriers.
_WALK = """
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
define internal void @walk(ptr %job, ptr %team, i64 %worker) nounwind {
entry:
  %calls = load ptr, ptr %job
  %total.at = getelementptr i64, ptr %job, i64 1
  %total = load i64, ptr %total.at
  %gate.at = getelementptr i64, ptr %job, i64 2
  %gate = load i64, ptr %gate.at
  %slots.at = getelementptr i64, ptr %job, i64 3
  %slots = load ptr, ptr %slots.at
  %bases.at = getelementptr i64, ptr %job, i64 4
  %bases = load ptr, ptr %bases.at
  %widest.at = getelementptr i64, ptr %job, i64 5
  %widest = load i64, ptr %widest.at
  %status = getelementptr i64, ptr %job, i64 6
  %scratch.at = getelementptr i64, ptr %job, i64 7
  %scratch.all = load ptr, ptr %scratch.at
  %stride.at = getelementptr i64, ptr %job, i64 8
  %stride = load i64, ptr %stride.at
  %workers.at = getelementptr i64, ptr %job, i64 9
  %workers = load i64, ptr %workers.at
  %claims.at = getelementptr i64, ptr %job, i64 10
  %claims = load ptr, ptr %claims.at
  %claim.stride.at = getelementptr i64, ptr %job, i64 11
  %claim.stride = load i64, ptr %claim.stride.at
  %skip = mul i64 %stride, %worker
  %scratch = getelementptr i8, ptr %scratch.all, i64 %skip
  %args = alloca ptr, i64 %widest, align 64
  %next.worker = add i64 %worker, 1
  %first = icmp eq i64 %worker, 0
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %more = icmp ult i64 %i, %total
  br i1 %more, label %visit, label %join
visit:
  %row = mul i64 %i, 5
  %call = getelementptr i64, ptr %calls, i64 %row
  %started = icmp ne i64 %i, 0
  %here = icmp eq i64 %i, %gate
  %at.gate = and i1 %started, %here
  br i1 %at.gate, label %check, label %flags
check:
  call void @barrier(ptr %team, i64 %workers)
  %code = load atomic i64, ptr %status acquire, align 8
  call void @barrier(ptr %team, i64 %workers)
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %join, label %flags
flags:
  %flags.at = getelementptr i64, ptr %call, i64 4
  %bits = load i64, ptr %flags.at
  %fence = trunc i64 %bits to i1
  br i1 %fence, label %meet, label %share
meet:
  call void @barrier(ptr %team, i64 %workers)
  br label %share
share:
  %tasks.at = getelementptr i64, ptr %call, i64 1
  %tasks = load i64, ptr %tasks.at
  %serial.bit = and i64 %bits, 2
  %serial = icmp ne i64 %serial.bit, 0
  %shared.bit = and i64 %bits, 4
  %shared = icmp ne i64 %shared.bit, 0
  %whole = select i1 %first, i64 %tasks, i64 0
  %low = mul i64 %tasks, %worker
  %high = mul i64 %tasks, %next.worker
  %low.share = udiv i64 %low, %workers
  %high.share = udiv i64 %high, %workers
  %begin = select i1 %serial, i64 0, i64 %low.share
  %end = select i1 %serial, i64 %whole, i64 %high.share
  %idle = icmp uge i64 %begin, %end
  %alone = icmp ule i64 %workers, 1
  %owned = xor i1 %shared, true
  %fixed = or i1 %owned, %alone
  %skips = and i1 %idle, %fixed
  br i1 %skips, label %next, label %resolve
resolve:
  %slot.at = getelementptr i64, ptr %call, i64 2
  %slot.first = load i64, ptr %slot.at
  %count.at = getelementptr i64, ptr %call, i64 3
  %count = load i64, ptr %count.at
  %mine = getelementptr [2 x i64], ptr %slots, i64 %slot.first
  br label %arg
arg:
  %a = phi i64 [ 0, %resolve ], [ %a1, %arg ]
  %slot = getelementptr [2 x i64], ptr %mine, i64 %a
  %base.number = load i64, ptr %slot
  %offset.at = getelementptr i64, ptr %slot, i64 1
  %offset = load i64, ptr %offset.at
  %base.at = getelementptr ptr, ptr %bases, i64 %base.number
  %base = load ptr, ptr %base.at
  %address = getelementptr i8, ptr %base, i64 %offset
  %arg.at = getelementptr ptr, ptr %args, i64 %a
  store ptr %address, ptr %arg.at
  %a1 = add i64 %a, 1
  %another = icmp ult i64 %a1, %count
  br i1 %another, label %arg, label %work
work:
  %kernel = load ptr, ptr %call
  br i1 %fixed, label %own, label %victims
own:
  call void %kernel(ptr %args, i64 %begin, i64 %end, ptr %scratch, ptr %status)
  br label %next
victims:
  %claim.at = getelementptr i64, ptr %claims, i64 %i
  br label %victim
victim:
  %turn = phi i64 [ 0, %victims ], [ %turn1, %robbed ]
  %turned = add i64 %worker, %turn
  %owner = urem i64 %turned, %workers
  %owner.next = add i64 %owner, 1
  %from.all = mul i64 %tasks, %owner
  %from = udiv i64 %from.all, %workers
  %to.all = mul i64 %tasks, %owner.next
  %to = udiv i64 %to.all, %workers
  %size = sub i64 %to, %from
  %eighth = lshr i64 %size, 3
  %chunk = call i64 @llvm.umax.i64(i64 %eighth, i64 1)
  %owner.claims = mul i64 %claim.stride, %owner
  %claim = getelementptr i8, ptr %claim.at, i64 %owner.claims
  br label %try
try:
  %taken = load atomic i64, ptr %claim monotonic, align 8
  %left = icmp ult i64 %taken, %size
  br i1 %left, label %take, label %robbed
take:
  %got = atomicrmw add ptr %claim, i64 %chunk monotonic
  %won = icmp ult i64 %got, %size
  br i1 %won, label %chunk.work, label %robbed
chunk.work:
  %b = add i64 %from, %got
  %e.wide = add i64 %b, %chunk
  %e = call i64 @llvm.umin.i64(i64 %e.wide, i64 %to)
  call void %kernel(ptr %args, i64 %b, i64 %e, ptr %scratch, ptr %status)
  br label %try
robbed:
  %turn1 = add i64 %turn, 1
  %others = icmp ult i64 %turn1, %workers
  br i1 %others, label %victim, label %next
next:
  %i1 = add i64 %i, 1
  br label %head
join:
  call void @barrier(ptr %team, i64 %workers)
  ret void
}
"""

_ENTRY = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define i64 @graphc_run(ptr %job, ptr %team) nounwind {
entry:
  %status = getelementptr i64, ptr %job, i64 6
  store i64 0, ptr %status
  %workers.at = getelementptr i64, ptr %job, i64 9
  %workers = load i64, ptr %workers.at
  %together = icmp ugt i64 %workers, 1
  br i1 %together, label %call.team, label %go
call.team:
  %claims.at = getelementptr i64, ptr %job, i64 10
  %claims = load ptr, ptr %claims.at
  %claim.stride.at = getelementptr i64, ptr %job, i64 11
  %claim.stride = load i64, ptr %claim.stride.at
  %claim.bytes = mul i64 %claim.stride, %workers
  call void @llvm.memset.p0.i64(ptr align 64 %claims, i8 0, i64 %claim.bytes, i1 false)
  %job.at = getelementptr i8, ptr %team, i64 @job@
  store ptr %job, ptr %job.at
  %ticket = getelementptr i8, ptr %team, i64 @ticket@
  %sleepers = getelementptr i8, ptr %team, i64 @ticket_sleepers@
  call void @change(ptr %ticket, ptr %sleepers)
  br label %go
go:
  call void @walk(ptr %job, ptr %team, i64 0)
  %code = load atomic i64, ptr %status acquire, align 8
  ret i64 %code
}
define void @graphc_stop(ptr %team) nounwind {
  %stop = getelementptr i8, ptr %team, i64 @stop@
  store i64 1, ptr %stop
  %ticket = getelementptr i8, ptr %team, i64 @ticket@
  %sleepers = getelementptr i8, ptr %team, i64 @ticket_sleepers@
  call void @change(ptr %ticket, ptr %sleepers)
  ret void
}
define void @graphc_worker(ptr %team, i64 %index) nounwind {
entry:
  %ticket = getelementptr i8, ptr %team, i64 @ticket@
  %sleepers = getelementptr i8, ptr %team, i64 @ticket_sleepers@
  %job.at = getelementptr i8, ptr %team, i64 @job@
  %stop.at = getelementptr i8, ptr %team, i64 @stop@
  %spins.at = getelementptr i8, ptr %team, i64 @spins@
  %spins = load i64, ptr %spins.at
  br label %idle
idle:
  %last = phi i32 [ 0, %entry ], [ %seen, %work ]
  %seen = call i32 @wait(ptr %ticket, ptr %sleepers, i32 %last, i64 %spins)
  %stop = load i64, ptr %stop.at
  %stopping = icmp ne i64 %stop, 0
  br i1 %stopping, label %done, label %work
work:
  %job = load ptr, ptr %job.at
  call void @walk(ptr %job, ptr %team, i64 %index)
  br label %idle
done:
  ret void
}
"""
