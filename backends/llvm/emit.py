"""One loop-IR kernel to the text of one LLVM module.

The module defines ``void NAME(ptr args, i64 begin, i64 end, ptr scratch, ptr status)``, which runs the tasks
begin ... end-1: `args` points at one pointer per param, `scratch` at this thread's memory (64-byte aligned),
`status` at a 32-bit word (or the low half of a wider one) that a failed Check writes its code to.
"""

from __future__ import annotations

from typing import Protocol

from graphc.loop import ir
from graphc.loop.scratch import scratch_layout
from graphc.program import Machine

from .emit_analysis import written
from .emit_builder import Builder, Operand
from .emit_loops import Statements
from .emit_state import Scope, State, Storage


class Target(Protocol):
    """What the emitter asks of a target: facts for lowering, and LLVM's names of its CPU features."""

    @property
    def machine(self) -> Machine: ...

    @property
    def required(self) -> frozenset[str]: ...


def emit_kernel(kernel: ir.Kernel, target: Target) -> str:
    """LLVM IR text of a module that defines the kernel. ValueError for a kernel that breaks the grammar."""
    machine = target.machine
    builder = Builder(scales="avx512f" in target.required)
    state = State(builder)
    state.scopes[0] = Scope(builder.flow, True, written(kernel.body))
    offsets, _ = scratch_layout(kernel)
    base = Operand(builder, "ptr", 0, "%scratch")
    scratch = {buffer: builder.offset(base, "i8", offset) for buffer, offset in offsets.items()}
    for number, param in enumerate(kernel.params):
        state.storage[param] = Storage(Operand(builder, "ptr", 0, f"%p{number}"))
    statements = Statements(state, machine.masked, machine.lanes(4), scratch)
    begin, end = Operand(builder, "i64", 0, "%begin"), Operand(builder, "i64", 0, "%end")
    statements.counted_loop(kernel.task.name, begin, end, 1, kernel.body)
    builder.line("ret void")
    builder.blocks[0].lines[:0] = builder.allocas
    return _module(kernel, machine, builder)


def _module(kernel: ir.Kernel, machine: Machine, builder: Builder) -> str:
    """The kernel's function (loads the params) and the body it calls (knows which of them do not overlap)."""
    count = len(kernel.params)
    loads = []
    for i in range(count):
        loads.append(f"  %a{i} = getelementptr ptr, ptr %args, i64 {i}")
        loads.append(f"  %p{i} = load ptr, ptr %a{i}, align 8")
    passed = "".join(f"ptr %p{i}, " for i in range(count))
    alone = params_without_overlap(kernel)
    params = "".join(
        f"ptr {'noalias ' if param in alone else ''}%p{i}, " for i, param in enumerate(kernel.params)
    )
    rest = "i64 %begin, i64 %end, ptr noalias %scratch, ptr noalias %status"
    name = f'"{kernel.name}"'
    inner = f'"{kernel.name}.body"'
    bits = 8 * machine.vector_bytes
    return "\n".join(
        [
            f"define void @{name}(ptr %args, i64 %begin, i64 %end, ptr %scratch, ptr %status) #0 {{",
            *loads,
            f"  call void @{inner}({passed}i64 %begin, i64 %end, ptr %scratch, ptr %status)",
            "  ret void",
            "}",
            f"define internal void @{inner}({params}{rest}) #0 {{",
            builder.body(),
            "}",
            *builder.helpers.values(),
            *builder.declarations.values(),
            f'attributes #0 = {{ nounwind noinline "prefer-vector-width"="{bits}" '
            f'"min-legal-vector-width"="{bits}" "no-trapping-math"="true" "frame-pointer"="none" }}',
            "",
        ]
    )


def params_without_overlap(kernel: ir.Kernel) -> frozenset[ir.Buffer]:
    """Params that no other param can share memory with in a way that matters.

    The planner may give an elementwise kernel the same memory for a param it reads and one it writes; that
    takes two params of equal size of which one is written. All others are `noalias` for LLVM.
    """
    writes = written(kernel.body)
    sizes: dict[int, list[ir.Buffer]] = {}
    for param in kernel.params:
        total = param.dtype.itemsize
        for extent in param.shape:
            total *= extent
        sizes.setdefault(total, []).append(param)
    alone = set()
    for group in sizes.values():
        shared = len(group) > 1 and any(p in writes for p in group)
        if not shared:
            alone.update(group)
    return frozenset(alone)
