"""A private little JIT for emitter tests: one kernel, called through ctypes on NumPy arrays."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.passes import optimise
from graphc.loop import ir
from graphc.loop.scratch import scratch_bytes
from graphc.program import Machine

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()


@dataclass(frozen=True)
class TestTarget:
    """A Machine and the LLVM names of a processor."""

    __test__ = False
    machine: Machine
    triple: str
    cpu: str
    features: str = ""


NATIVE = TestTarget(
    Machine("native", 64 if "+avx512f" in llvm.get_host_cpu_features().flatten() else 32, ((6, 4),), True),
    llvm.get_default_triple(),
    llvm.get_host_cpu_name(),
    llvm.get_host_cpu_features().flatten(),
)
AVX2 = TestTarget(Machine("avx2", 32, ((6, 2),), False), llvm.get_default_triple(), "x86-64-v3")
NEON = TestTarget(Machine("neon", 16, ((6, 4),), False), "aarch64-unknown-linux-gnu", "generic", "+neon")


def target_machine(target: TestTarget) -> llvm.TargetMachine:
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


def optimised(kernel: ir.Kernel, target: TestTarget = NATIVE) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    module = llvm.parse_assembly(emit_kernel(kernel, target))
    module.triple = target.triple
    module.verify()
    machine = target_machine(target)
    optimise(module, machine)
    return module, machine


def assembly(kernel: ir.Kernel, target: TestTarget = NATIVE) -> str:
    """The kernel's machine code as text."""
    module, machine = optimised(kernel, target)
    return machine.emit_assembly(module)


class Compiled:
    """A kernel ready to run in this process."""

    def __init__(self, kernel: ir.Kernel, target: TestTarget = NATIVE) -> None:
        module, machine = optimised(kernel, target)
        self.kernel = kernel
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        address = self.engine.get_function_address(kernel.name)
        pointer = ctypes.c_void_p
        self.function = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int64, ctypes.c_int64, pointer, pointer)(
            address
        )
        store = np.full(scratch_bytes(kernel) + 64, 0xA5, np.uint8)
        self.scratch = store[-store.ctypes.data % 64 :]
        self.status = np.zeros(1, np.int64)

    def __call__(self, *arrays: np.ndarray, tasks: tuple[int, int] | None = None) -> int:
        """Run the tasks (all of them by default) and give the status word."""
        for array, param in zip(arrays, self.kernel.params, strict=True):
            assert array.dtype == param.dtype.numpy
            assert array.flags.c_contiguous
        pointers = np.array([a.ctypes.data for a in arrays], np.uint64)
        self.status[0] = 0
        begin, end = tasks or (0, self.kernel.tasks)
        self.function(pointers.ctypes.data, begin, end, self.scratch.ctypes.data, self.status.ctypes.data)
        return int(self.status[0])
