"""The machine code of the micro-kernels inside whole kernels, on every target of the table: multiply-adds as
designed, and no vectors on the stack in the hot loop.

Products of direct convolutions, Winograd and attention run in register tiles; what is looked at is every tile
that the lowering really chose. Depthwise convolutions have loops of their own. (The tile by itself is in
test_tile.py, contractions of few rows are in test_thin_assembly.py.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from jit import assembly

import graphc
from graphc import ops, pipeline
from graphc.backends.llvm.kernels import tile_source, tiles_of
from graphc.backends.llvm.objects import assembly_text
from graphc.backends.llvm.target import Target, get_target
from graphc.backends.llvm.tile import UNROLL
from graphc.frontend.tracing.graphs import trace_program
from graphc.ir.node import Node
from graphc.loop.ir import Kernel
from graphc.loop.lower import lower_group
from graphc.loop.lowered import calls_in
from tests.loop.test_ways import group_of, leaf
from tests.native.test_depthwise import options, three

TARGETS = ("x86-64-v4", "x86-64-v3", "aarch64")
REGISTERS = {"x86-64-v4": 32, "x86-64-v3": 16, "aarch64": 32}
DIRECTIONS = ("forward", "input-grad", "weight-grad")


def multiply_adds(text: str) -> int:
    return len(re.findall(r"^\s+(?:vfn?madd|fml[as])", text, re.MULTILINE))


def hot_loop(text: str) -> str:
    """The block with the most multiply-adds, up to the branch that ends it."""
    block = max(re.split(r"\n(?=\.L)", text), key=multiply_adds)
    return re.split(r"\n\t(?:j|b\.|cb|tb)", block)[0]


def vectors_on_stack(text: str) -> list[str]:
    return [
        line
        for line in text.splitlines()
        if (re.search(r"\(%rsp", line) and re.search(r"%[xyz]mm", line))
        or (re.search(r"\[sp", line) and re.search(r"\b[qv]\d", line))
    ]


def three_directions(cin: int, cout: int, size: int, window: int, stride: int = 1) -> list[Node]:
    """A convolution at batch 8 and its gradients."""
    at = options(2, low=window // 2, stride=stride)
    x, w = leaf("x", 8, cin, size, size), leaf("w", cout, cin, window, window)
    forward = ops.conv(x, w, **at)
    dy = leaf("dy", *forward.shape)
    return [
        forward,
        ops.conv_input_grad(dy, w, (size, size), **at),
        ops.conv_weight_grad(x, dy, (window, window), **at),
    ]


CONVOLUTIONS = {
    "3x3": (64, 64, 28, 3),
    "3x3-stride-2": (64, 128, 28, 3, 2),
    "1x1": (64, 128, 28, 1),
    "stem": (3, 64, 64, 7, 2),
    "7x7-images": (128, 128, 7, 3),
}


def kernels(node: Node, target: Target, winograd: bool) -> Iterator[Kernel]:
    machine = replace(target.machine, winograd=winograd)
    for call in calls_in(lower_group(group_of(node), machine)):
        yield call.kernel


def check_tiles(kernel: Kernel, target: Target) -> list[int]:
    """Accumulators of each tile that a kernel calls; what their machine code must be is asserted."""
    found = []
    for spec in tiles_of(kernel):
        hot = hot_loop(assembly_text(tile_source(spec, target).emit(), target))
        sums = spec.rows * spec.lanes // target.machine.lanes(spec.itemsize)
        assert multiply_adds(hot) == UNROLL * sums, spec.symbol
        assert "call" not in hot
        if not (target.name == "x86-64-v3" and spec.rows == 12):  # see test_tile.py
            assert not vectors_on_stack(hot), f"{target.name} {spec.symbol}:\n{hot}"
        found.append(sums)
    return found


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("winograd", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize("shape", CONVOLUTIONS)
def test_convolutions_multiply_in_tiles(shape: str, direction: str, winograd: bool, name: str) -> None:
    target = get_target(name)
    node = three_directions(*CONVOLUTIONS[shape])[DIRECTIONS.index(direction)]
    sums = [s for kernel in kernels(node, target, winograd) for s in check_tiles(kernel, target)]
    narrow = shape == "stem" and direction == "input-grad"  # three rows, one a channel
    usual = min(0.5 * REGISTERS[name], 14)  # two vectors for each of a row of seven pixels
    assert max(sums) >= (6 if narrow else usual), sums


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_depthwise_loops_stay_in_registers(direction: str, stride: int, name: str) -> None:
    """Blocks of four rows (where a stride is read in place two); every tap but a row's first, which is a
    product alone, is a multiply-add."""
    target = get_target(name)
    node = three(2, 32, (56, 56), (3, 3), low=1, stride=stride)[DIRECTIONS.index(direction)]
    (kernel,) = kernels(node, target, True)
    hot = hot_loop(assembly(kernel, target))
    taps = 36 if direction == "weight-grad" else 32
    if direction == "input-grad" and stride == 2:
        taps = 14  # two rows of each phase, with 3 and with 6 taps, the first of each alone
    elif stride == 2 and target.machine.masked:
        taps //= 2
    assert multiply_adds(hot) % taps == 0, hot
    assert multiply_adds(hot) > 0
    assert not vectors_on_stack(hot), hot
    assert "call" not in hot


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [64, 3], ids=["depthwise", "stem"])
def test_channels_last_loops_stay_in_registers(channels: int, stride: int, name: str) -> None:
    """A row of a window under some pixels, whose sums wait in registers for the next row."""
    target = get_target(name)
    deep = channels > 3
    x, w = leaf("x", 2, 56, 56, channels), leaf("w", 64, 1 if deep else channels, 3, 3)
    at = options(2, low=1, stride=stride, groups=channels if deep else 1)
    *_, kernel = kernels(ops.conv(x, w, **at, last=True), target, True)
    hot = hot_loop(assembly(kernel, target))
    sums = 4 if deep else 2 * (8 if name == "x86-64-v4" else 4)
    assert multiply_adds(hot) == sums * (3 if deep else 9), hot
    assert not vectors_on_stack(hot), hot
    assert "call" not in hot


@pytest.fixture(scope="module")
def attention() -> tuple:
    """Attention and its gradients as a graph."""
    graphc.manual_seed(0)
    q, k, v = (graphc.randn(2, 4, 256, 64).requires_grad_() for _ in range(3))

    def both(q, k, v):
        out = graphc.nn.functional.scaled_dot_product_attention(q, k, v)
        return out, *graphc.autograd.grad(out, [q, k, v], graphc.ones(*out.shape))

    return trace_program(both, q, k, v)


@pytest.mark.parametrize("name", TARGETS)
def test_attention_multiplies_in_tiles(attention: tuple, name: str) -> None:
    target = get_target(name)
    planned = pipeline.inspect(*attention, machine=name).planned
    assert planned is not None
    made = {kernel.name: kernel for kernel in planned.plan.kernels}
    for kernel in (made["attention"], made["attention_grad"]):
        assert max(check_tiles(kernel, target)) >= 0.7 * REGISTERS[name]
        if name == "x86-64-v4":  # exponentials of eight vectors; elsewhere not even their constants fit
            assert len(vectors_on_stack(hot_loop(assembly(kernel, target)))) <= 4


def test_vectors_on_the_stack_are_seen() -> None:
    """The test of the tests: what spills look like on each target, and what does not count."""
    spills = ["\tvmovups\t%ymm7, 240(%rsp)", "\tvfmadd231ps\t16(%rsp), %zmm1, %zmm2"]
    spills += ["\tstp\tq0, q20, [sp, #48]", "\tldr\tq17, [sp]"]
    fine = ["\tmovq\t8(%rsp), %rax", "\tldr\tx8, [sp, #16]", "\tvmovups\t-704(%rbp,%r9,4), %zmm11"]
    assert vectors_on_stack("\n".join(spills + fine)) == spills
