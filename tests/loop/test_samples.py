"""Every sample of every op through partition, lowering and the interpreter, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.node import Kind
from graphc.ir.types import DType
from graphc.ops.samples import Case, all_samples
from graphc.passes.fuse import partition

from .running import NARROW, WIDE, compare, execute, oracle

CASES = [(case, dtype) for case in all_samples() for dtype in case.dtypes]


def _id(value: object) -> str:
    return value.id if isinstance(value, Case) else getattr(value, "name", "")


@pytest.mark.parametrize("case,dtype", CASES, ids=_id)
def test_sample(case: Case, dtype: DType) -> None:
    graph = case.build(dtype)
    if sum(n.type.size for n in graph.nodes) > 1500:
        pytest.skip("too large to interpret")
    if any(n.kind is Kind.CONV for n in graph.nodes):
        pytest.skip("interpreted in test_conv.py")
    arrays = case.inputs(np.random.default_rng(7), dtype)
    values = dict(zip(graph.inputs, arrays, strict=True))
    expected = oracle(graph.outputs, values)
    machines = (WIDE, NARROW) if dtype is case.dtypes[0] else (WIDE,)
    for machine in machines:
        for got, want in zip(execute(partition(graph, machine), values, machine), expected, strict=True):
            compare(got, want)
