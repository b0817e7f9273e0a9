"""A private little JIT for emitter tests: one kernel, called through ctypes on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np

from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.kernels import tile_source, tiles_of
from graphc.backends.llvm.objects import assembly_text
from graphc.backends.llvm.passes import optimise
from graphc.backends.llvm.target import Target, check_runnable, get_target, new_target_machine
from graphc.loop import interpret, ir
from graphc.loop.scratch import scratch_bytes

NATIVE = get_target("native")


def flip_masked(target: Target) -> Target:
    """The same target with the other way of doing partial vector groups."""
    return replace(target, machine=replace(target.machine, masked=not target.machine.masked))


def runnable_targets() -> list[Target]:
    """This machine as it is and with partial groups done the other way, and lesser machines it can play."""
    found = [NATIVE, flip_masked(NATIVE)]
    for name in ("x86-64-v3", "aarch64"):
        target = get_target(name)
        try:
            check_runnable(target)
        except RuntimeError:
            continue
        found.append(target)
    return found


TARGETS = runnable_targets()


def assembly(kernel: ir.Kernel, target: Target = NATIVE) -> str:
    """The kernel's machine code as text."""
    return assembly_text(emit_kernel(kernel, target), target)


class Compiled:
    """A kernel ready to run in this process."""

    def __init__(self, kernel: ir.Kernel, target: Target = NATIVE) -> None:
        machine = new_target_machine(target)
        module = llvm.parse_assembly(emit_kernel(kernel, target))
        module.triple = target.triple
        module.verify()
        optimise(module, machine)
        self.kernel = kernel
        self.engine = llvm.create_mcjit_compiler(module, machine)
        for spec in tiles_of(kernel):
            self.engine.add_module(llvm.parse_assembly(tile_source(spec, target).emit()))
        self.engine.finalize_object()
        address = self.engine.get_function_address(kernel.name)
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self.function = ctypes.CFUNCTYPE(None, pointer, count, count, pointer, pointer)(address)
        store = np.full(scratch_bytes(kernel) + 64, 0xA5, np.uint8)
        self.scratch = store[-store.ctypes.data % 64 :]
        self.status = np.zeros(1, np.int64)

    def __call__(self, *arrays: np.ndarray) -> int:
        """Run all tasks and give the status word."""
        for array, param in zip(arrays, self.kernel.params, strict=True):
            assert array.dtype == param.dtype.numpy
            assert array.flags.c_contiguous
        pointers = np.array([a.ctypes.data for a in arrays], np.uint64)
        self.status[0] = 0
        tasks = self.kernel.tasks
        self.function(pointers.ctypes.data, 0, tasks, self.scratch.ctypes.data, self.status.ctypes.data)
        return int(self.status[0])


GUARD = 64


def guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of an array with guard bytes on both sides, and the whole memory."""
    memory = np.full(array.nbytes + 2 * GUARD, 0x5A, np.uint8)
    inside = memory[GUARD : GUARD + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside, memory


def check(
    kernel: ir.Kernel,
    arrays: Sequence[np.ndarray],
    rtol: float = 0.0,
    atol: float = 0.0,
    targets: Sequence[Target] = TARGETS,
) -> None:
    """Compare compiled code with the interpreter on every target; nothing outside the arrays may change."""
    wanted = [a.copy() for a in arrays]
    status = interpret.run(kernel, wanted)
    for target in targets:
        inside, memory = zip(*(guarded(a) for a in arrays), strict=True)
        got = Compiled(kernel, target)(*inside)
        assert bool(got) == bool(status), target.name
        for param, want, have, whole in zip(kernel.params, wanted, inside, memory, strict=True):
            np.testing.assert_allclose(have, want, rtol=rtol, atol=atol, err_msg=f"{param.name} on {target}")
            assert (whole[:GUARD] == 0x5A).all(), f"write before {param.name}"
            assert (whole[-GUARD:] == 0x5A).all(), f"write after {param.name}"
