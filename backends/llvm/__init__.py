"""The default backend: loop IR to LLVM IR to object code, run by a native call-table walker.

`Backend.compile` takes a plan; `serialize` and `load` move a compiled program through the disk cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphc.backends.llvm.executable import Executable
from graphc.backends.llvm.image import dump_image, make_image, parse_image
from graphc.backends.llvm.objects import assembly_text, emitter_digest, llvm_text
from graphc.backends.llvm.runtime import get_runtime
from graphc.backends.llvm.target import Target, get_target
from graphc.ir.graph import Graph
from graphc.loop.ir import Kernel
from graphc.program import Machine, Plan

if TYPE_CHECKING:
    from graphc.backends.llvm.timing import Cost

__all__ = ["Backend", "Executable"]


def _kernels() -> Any:
    """What writes LLVM IR, loaded when the first kernel is compiled: a start with warm caches needs none."""
    return importlib.import_module("graphc.backends.llvm.kernels")


class Backend:
    """LLVM through llvmlite, for one target."""

    name = "llvm"
    wants_graph = False
    options = frozenset({"winograd", "layout"})

    def __init__(self, target: str | None = None, winograd: bool = True, layout: bool = True) -> None:
        """`target` names a row of the target table; by default ``GRAPHC_TARGET``, or this machine.

        `winograd`: whether convolutions may run by Winograd's algorithm where that pays; its error bound is
        in graphc/loop/lower/convolution/winograd. `layout`: whether convolutions may keep their channels last
        (graphc/passes/layout.py). Raises ValueError for an unknown target.
        """
        self.target: Target = get_target(target)
        # all that lowering knows
        self.machine: Machine = replace(self.target.machine, winograd=winograd, layout=layout)

    @property
    def target_key(self) -> str:
        """Names target, options and this version of the code generator, for the keys of program caches."""
        options = "" if self.machine.winograd else "|direct"
        options += "" if self.machine.layout else "|first"
        return f"{self.target.key}{options}|{emitter_digest()}"

    def ahead(self, expected: int) -> AbstractContextManager[Callable[[Kernel], None]]:
        """Within this, kernels handed to what it yields are compiled in the background, `expected` or so;
        `compile` then finds them."""
        return _kernels().ahead(self.target, expected)

    def compile(self, graph: Graph | None, plan: Plan | None) -> Executable:
        """Make a plan runnable. RuntimeError if the target is not this machine's."""
        if plan is None:
            raise TypeError("the llvm backend compiles plans, and got none")
        runtime = get_runtime(self.target)
        symbols, objects = _kernels().compile_kernels(plan.kernels, self.target)
        return Executable(make_image(plan, self.target.key, symbols, objects), runtime)

    def serialize(self, executable: Executable) -> bytes:
        """The compiled program, object code included, for `load` in another process."""
        return dump_image(executable.image)

    def load(self, data: bytes) -> Executable:
        """The program that `serialize` wrote. ValueError if `data` is damaged or for another target."""
        image = parse_image(data)
        if image.target != self.target.key:
            raise ValueError(f"program was compiled for {image.target!r}, not for {self.target.key!r}")
        return Executable(image, get_runtime(self.target))

    def costs(self, kernels: Sequence[Kernel]) -> tuple[list[Cost], list[tuple[str, Cost]]]:
        """What compiling each kernel costs, and each tile function that they call. Works for any target."""
        timing = importlib.import_module("graphc.backends.llvm.timing")
        return timing.kernel_costs(kernels, self.target), timing.tile_costs(kernels, self.target)

    def llvm_ir(self, kernel: Kernel, optimised: bool = False) -> str:
        """LLVM IR of a kernel, as emitted or after the passes. Works for any target."""
        text = _kernels().emit_kernel(kernel, self.target)
        return llvm_text(text, self.target) if optimised else text

    def assembly(self, kernel: Kernel) -> str:
        """Assembly of a kernel. Works for any target."""
        return assembly_text(_kernels().emit_kernel(kernel, self.target), self.target)
