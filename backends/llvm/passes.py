"""The short list of LLVM passes that emitted kernels need (they come vectorised and hoisted already)."""

from __future__ import annotations

import llvmlite.binding as llvm


def optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Put locals into registers and clean up, in place."""
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
