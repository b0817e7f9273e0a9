"""The native half of the runtime, written as LLVM IR: the walker of call tables and its thread team.

The calling thread (worker 0) walks the program's table of kernel calls from top to bottom; the team's
workers walk the same table beside it and help. Nobody ever waits for a thread, only for work: a call may
start when so many tasks of the program are completed that all calls it depends on are among them (its
`need`). A worker that is still asleep, or whose CPU is busy elsewhere, holds up nothing but the chunk of
tasks it has in hand.

Worker w of n owns tasks [T*w/n, T*(w+1)/n) of a call with T tasks. It claims its own first (in chunks if
the call is shared, else in one piece), then what is left of the others'. Serial calls belong to worker 0
alone, which publishes their completion only at the next parallel call. The tasks of a backwards call are run
from the last to the first: what a loop reads on every trip, if it does not fit the cache, is then met there
in part, since the end of one trip is the beginning of the next. Turning calls are backwards in every other
run, for the same sake: what a run has read last is read first by the next one.

Memory shared with Python (words of 8 bytes)::

    job    0 calls   1 number of calls   2 gate   3 slots   4 bases   5 largest number of args
           6 scratch of worker 0   7 bytes from one worker's scratch to the next   8 workers
           9 claims of round 0   10 bytes from one round's claims to the next   11 tasks in all
           12 (written by the run) number of the round   13 words from one worker's claims to the next
           14 (changed by the run) 0 and 1 in turn
    call   0 kernel  1 tasks  2 first slot (in slots)  3 number of args
           4 flags: 1 serial, 2 shared, 4 backwards, 8 turning, and from bit 8 on its number p among the
             parallel calls
           5 need
    slot   0 number of the base  1 bytes from it
    claims word w * (words of a worker) + p: how many of worker w's tasks of parallel call p are taken

A run happens in a round: a control block with a copy of the job. The caller leaves as soon as all tasks are
completed; a straggler may still be inside the round then, finds nothing to do, and leaves later. The next
run takes a round nobody is in; with more rounds than workers there always is one. The words of team and
round lie 128 bytes apart, so that no two share a cache line or a prefetched pair of lines. A waiting thread
spins for a while, then offers its CPU to others for a while, and then sleeps on the word's address (see
`waiting`).
"""

from __future__ import annotations

from graphc.backends.llvm.calling import emit_calling
from graphc.backends.llvm.placement import MASK_BYTES, emit_placement
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.waiting import emit_waiting

JOB_WORDS = 15
JOB_WORKERS, JOB_ROUND, JOB_CLAIMS = 8, 12, 13
CALL_WORDS = 6
SLOT_WORDS = 2
SERIAL, SHARED, BACKWARDS, TURNING = 1, 2, 4, 8
CLAIM_SHIFT = 8

LINE = 128
PLACES = ("caller_cpu", "avoided_cpu", "cpus", "thread_ids")
TEAM_WORDS = ("ticket", "ticket_sleepers", "current", "stop", "spins", "rounds", *PLACES)
ROUND_WORDS = ("state", "completed", "completed_sleepers", "status", "job")
ROUND_BYTES = LINE * len(ROUND_WORDS)
RUN, WORKER, STOP = "graphc_run", "graphc_worker", "graphc_stop"


def team_offset(word: str) -> int:
    """Byte offset of one of TEAM_WORDS in a team's memory; its rounds follow the words."""
    return LINE * TEAM_WORDS.index(word)


def team_bytes(rounds: int) -> int:
    """Size of a team's memory."""
    return LINE * len(TEAM_WORDS) + ROUND_BYTES * rounds


def emit_walker(target: Target) -> str:
    """LLVM IR of the module with `graphc_run(job, team) -> status` and `graphc_worker(team, index)`."""
    triple = f'target triple = "{target.triple}"'
    parts = (emit_waiting(target), emit_placement(target), emit_calling())
    text = "\n".join((triple, *parts, _ALONE, _WALK, _CLAIM, _ENTRY))
    offsets = {word: team_offset(word) for word in TEAM_WORDS}
    offsets |= {word: LINE * n for n, word in enumerate(ROUND_WORDS)}
    offsets |= {"first_round": team_bytes(0), "round_bytes": ROUND_BYTES}
    offsets |= {"job_bytes": 8 * JOB_WORDS, "job_gate": offsets["job"] + 16, "mask_bytes": MASK_BYTES}
    for word, offset in offsets.items():
        text = text.replace(f"@{word}@", str(offset))
    return text


# One thread: no atomics, no claims.
_ALONE = """
define internal i64 @walk_alone(ptr %job) nounwind {
entry:
  %calls = load ptr, ptr %job
  %total.at = getelementptr i64, ptr %job, i64 1
  %total = load i64, ptr %total.at
  %gate.at = getelementptr i64, ptr %job, i64 2
  %gate = load i64, ptr %gate.at
  %widest.at = getelementptr i64, ptr %job, i64 5
  %widest = load i64, ptr %widest.at
  %scratch.at = getelementptr i64, ptr %job, i64 6
  %scratch = load ptr, ptr %scratch.at
  %args = alloca ptr, i64 %widest, align 64
  %status = alloca i64, align 8
  store i64 0, ptr %status
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i1, %work ]
  %more = icmp ult i64 %i, %total
  br i1 %more, label %visit, label %done
visit:
  %here = icmp eq i64 %i, %gate
  %code = load i64, ptr %status
  %bad = icmp ne i64 %code, 0
  %failed = and i1 %here, %bad
  br i1 %failed, label %done, label %work
work:
  %call = getelementptr [6 x i64], ptr %calls, i64 %i
  %tasks.at = getelementptr i64, ptr %call, i64 1
  %tasks = load i64, ptr %tasks.at
  call void @resolve(ptr %args, ptr %job, ptr %call)
  %kernel = load ptr, ptr %call
  %flags = call i64 @flags_now(ptr %job, ptr %call)
  call void @run_tasks(ptr %kernel, ptr %args, i64 0, i64 %tasks, ptr %scratch, ptr %status, i64 %flags)
  %i1 = add i64 %i, 1
  br label %head
done:
  %result = load i64, ptr %status
  ret i64 %result
}
"""

# Checks before the gate and after it write different status words: the first one is settled when the gate
# is reached, so all workers decide alike there. `pending` counts worker 0's completed tasks that are not
# published yet. They are published before it waits, so no two workers can wait for each other.
_WALK = """
define internal ptr @status_word(ptr %round, i64 %i) nounwind {
  %status = getelementptr i8, ptr %round, i64 @status@
  %gate.at = getelementptr i8, ptr %round, i64 @job_gate@
  %gate = load i64, ptr %gate.at
  %early = icmp ult i64 %i, %gate
  %late = getelementptr i64, ptr %status, i64 1
  %word = select i1 %early, ptr %status, ptr %late
  ret ptr %word
}
define internal void @publish(ptr %round, ptr %pending) nounwind {
  %count = load i32, ptr %pending
  %none = icmp eq i32 %count, 0
  br i1 %none, label %done, label %some
some:
  store i32 0, ptr %pending
  %completed = getelementptr i8, ptr %round, i64 @completed@
  %sleepers = getelementptr i8, ptr %round, i64 @completed_sleepers@
  call void @change(ptr %completed, ptr %sleepers, i32 %count)
  br label %done
done:
  ret void
}
define internal void @await(ptr %round, i64 %need, i64 %spins, ptr %pending) nounwind {
  %completed = getelementptr i8, ptr %round, i64 @completed@
  %seen = load atomic i32, ptr %completed acquire, align 4
  %mine = load i32, ptr %pending
  %known = add i32 %seen, %mine
  %wanted = trunc i64 %need to i32
  %ready = icmp uge i32 %known, %wanted
  br i1 %ready, label %done, label %hold
hold:
  call void @publish(ptr %round, ptr %pending)
  %sleepers = getelementptr i8, ptr %round, i64 @completed_sleepers@
  call void @wait_for(ptr %completed, ptr %sleepers, i32 %wanted, i64 %spins)
  br label %done
done:
  ret void
}
define internal i1 @walk(ptr %round, i64 %worker, i64 %spins) nounwind {
entry:
  %job = getelementptr i8, ptr %round, i64 @job@
  %status = getelementptr i8, ptr %round, i64 @status@
  %calls = load ptr, ptr %job
  %total.at = getelementptr i64, ptr %job, i64 1
  %total = load i64, ptr %total.at
  %gate.at = getelementptr i64, ptr %job, i64 2
  %gate = load i64, ptr %gate.at
  %widest.at = getelementptr i64, ptr %job, i64 5
  %widest = load i64, ptr %widest.at
  %scratch.at = getelementptr i64, ptr %job, i64 6
  %scratch.all = load ptr, ptr %scratch.at
  %stride.at = getelementptr i64, ptr %job, i64 7
  %stride = load i64, ptr %stride.at
  %skip = mul i64 %stride, %worker
  %scratch = getelementptr i8, ptr %scratch.all, i64 %skip
  %args = alloca ptr, i64 %widest, align 64
  %pending = alloca i32, align 4
  store i32 0, ptr %pending
  %first = icmp eq i64 %worker, 0
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %more = icmp ult i64 %i, %total
  br i1 %more, label %visit, label %done
visit:
  %call = getelementptr [6 x i64], ptr %calls, i64 %i
  %flags = call i64 @flags_now(ptr %job, ptr %call)
  %need.at = getelementptr i64, ptr %call, i64 5
  %need = load i64, ptr %need.at
  %serial = trunc i64 %flags to i1
  %helper = xor i1 %first, true
  %not.mine = and i1 %serial, %helper
  %at.gate = icmp eq i64 %i, %gate
  %passing = xor i1 %at.gate, true
  %pass = and i1 %not.mine, %passing
  br i1 %pass, label %next, label %ready
ready:
  call void @await(ptr %round, i64 %need, i64 %spins, ptr %pending)
  br i1 %at.gate, label %check, label %share
check:
  %code = load atomic i64, ptr %status monotonic, align 8
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %stop, label %share
share:
  br i1 %not.mine, label %next, label %kind
kind:
  br i1 %serial, label %own, label %parallel
own:
  %tasks.at = getelementptr i64, ptr %call, i64 1
  %tasks = load i64, ptr %tasks.at
  call void @resolve(ptr %args, ptr %job, ptr %call)
  %kernel = load ptr, ptr %call
  %word = call ptr @status_word(ptr %round, i64 %i)
  call void @run_tasks(ptr %kernel, ptr %args, i64 0, i64 %tasks, ptr %scratch, ptr %word, i64 %flags)
  %count = trunc i64 %tasks to i32
  %before = load i32, ptr %pending
  %after = add i32 %before, %count
  store i32 %after, ptr %pending
  br label %next
parallel:
  call void @publish(ptr %round, ptr %pending)
  call void @claim_tasks(ptr %round, i64 %worker, i64 %i, ptr %args, ptr %scratch, ptr %pending)
  call void @publish(ptr %round, ptr %pending)
  br label %next
next:
  %i1 = add i64 %i, 1
  br label %head
done:
  call void @publish(ptr %round, ptr %pending)
  ret i1 false
stop:
  ret i1 true
}
"""

# Claims need no ordering of their own: what tasks read was completed before, and seen so.
_CLAIM = """
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
define internal void @claim_tasks(
    ptr %round, i64 %worker, i64 %i, ptr %args, ptr %scratch, ptr %pending) nounwind {
entry:
  %job = getelementptr i8, ptr %round, i64 @job@
  %status = call ptr @status_word(ptr %round, i64 %i)
  %calls = load ptr, ptr %job
  %claimed.at = getelementptr i64, ptr %job, i64 13
  %claimed = load i64, ptr %claimed.at
  %workers.at = getelementptr i64, ptr %job, i64 8
  %workers = load i64, ptr %workers.at
  %claims.at = getelementptr i64, ptr %job, i64 9
  %claims = load ptr, ptr %claims.at
  %call = getelementptr [6 x i64], ptr %calls, i64 %i
  %kernel = load ptr, ptr %call
  %tasks.at = getelementptr i64, ptr %call, i64 1
  %tasks = load i64, ptr %tasks.at
  %flags = call i64 @flags_now(ptr %job, ptr %call)
  %shared.bit = and i64 %flags, 2
  %shared = icmp ne i64 %shared.bit, 0
  %p = lshr i64 %flags, 8
  %back.bit = and i64 %flags, 4
  %backwards = icmp ne i64 %back.bit, 0
  %shift = select i1 %shared, i64 3, i64 0
  br label %owner
owner:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %finished ]
  %fresh = phi i1 [ true, %entry ], [ %fresh.now, %finished ]
  %turned = add i64 %worker, %turn
  %who = urem i64 %turned, %workers
  %who.next = add i64 %who, 1
  %from.all = mul i64 %tasks, %who
  %from = udiv i64 %from.all, %workers
  %to.all = mul i64 %tasks, %who.next
  %to = udiv i64 %to.all, %workers
  %size = sub i64 %to, %from
  %part = lshr i64 %size, %shift
  %chunk = call i64 @llvm.umax.i64(i64 %part, i64 1)
  %row = mul i64 %who, %claimed
  %number = add i64 %row, %p
  %claim = getelementptr i64, ptr %claims, i64 %number
  br label %try
try:
  %fresh.now = phi i1 [ %fresh, %owner ], [ false, %run ]
  %taken = load atomic i64, ptr %claim monotonic, align 8
  %left = icmp ult i64 %taken, %size
  br i1 %left, label %take, label %finished
take:
  %got = atomicrmw add ptr %claim, i64 %chunk monotonic
  %won = icmp ult i64 %got, %size
  br i1 %won, label %mine, label %finished
mine:
  br i1 %fresh.now, label %addresses, label %run
addresses:
  call void @resolve(ptr %args, ptr %job, ptr %call)
  br label %run
run:
  %got.next = add i64 %got, %chunk
  %got.end = call i64 @llvm.umin.i64(i64 %got.next, i64 %size)
  %b.forwards = add i64 %from, %got
  %e.forwards = add i64 %from, %got.end
  %b.backwards = sub i64 %to, %got.end
  %e.backwards = sub i64 %to, %got
  %b = select i1 %backwards, i64 %b.backwards, i64 %b.forwards
  %e = select i1 %backwards, i64 %e.backwards, i64 %e.forwards
  call void @run_tasks(ptr %kernel, ptr %args, i64 %b, i64 %e, ptr %scratch, ptr %status, i64 %flags)
  %ran = sub i64 %e, %b
  %ran.word = trunc i64 %ran to i32
  %before = load i32, ptr %pending
  %after = add i32 %before, %ran.word
  store i32 %after, ptr %pending
  br label %try
finished:
  %turn1 = add i64 %turn, 1
  %others = icmp ult i64 %turn1, %workers
  br i1 %others, label %owner, label %done
done:
  ret void
}
"""

# A round's state is 2^30 while it is open, plus the number of workers inside. A worker counts itself in
# first and looks whether the round is open then; so a round that is seen closed and empty stays unread
# until it opens.
_ENTRY = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define internal ptr @open_round(ptr %job, ptr %team) nounwind {
entry:
  %rounds.at = getelementptr i8, ptr %team, i64 @rounds@
  %rounds = load i64, ptr %rounds.at
  br label %search
search:
  %r = phi i64 [ 0, %entry ], [ %r.next, %busy ]
  %skip = mul i64 %r, @round_bytes@
  %place = add i64 %skip, @first_round@
  %round = getelementptr i8, ptr %team, i64 %place
  %state = load atomic i32, ptr %round acquire, align 4
  %free = icmp eq i32 %state, 0
  br i1 %free, label %prepare, label %busy
busy:
  call void @pause()
  %r1 = add i64 %r, 1
  %r.next = urem i64 %r1, %rounds
  br label %search
prepare:
  %number.at = getelementptr i64, ptr %job, i64 12
  store i64 %r, ptr %number.at
  %copy = getelementptr i8, ptr %round, i64 @job@
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %copy, ptr align 8 %job, i64 @job_bytes@, i1 false)
  %claims.at = getelementptr i64, ptr %job, i64 9
  %claims.all = load ptr, ptr %claims.at
  %claims.bytes.at = getelementptr i64, ptr %job, i64 10
  %claims.bytes = load i64, ptr %claims.bytes.at
  %claims.skip = mul i64 %claims.bytes, %r
  %claims = getelementptr i8, ptr %claims.all, i64 %claims.skip
  call void @llvm.memset.p0.i64(ptr align 8 %claims, i8 0, i64 %claims.bytes, i1 false)
  %claims.copy = getelementptr i64, ptr %copy, i64 9
  store ptr %claims, ptr %claims.copy
  %completed = getelementptr i8, ptr %round, i64 @completed@
  store atomic i32 0, ptr %completed monotonic, align 4
  %status = getelementptr i8, ptr %round, i64 @status@
  store atomic i64 0, ptr %status monotonic, align 8
  %late = getelementptr i64, ptr %status, i64 1
  store atomic i64 0, ptr %late monotonic, align 8
  atomicrmw or ptr %round, i32 1073741824 seq_cst
  %current = getelementptr i8, ptr %team, i64 @current@
  store atomic ptr %round, ptr %current release, align 8
  ret ptr %round
}
define i64 @graphc_run(ptr %job, ptr %team) nounwind {
entry:
  %turn.at = getelementptr i64, ptr %job, i64 14
  %turn.before = load i64, ptr %turn.at
  %turn = xor i64 %turn.before, 1
  store i64 %turn, ptr %turn.at
  %workers.at = getelementptr i64, ptr %job, i64 8
  %workers = load i64, ptr %workers.at
  %together = icmp ugt i64 %workers, 1
  br i1 %together, label %team.run, label %alone
alone:
  %alone.code = call i64 @walk_alone(ptr %job)
  ret i64 %alone.code
team.run:
  call void @keep_apart(ptr %team, i64 %workers)
  %round = call ptr @open_round(ptr %job, ptr %team)
  %ticket = getelementptr i8, ptr %team, i64 @ticket@
  %sleepers = getelementptr i8, ptr %team, i64 @ticket_sleepers@
  call void @change(ptr %ticket, ptr %sleepers, i32 1)
  %spins.at = getelementptr i8, ptr %team, i64 @spins@
  %spins = load i64, ptr %spins.at
  %stopped = call i1 @walk(ptr %round, i64 0, i64 %spins)
  br i1 %stopped, label %close, label %finish
finish:
  %completed = getelementptr i8, ptr %round, i64 @completed@
  %completed.sleepers = getelementptr i8, ptr %round, i64 @completed_sleepers@
  %tasks.at = getelementptr i64, ptr %job, i64 11
  %tasks = load i64, ptr %tasks.at
  %all = trunc i64 %tasks to i32
  call void @wait_for(ptr %completed, ptr %completed.sleepers, i32 %all, i64 %spins)
  br label %close
close:
  atomicrmw and ptr %round, i32 -1073741825 seq_cst
  %status = getelementptr i8, ptr %round, i64 @status@
  %early = load atomic i64, ptr %status acquire, align 8
  %late.at = getelementptr i64, ptr %status, i64 1
  %late = load atomic i64, ptr %late.at acquire, align 8
  %any.early = icmp ne i64 %early, 0
  %code = select i1 %any.early, i64 %early, i64 %late
  ret i64 %code
}
define void @graphc_stop(ptr %team) nounwind {
  %stop = getelementptr i8, ptr %team, i64 @stop@
  store i64 1, ptr %stop
  %ticket = getelementptr i8, ptr %team, i64 @ticket@
  %sleepers = getelementptr i8, ptr %team, i64 @ticket_sleepers@
  call void @change(ptr %ticket, ptr %sleepers, i32 1)
  ret void
}
define void @graphc_worker(ptr %team, i64 %index) nounwind {
entry:
  %ticket = getelementptr i8, ptr %team, i64 @ticket@
  %sleepers = getelementptr i8, ptr %team, i64 @ticket_sleepers@
  %current = getelementptr i8, ptr %team, i64 @current@
  %stop.at = getelementptr i8, ptr %team, i64 @stop@
  %spins.at = getelementptr i8, ptr %team, i64 @spins@
  %spins = load i64, ptr %spins.at
  br label %idle
idle:
  %last = phi i32 [ 0, %entry ], [ %seen, %leave ]
  %seen = call i32 @wait(ptr %ticket, ptr %sleepers, i32 %last, i64 %spins)
  %stop = load i64, ptr %stop.at
  %stopping = icmp ne i64 %stop, 0
  br i1 %stopping, label %done, label %enter
enter:
  %round = load atomic ptr, ptr %current acquire, align 8
  %state = atomicrmw add ptr %round, i32 1 seq_cst
  %open.bit = and i32 %state, 1073741824
  %open = icmp ne i32 %open.bit, 0
  br i1 %open, label %work, label %leave
work:
  call i1 @walk(ptr %round, i64 %index, i64 %spins)
  br label %leave
leave:
  atomicrmw sub ptr %round, i32 1 seq_cst
  br label %idle
done:
  ret void
}
"""
