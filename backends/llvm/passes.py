"""The short list of LLVM passes that emitted kernels need (they come vectorised and hoisted already)."""

from __future__ import annotations

import llvmlite.binding as llvm

FINISHED = '"graphc-finished"'  # the attribute of functions that are written as they are to be compiled


def optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Put locals into registers and clean up, in place; finished functions are left alone."""
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration and not _is_finished(function):
            passes.run(function, builder)


def _is_finished(function: llvm.ValueRef) -> bool:
    return any(FINISHED.encode() in attributes for attributes in function.attributes)
