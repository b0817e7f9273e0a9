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
from graphc.backends.llvm.emit_stream import choice, streamed_params
from graphc.loop import ir
from graphc.loop.scratch import scratch_layout
from graphc.program import Machine

ARGUMENTS = "ptr %args, i64 %begin, i64 %end, ptr %scratch, ptr %status"


class Target(Protocol):
    """What the emitter asks of a target: facts for lowering, and LLVM's names of its CPU features."""

    @property
    def machine(self) -> Machine: ...

    @property
    def required(self) -> frozenset[str]: ...


def emit_kernel(kernel: ir.Kernel, target: Target) -> str:
    """LLVM IR text of a module that defines the kernel. ValueError for a kernel that breaks the grammar.

    A kernel that stores past the caches is there twice: as such, for memory that begins on cache lines, and
    in the usual way for other memory.
    """
    streamed = streamed_params(kernel, target.machine)
    usual = _body(kernel, target, frozenset())
    if not streamed:
        return _module(kernel, target.machine, {kernel.name: usual})
    past = _body(kernel, target, streamed)
    if not past.streams:
        return _module(kernel, target.machine, {kernel.name: usual})
    names = f"{kernel.name}.past", f"{kernel.name}.usual"
    entry = choice(kernel, streamed, names, ARGUMENTS)
    return _module(kernel, target.machine, dict(zip(names, (past, usual), strict=True)), entry)


def _body(kernel: ir.Kernel, target: Target, streamed: frozenset[ir.Buffer]) -> Builder:
    """The kernel's loops, as the body of a function."""
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
        state.storage[param] = Storage(pointer, constant=param in constant, streamed=param in streamed)
    statements = Statements(state, machine.masked, machine.lanes(4), scratch)
    begin, end = Operand(builder, "i64", 0, "%begin"), Operand(builder, "i64", 0, "%end")
    statements.counted_loop(kernel.task.name, begin, end, 1, kernel.body)
    if builder.streams:
        builder.line("fence seq_cst")  # other threads see what went past the caches only after one
    builder.line("ret void")
    builder.blocks[0].lines[:0] = builder.allocas
    return builder


def _module(kernel: ir.Kernel, machine: Machine, bodies: dict[str, Builder], entry: str = "") -> str:
    """The functions, their helpers and declarations; without an entry the only one is the kernel itself."""
    bits = 8 * machine.vector_bytes
    local = "internal " if entry else ""
    defined = [f'define {local}void @"{n}"({ARGUMENTS}) #0 {{\n{b.body()}\n}}' for n, b in bodies.items()]
    shared = {text: None for b in bodies.values() for text in (*b.helpers.values(), *b.declarations.values())}
    return "\n".join(
        [
            *([entry] if entry else []),
            *defined,
            *shared,
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" '
            '"no-trapping-math"="true" "frame-pointer"="none" }',
            "!0 = !{}",
            "!1 = !{i32 1}",
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
