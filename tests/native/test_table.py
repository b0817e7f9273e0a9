"""Every sample of every registered op, native against reference, and so its gradient.

The samples of an op, at all their dtypes, are the outputs of one program.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from graphc.ir.node import Node
from graphc.ops import REGISTRY
from graphc.ops.samples import Case, all_samples

from .samples import disagreement, place, pull, run_both

GRADIENT_ULPS = 256.0

CASES: dict[str, list[Case]] = defaultdict(list)
for _case in all_samples():
    CASES[_case.op].append(_case)


def placed_samples(op: str):
    return [place(case, dtype) for case in CASES[op] for dtype in case.dtypes]


@pytest.mark.parametrize("op", sorted(REGISTRY))
def test_values(op: str) -> None:
    samples = placed_samples(op)
    arrays = {x: a for s in samples for x, a in zip(s.inputs, s.arrays, strict=True)}
    results = run_both(arrays, [s.output for s in samples])
    wrong = [
        f"{s.name}: {text}"
        for s, (native, reference) in zip(samples, results, strict=True)
        if (text := disagreement(native, reference, s.sample.ulps, each=s.sample.label == "edges"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("op", sorted(name for name, op in REGISTRY.items() if op.vjp is not None))
def test_gradients(op: str) -> None:
    pulled = [p for s in placed_samples(op) if (p := pull(s)) is not None]
    arrays: dict[Node, np.ndarray] = {}
    for p in pulled:
        arrays |= zip(p.placed.inputs, p.placed.arrays, strict=True)
        arrays[p.cotangent] = p.weights
    results = iter(run_both(arrays, [g for p in pulled for g in p.outputs]))
    wrong = []
    for p in pulled:
        for _ in p.outputs:
            text = disagreement(*next(results), ulps=max(GRADIENT_ULPS, p.placed.sample.ulps))
            wrong += [f"{p.placed.name}: {text}"] * bool(text)
    assert not wrong, "\n".join(wrong)
