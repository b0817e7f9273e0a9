"""One call of a table, as LLVM IR: the addresses of its arguments, its flags in this run, its tasks in order.

The words of jobs and calls are those of `walker`.
"""

from __future__ import annotations


def emit_calling() -> str:
    """Definitions of `resolve(args, job, call)`, `flags_now(job, call)` and `run_tasks(kernel, args, from,
    to, scratch, status, flags)`, which calls a kernel for the tasks from `from` to before `to`."""
    return _ARGUMENTS + _FLAGS + _TASKS


_ARGUMENTS = """
define internal void @resolve(ptr %args, ptr %job, ptr %call) nounwind {
entry:
  %slots.at = getelementptr i64, ptr %job, i64 3
  %slots = load ptr, ptr %slots.at
  %bases.at = getelementptr i64, ptr %job, i64 4
  %bases = load ptr, ptr %bases.at
  %first.at = getelementptr i64, ptr %call, i64 2
  %first = load i64, ptr %first.at
  %count.at = getelementptr i64, ptr %call, i64 3
  %count = load i64, ptr %count.at
  %mine = getelementptr [2 x i64], ptr %slots, i64 %first
  br label %arg
arg:
  %a = phi i64 [ 0, %entry ], [ %a1, %arg ]
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
  br i1 %another, label %arg, label %done
done:
  ret void
}
"""

_FLAGS = """
define internal i64 @flags_now(ptr %job, ptr %call) alwaysinline nounwind {
  %flags.at = getelementptr i64, ptr %call, i64 4
  %flags = load i64, ptr %flags.at
  %turn.at = getelementptr i64, ptr %job, i64 14
  %turn = load i64, ptr %turn.at
  %bit = shl i64 %turn, 3
  %turning = and i64 %flags, %bit
  %other = lshr i64 %turning, 1
  %now = xor i64 %flags, %other
  ret i64 %now
}
"""

_TASKS = """
define internal void @run_tasks(
    ptr %kernel, ptr %args, i64 %from, i64 %to, ptr %scratch, ptr %status, i64 %flags) alwaysinline nounwind {
entry:
  %bit = and i64 %flags, 4
  %backwards = icmp ne i64 %bit, 0
  br i1 %backwards, label %last, label %forwards
forwards:
  call void %kernel(ptr %args, i64 %from, i64 %to, ptr %scratch, ptr %status)
  ret void
last:
  %end = phi i64 [ %to, %entry ], [ %t, %last ]
  %t = sub i64 %end, 1
  call void %kernel(ptr %args, i64 %t, i64 %end, ptr %scratch, ptr %status)
  %more = icmp ugt i64 %t, %from
  br i1 %more, label %last, label %done
done:
  ret void
}
"""
