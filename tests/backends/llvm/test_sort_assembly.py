"""The machine code of sorting: elements are counted in vectors; nothing is spilled or called, anywhere."""

from __future__ import annotations

import re

import pytest
from jit import assembly

from graphc import ops
from graphc.backends.llvm.target import Target, get_target
from graphc.ir.partition import Group
from graphc.ir.types import DType, TensorType, float32, float64
from graphc.loop.ir import Kernel
from graphc.loop.lower.sorting import lower_sort

TARGETS = {name: get_target(name) for name in ("x86-64-v4", "x86-64-v3", "aarch64")}
COMPARE = {"x86-64-v4": r"vpcmp\w*d\b.*zmm", "x86-64-v3": r"vpcmp\w*d\b.*ymm", "aarch64": r"cmg[te]\b.*4s"}
STACK = r"\(%rsp|\[sp"
CALL = r"\bcallq?\b|\bblr?\s"


def kernels(target: Target, kind: DType, extent: int, kept: int | None = None) -> list[Kernel]:
    node = ops.argsort(ops.input_("x", TensorType((3, extent), kind)), 1, False, kept)
    calls = lower_sort(Group((node,), node.inputs, (node,)), target.machine)
    return list(dict.fromkeys([call.kernel for call in calls]))


def loops(text: str) -> list[str]:
    """Every block of instructions that jumps back to its own beginning."""
    blocks = re.split(r"^(\.LBB\w+):", text, flags=re.M)
    found = []
    for name, body in zip(blocks[1::2], blocks[2::2], strict=True):
        whole = re.match(rf".*?\n\s*(j\w+|b\.\w+|cb\w+)\s.*?{re.escape(name)}\b", body, re.S)
        found += [whole.group()] if whole else []
    return found


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", [float32, float64], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("extent", "kept"), [(48, None), (2000, None), (1 << 18, None), (2000, 8), (1 << 18, 8)]
)
def test_loops_call_nothing_and_spill_nothing(extent: int, kept: int | None, kind: DType, name: str) -> None:
    for kernel in kernels(TARGETS[name], kind, extent, kept):
        found = loops(assembly(kernel, TARGETS[name]))
        assert found, kernel.name
        for loop in found:
            assert not re.search(CALL, loop), loop
            assert not re.search(STACK, loop), loop


@pytest.mark.parametrize("name", TARGETS)
def test_short_lines_are_counted_in_vectors(name: str) -> None:
    (kernel,) = kernels(TARGETS[name], float32, 48)
    assert any(re.search(COMPARE[name], loop) for loop in loops(assembly(kernel, TARGETS[name])))
