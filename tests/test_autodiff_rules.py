"""Rules of operands' cotangents from memory make what the rules themselves make."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.autodiff import rules
from graphc.autodiff.rules import cotangents
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32

F32 = TensorType((3, 4), float32)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_known", {})


def _x(name: str) -> Node:
    return ops.input_(name, F32)


def test_recorded_rules_make_the_same_nodes() -> None:
    for i in range(4):
        a, b, ct = _x(f"a{i}"), _x(f"b{i}"), _x(f"ct{i}")
        for node in (ops.mul(a, b), ops.div(a, b), ops.tanh(a), ops.reduce_sum(a, (1,)), ops.sub(a, b)):
            given = ct if node.type == F32 else ops.reduce_sum(ct, (1,))
            assert node.op.vjp is not None
            parts = zip(node.inputs, node.op.vjp(given, node), strict=True)
            assert cotangents(node, given, {a, b}) == [(n, p) for n, p in parts if p is not None]
    assert all(known is not None for known in rules._known.values())


def test_only_operands_that_matter_are_given_cotangents() -> None:
    for i in range(4):
        a, b, ct = _x(f"a{i}"), _x("b"), _x("ct")
        assert cotangents(ops.mul(a, b), ct, {b}) == [(b, ops.mul(ct, a))]
        assert cotangents(ops.mul(a, b), ct, {a}) == [(a, ops.mul(ct, b))]
        assert cotangents(ops.mul(a, a), ct, {a}) == [(a, ops.mul(ct, a))] * 2


def test_attributes_and_types_tell_rules_apart() -> None:
    for _ in range(3):
        a = _x("a")
        for axis, size in ((0, 4), (1, 3)):
            ct = ops.input_("ct", TensorType((size,), float32))
            ((_, part),) = cotangents(ops.reduce_sum(a, (axis,)), ct, {a})
            assert part is ops.broadcast(ct, (3, 4), (1 - axis,))


def test_a_rule_that_looks_at_numbers_is_asked_every_time() -> None:
    a, ct = _x("a"), _x("ct")
    for exponent in (2.0, _x("e"), 2.0, _x("e"), 0.0, 3.0, 2.0):
        power = ops.pow(a, exponent if isinstance(exponent, Node) else ops.like(a, exponent))
        assert power.op.vjp is not None
        assert cotangents(power, ct, {a}) == [(a, power.op.vjp(ct, power)[0])]


def test_an_op_without_gradient_says_so() -> None:
    a = _x("a")
    node = ops.reduce_and(ops.lt(a, a), (0,))
    with pytest.raises(NotImplementedError, match="has no gradient"):
        cotangents(node, node, {a})
