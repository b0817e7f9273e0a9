"""One loop-IR kernel to the text of one LLVM module.

The module defines ``void NAME(ptr args, i64 begin, i64 end, ptr scratch, ptr status)``, which runs the tasks
begin ... end-1: `args` points at one pointer per param, `scratch` at this thread's memory (64-byte aligned),
`status` at a 32-bit word (or the low half of a wider one) that a failed Check writes its code to.
"""

from __future__ import annotations

from typing import Protocol

from graphc.backends.llvm.emit_analysis import element_count, written
from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.emit_loops import Statements
from graphc.backends.llvm.emit_state import Scope, State, Storage
from graphc.loop import ir
from graphc.loop.scratch import scratch_layout
from graphc.program import Machine


class Target(Protocol):
    """What the emitter asks of a target: facts for lowering, and LLVM's names of its CPU features."""

    @property
    def machine(self) -> Machine: ...

    @property
    def required(self) -> frozenset[str]: ...


def emit_kernel(kernel: ir.Kernel, target: Target) -> str:
    """LLVM IR text of a module that defines the kernel. ValueError for a kernel that breaks the grammar."""
    machine = target.machine
    builder = Builder(avx512="avx512f" in target.required)
    state = State(builder)
    state.scopes[0] = Scope(builder.flow, True, written(kernel.body))
    offsets, _ = scratch_layout(kernel)
    base = Operand(builder, "ptr", 0, "%scratch")
    scratch = {buffer: builder.offset(base, "i8", offset) for buffer, offset in offsets.items()}
    constant = constant_params(kernel)
    for number, param in enumerate(kernel.params):
        slot = builder.offset(Operand(builder, "ptr", 0, "%args"), "ptr", number)
        pointer = builder.load(slot, "ptr", 0, 8, True)
        state.storage[param] = Storage(pointer, constant=param in constant)
    statements = Statements(state, machine.masked, machine.lanes(4), scratch)
    begin, end = Operand(builder, "i64", 0, "%begin"), Operand(builder, "i64", 0, "%end")
    statements.counted_loop(kernel.task.name, begin, end, 1, kernel.body)
    builder.line("ret void")
    builder.blocks[0].lines[:0] = builder.allocas
    return _module(kernel, machine, builder)


def _module(kernel: ir.Kernel, machine: Machine, builder: Builder) -> str:
    """The function, its helpers and declarations."""
    bits = 8 * machine.vector_bytes
    arguments = "ptr %args, i64 %begin, i64 %end, ptr %scratch, ptr %status"
    return "\n".join(
        [
            f'define void @"{kernel.name}"({arguments}) #0 {{',
            builder.body(),
            "}",
            *builder.helpers.values(),
            *builder.declarations.values(),
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" '
            '"no-trapping-math"="true" "frame-pointer"="none" }',
            "!0 = !{}",
            "",
        ]
    )


def constant_params(kernel: ir.Kernel) -> frozenset[ir.Buffer]:
    """Params whose memory nobody writes while the kernel runs.

    The planner may give a kernel the same memory for a param it reads and one it writes, element by element;
    that takes two params of equal size. A param that is only read, with no written one of its size, is safe.
    """
    writes = written(kernel.body)
    sizes = {_nbytes(param) for param in kernel.params if param in writes}
    return frozenset(p for p in kernel.params if p not in writes and _nbytes(p) not in sizes)


def _nbytes(buffer: ir.Buffer) -> int:
    return element_count(buffer) * buffer.dtype.itemsize
