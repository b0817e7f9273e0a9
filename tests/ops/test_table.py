"""Every registered op joins this table: what it computes, its type rule, its gradients, its mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.types import DType, float64
from graphc.ops import REGISTRY
from graphc.ops.op import SAMPLES
from graphc.ops.sample import ErrorSample
from graphc.ops.samples import Case, all_errors, all_samples
from tests.ops.numeric import check_gradient, evaluate, gradient_graph, weighted

CASES = list(all_samples())
ERRORS = list(all_errors())
TYPED = [(c, t) for c in CASES for t in c.dtypes]
SMOOTH = [c for c in CASES if c.sample.gradient and float64 in c.dtypes]


def _id(value: object) -> str | None:
    if isinstance(value, Case):
        return value.id
    return value.name if isinstance(value, DType) else None


def test_every_op_has_samples() -> None:
    sampled = {c.op for c in CASES}
    assert sampled == set(SAMPLES) == set(REGISTRY)


def test_every_op_with_operands_refuses_something() -> None:
    """An op that takes any tensor at all has nothing to refuse."""
    total = {"cast", "stop_gradient"}
    assert {op for op, _ in ERRORS} == set(REGISTRY) - total


def test_every_differentiable_op_has_a_gradient_sample() -> None:
    """Except those that have tests of their own in tests/test_autodiff.py."""
    checked = {c.op for c in SMOOTH}
    assert {name for name, op in REGISTRY.items() if op.vjp is not None} - checked == {
        "stop_gradient",
        "with_gradient",
        "cast",
    }


@pytest.mark.parametrize("case,dtype", TYPED, ids=_id)
def test_value(case: Case, dtype: DType) -> None:
    """The value has the inferred type (the evaluator asserts it), and is what NumPy expects."""
    graph = case.build(dtype)
    arrays = case.inputs(np.random.default_rng(3), dtype)
    (result,) = evaluate(graph, arrays)
    if case.sample.expect is not None:
        expected = np.asarray(case.sample.expect(*arrays))
        assert result.dtype == expected.dtype
        tolerance = 1e-5 if result.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", SMOOTH, ids=_id)
def test_gradient(case: Case) -> None:
    """First order, and second order as the gradient of a weighted sum of gradients."""
    rng = np.random.default_rng(7)
    graph = case.build(float64)
    arrays = case.inputs(rng, float64)
    check_gradient(graph, arrays, rng, tolerance=1e-6)
    first = gradient_graph(graph)
    weights = [rng.standard_normal(g.shape) for g in first.outputs]
    ct = rng.standard_normal(graph.outputs[0].shape)
    check_gradient(weighted(first, weights), [*arrays, ct], rng, tolerance=1e-5)


@pytest.mark.parametrize("error", [e for _, e in ERRORS], ids=[op for op, _ in ERRORS])
def test_refusal(error: ErrorSample) -> None:
    with pytest.raises(error.error) as caught:
        error.build()
    assert error.fragment in str(caught.value)
