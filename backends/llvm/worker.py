"""A helper process that compiles LLVM IR; run by `parallel.py` as a plain script.

It imports llvmlite and nothing of graphc, so it is ready in some 60 ms. On standard input: a JSON line with
the target, then requests; on standard output: one byte when ready, then an answer for each request. A
request is 8 bytes of length and LLVM IR text; an answer is one byte (1 if it compiled), 8 bytes of length,
and the object code.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import BinaryIO

import llvmlite.binding as llvm

READY = b"R"
DONE, FAILED = b"\1", b"\0"
LENGTH_BYTES = 8


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends."""
    wanted = json.loads(requests.readline())
    optimise = runpy.run_path(str(Path(__file__).with_name("passes.py")))["optimise"]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(wanted.pop("triple")).create_target_machine(**wanted)
    answers.write(READY)
    answers.flush()
    while len(head := requests.read(LENGTH_BYTES)) == LENGTH_BYTES:
        text = requests.read(int.from_bytes(head, "little")).decode()
        try:
            module = llvm.parse_assembly(text)
            module.triple = machine.triple
            module.data_layout = str(machine.target_data)
            optimise(module, machine)
            status, code = DONE, machine.emit_object(module)
        except RuntimeError:  # whoever asked compiles it again, and sees the error
            status, code = FAILED, b""
        answers.write(status + len(code).to_bytes(LENGTH_BYTES, "little") + code)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
