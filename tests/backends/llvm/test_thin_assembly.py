"""The machine code of contractions of few rows: multiply-adds as planned, sums in registers, no stack."""

from __future__ import annotations

import re

import pytest
from jit import assembly

from graphc import ops
from graphc.backends.llvm.target import Target, get_target
from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, float32
from graphc.loop import lower
from graphc.loop.lower import lower_group
from tests.loop.running import make_free

TARGETS = ("x86-64-v4", "x86-64-v3", "aarch64")
STACK = r"\(%rsp|\(%rbp\)|\[sp"  # (%rbp with an index is a register like others)
N, K = 1536, 1024


def kernel(rows: int, right: int, target: Target):
    """x[rows, K] times a weight stored [N, K] (right = 1) or [K, N], and its groups."""
    x = ops.input_("x", TensorType((rows, K), float32))
    w = ops.input_("w", TensorType((N, K) if right else (K, N), float32))
    y: Node = ops.dot_general(x, w, ((1,), (right,)))
    nodes = tuple(n for n in toposort((y,)) if n.kind is not Kind.INPUT)
    return lower_group(Group(nodes, (x, w), (y,)), target.machine)[0].kernel


def hot_block(text: str) -> str:
    """The loop with the most multiply-adds: a block up to the branch that ends it."""
    block = max(re.split(r"\n(?=\.L)", text), key=multiply_adds)
    return re.split(r"\n\t(?:j|b\.|cb)", block)[0]


def multiply_adds(text: str) -> int:
    return len(re.findall(r"^\s+(?:vfmadd|fmla)", text, re.MULTILINE))


@pytest.fixture
def planned(monkeypatch):
    """planned(way) makes a way free of charge, and gives the list of the plans that were made."""

    def choose(name: str) -> list:
        found = make_free(monkeypatch, name)
        monkeypatch.setattr(lower, "_known", {})
        return found

    return choose


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_dot_products_keep_their_sums_in_registers(planned, name: str, rows: int) -> None:
    found, target = planned("plan_dots"), get_target(name)
    hot = hot_block(assembly(kernel(rows, 1, target), target))
    (plan,) = found
    sums = plan.rows[0] * plan.cols
    assert sums >= 4
    assert multiply_adds(hot) % sums == 0
    assert ("prefetch" in hot or "prfm" in hot) == bool(plan.part and plan.ahead)
    assert not re.search(STACK, hot), hot
    assert "call" not in hot


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_scaled_rows_are_read_once(planned, name: str, rows: int) -> None:
    found, target = planned("plan_scaled"), get_target(name)
    hot = hot_block(assembly(kernel(rows, 0, target), target))
    (plan,) = found
    assert plan.steps >= 2
    assert multiply_adds(hot) % (plan.steps * plan.rows[0]) == 0
    assert not re.search(STACK, hot), hot
    assert "call" not in hot
