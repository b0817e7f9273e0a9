"""Where a team's threads run, as LLVM IR: not on the CPU of the thread that they help.

A scheduler may put a helper on its caller's CPU, and leave it there for seconds although another CPU is free:
two threads are then slower than one. So a caller that has stayed on one CPU for two runs takes that CPU from
the helpers' affinity, and gives back the one before. Which CPUs a helper uses otherwise, and all about the
caller itself, is left to the system.

Linux only; elsewhere threads have no affinity, or none that can be asked for without privileges.
"""

from __future__ import annotations

from graphc.backends.llvm.target import Target

MASK_BYTES = 128  # the affinity of up to 1024 CPUs


def emit_placement(target: Target) -> str:
    """Definition of `keep_apart(team, workers)`, to be called by the thread that runs a program.

    It uses the team's words @caller_cpu@ (of the last run), @avoided_cpu@, @cpus@ (address of the mask of
    CPUs that the team may use; 0: leave the threads alone) and @thread_ids@ (address of int32s).
    """
    return _LINUX if "linux" in target.triple else _NOWHERE


_NOWHERE = """
define internal void @keep_apart(ptr %team, i64 %workers) alwaysinline nounwind {
  ret void
}
"""

_LINUX = """
declare i32 @sched_getcpu()
declare i32 @sched_setaffinity(i32, i64, ptr)
define internal void @keep_apart(ptr %team, i64 %workers) nounwind {
entry:
  %cpu = call i32 @sched_getcpu()
  %caller.at = getelementptr i8, ptr %team, i64 @caller_cpu@
  %before = load i32, ptr %caller.at
  store i32 %cpu, ptr %caller.at
  %avoided.at = getelementptr i8, ptr %team, i64 @avoided_cpu@
  %avoided = load i32, ptr %avoided.at
  %stays = icmp eq i32 %cpu, %before
  %other = icmp ne i32 %cpu, %avoided
  %moved = and i1 %stays, %other
  br i1 %moved, label %move, label %done
move:
  store i32 %cpu, ptr %avoided.at
  call void @avoid(ptr %team, i64 %workers, i32 %cpu)
  br label %done
done:
  ret void
}
define internal void @avoid(ptr %team, i64 %workers, i32 %cpu) noinline nounwind {
entry:
  %mask = alloca [@mask_bytes@ x i8], align 8
  %cpus.at = getelementptr i8, ptr %team, i64 @cpus@
  %cpus = load ptr, ptr %cpus.at
  %kept = icmp ne ptr %cpus, null
  %byte = lshr i32 %cpu, 3
  %known = icmp ult i32 %byte, @mask_bytes@
  %able = and i1 %kept, %known
  br i1 %able, label %without, label %done
without:
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %mask, ptr align 8 %cpus, i64 @mask_bytes@, i1 false)
  %mine.at = getelementptr i8, ptr %mask, i32 %byte
  %mine = load i8, ptr %mine.at
  %low = and i32 %cpu, 7
  %low.byte = trunc i32 %low to i8
  %bit = shl i8 1, %low.byte
  %others = xor i8 %bit, -1
  %rest = and i8 %mine, %others
  store i8 %rest, ptr %mine.at
  %ids.at = getelementptr i8, ptr %team, i64 @thread_ids@
  %ids = load ptr, ptr %ids.at
  %helpers = sub i64 %workers, 1
  br label %next
next:
  %n = phi i64 [ 0, %without ], [ %n1, %next ]
  %id.at = getelementptr i32, ptr %ids, i64 %n
  %id = load i32, ptr %id.at
  call i32 @sched_setaffinity(i32 %id, i64 @mask_bytes@, ptr %mask)
  %n1 = add i64 %n, 1
  %more = icmp ult i64 %n1, %helpers
  br i1 %more, label %next, label %done
done:
  ret void
}
"""
