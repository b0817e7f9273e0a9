"""The structural hash: same computation, same hash, in any process; any difference changes it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.hashing import structural_hash
from graphc.ir.types import TensorType, float32, float64

VECTOR = TensorType((4,), float32)


def program(prefix: str, scale: float = 2.0, table: int = 3) -> Graph:
    x, y = ops.input_(prefix + "x", VECTOR), ops.input_(prefix + "y", VECTOR)
    out = ops.mul(ops.add(x, y), ops.like(x, scale))
    out = ops.add(out, ops.constant(np.full(4, table, np.float32)))
    return Graph((x, y), (out, ops.reduce_sum(out, (0,))))


def test_input_names_do_not_count() -> None:
    assert structural_hash(program("a")) == structural_hash(program("b"))


def test_differences_count() -> None:
    base = program("a")
    x, y = base.inputs
    doubles = tuple(ops.input_(n, TensorType((4,), float64)) for n in "xy")
    variants = [
        program("a", scale=3.0),
        program("a", scale=-2.0),
        program("a", table=4),
        Graph((y, x), base.outputs),
        Graph((x, y), base.outputs[::-1]),
        Graph((x, y), base.outputs[:1]),
        Graph((x, y, ops.input_("z", VECTOR)), base.outputs),
        Graph((x, y), (ops.sub(x, y),)),
        Graph((x, y), (ops.sub(y, x),)),
        Graph(doubles, (ops.sub(*doubles),)),
        Graph((x, y), (ops.add(x, ops.like(x, 0.0)),)),
        Graph((x, y), (ops.add(x, ops.like(x, -0.0)),)),
    ]
    hashes = [structural_hash(g) for g in (base, *variants)]
    assert len(set(hashes)) == len(hashes)
    assert structural_hash(base, "llvm") != structural_hash(base, "reference")


def test_stable_across_processes() -> None:
    code = (
        "from graphc import ops; from graphc.ir.graph import Graph; from graphc.ir.types import *;"
        "from graphc.ir.hashing import structural_hash;"
        "x = ops.input_('q', TensorType((4,), float32));"
        "print(structural_hash(Graph((x,), (ops.mul(ops.exp(x), ops.like(x, 0.5)),))))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    x = ops.input_("p", VECTOR)
    here = structural_hash(Graph((x,), (ops.mul(ops.exp(x), ops.like(x, 0.5)),)))
    assert other.stdout.strip() == here
