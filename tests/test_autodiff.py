"""Gradients as graph transformations: sums, stops, orders, sites, depth, and PyTorch's conventions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.autodiff import gradients, jvp, vjp
from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Kind, Node, Op, Site, make, set_site_provider, site_of
from graphc.ir.types import DType, TensorType, bool_, float32, float64, int64
from tests.ops.numeric import along, check_gradient, evaluate

V = TensorType((4,), float64)
X = ops.input_("x", V)
Y = ops.input_("y", V)


def total(node: Node) -> Node:
    return ops.reduce_sum(node, range(len(node.shape)))


def grad(output: Node, *wrt: Node) -> list[Node | None]:
    """Gradients of the sum of a node's elements."""
    return gradients([output], [ops.ones(output.type)], wrt)


def value(node: Node | None, **arrays: np.ndarray) -> np.ndarray:
    assert node is not None
    leaves = [ops.input_(name, TensorType(a.shape, float64)) for name, a in arrays.items()]
    return evaluate(Graph(tuple(leaves), (node,)), list(arrays.values()))[0]


def test_a_function_of_one_operand_sends_one_product() -> None:
    """x * sigmoid(x) * 0.5: the cotangent is a factor of one product, the rest are forward values."""
    u = ops.input_("u", V)
    (g,) = gradients([ops.mul(ops.mul(X, ops.sigmoid(X)), ops.like(X, 0.5))], [u], [X])
    assert g is not None
    derivative = [n for n in toposort([g]) if n.op.name == "mul" and n.inputs[0] is u]
    assert len(derivative) == 1
    x, ct = np.linspace(-3, 3, 4), np.arange(1.0, 5.0)
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(value(g, x=x, u=ct), ct * 0.5 * (s + x * s * (1 - s)), rtol=1e-14)


def test_uses_add_up() -> None:
    x = np.arange(4.0)
    (g,) = grad(ops.add(ops.mul(X, X), X), X)
    np.testing.assert_allclose(value(g, x=x), 2 * x + 1)


def test_unconnected_is_none_and_vjp_gives_zeros() -> None:
    assert grad(ops.exp(X), Y) == [None]
    assert vjp([ops.exp(X)], [ops.ones(V)], [Y]) == [ops.zeros(V)]


def test_several_outputs_share_one_walk() -> None:
    a, b = gradients([ops.mul(X, Y), ops.exp(X), X], [Y, X, Y], [X, Y])
    x, y = np.arange(4.0), np.arange(4.0) + 2
    np.testing.assert_allclose(value(a, x=x, y=y), y * y + x * np.exp(x) + y)
    np.testing.assert_allclose(value(b, x=x, y=y), x * y)


def test_with_respect_to_an_intermediate_node() -> None:
    middle = ops.sin(X)
    to_middle, to_x = grad(ops.mul(middle, middle), middle, X)
    x = np.arange(4.0)
    np.testing.assert_allclose(value(to_middle, x=x), 2 * np.sin(x))
    np.testing.assert_allclose(value(to_x, x=x), 2 * np.sin(x) * np.cos(x))


def test_with_respect_to_the_output_itself() -> None:
    assert gradients([X], [Y], [X]) == [Y]


def test_stop_gradient_and_integers_cut() -> None:
    assert grad(ops.mul(ops.stop_gradient(X), Y), X) == [None]
    assert grad(ops.cast(ops.cast(X, int64), float64), X) == [None]
    (g,) = grad(ops.mul(ops.stop_gradient(X), X), X)
    np.testing.assert_allclose(value(g, x=np.arange(4.0)), np.arange(4.0))


def test_with_gradient_takes_the_other_path() -> None:
    (g,) = grad(ops.with_gradient(ops.mul(X, X), ops.mul(X, Y)), X)
    assert g is Y or np.array_equal(value(g, y=np.arange(4.0)), np.arange(4.0))


def test_only_nodes_that_reach_wrt_are_differentiated() -> None:
    """No gradient nodes appear for the branch that does not lead to X."""
    branch = ops.tanh(ops.tanh(Y))
    (g,) = grad(ops.mul(X, branch), X)
    assert g is not None
    assert {n.op.name for n in toposort([g])} == {"input", "tanh", "mul", "broadcast", "constant"}


def test_cotangent_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"output f64\[4\] is a f32\[4\]; they must be alike"):
        gradients([X], [ops.zeros(TensorType((4,), float32))], [X])


def test_cast_between_floats_is_differentiable() -> None:
    x = ops.input_("x32", TensorType((3,), float32))
    (g,) = grad(ops.exp(ops.cast(x, float64)), x)
    assert g is not None
    assert g.dtype is float32
    data = np.array([0.0, 0.5, 1.0], np.float32)
    np.testing.assert_allclose(evaluate(Graph((x,), (g,)), [data])[0], np.exp(data), rtol=1e-6)


def test_deep_chains_need_no_recursion() -> None:
    node = X
    for _ in range(5000):
        node = ops.sin(node)
    (g,) = grad(node, X)
    assert np.isfinite(value(g, x=np.ones(4))).all()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_any_order(order: int) -> None:
    node = ops.exp(ops.mul(X, ops.like(X, 0.5)))
    for _ in range(order):
        (found,) = grad(node, X)
        assert found is not None
        node = found
    x = np.linspace(-1, 1, 4)
    np.testing.assert_allclose(value(node, x=x), 0.5**order * np.exp(x / 2))


def test_gradient_nodes_carry_the_site_of_their_forward_node() -> None:
    place = Site("user.py", 12, "Net.fc")
    before = set_site_provider(lambda: place)
    try:
        x = ops.input_("sited", V)
        loss = total(ops.tanh(ops.mul(x, x)))
        set_site_provider(lambda: Site("user.py", 99))
        (g,) = grad(loss, x)
    finally:
        set_site_provider(before)
    assert g is not None
    fresh = [n for n in toposort([g]) if n not in toposort([loss]) and n.inputs]
    fresh = [n for n in fresh if x in toposort([n])]  # constants may be older than this test
    assert fresh
    assert {site_of(n) for n in fresh} == {place}


def test_site_provider_is_restored_when_a_rule_fails() -> None:
    provider = lambda: None  # noqa: E731
    rough = Op("rough", Kind.ELEMENTWISE, infer=lambda types, attrs: types[0])
    before = set_site_provider(provider)
    try:
        with pytest.raises(NotImplementedError, match="rough has no gradient; put stop_gradient"):
            grad(make(rough, (X,)), X)
        assert set_site_provider(None) is provider
    finally:
        set_site_provider(before)


@pytest.mark.parametrize("contract", [((1,), (0,)), ((0,), (0,)), ((1,), (1,))])
def test_gradients_of_matrix_products_need_few_transposes(contract: tuple) -> None:
    """None for a @ b and a @ b.T: operands are swapped instead."""
    a, b = ops.input_("a", TensorType((5, 5), float32)), ops.input_("b", TensorType((5, 5), float32))
    y = ops.dot_general(a, b, contract)
    ct = ops.input_("ct", y.type)
    found = [g for g in gradients([y], [ct], [a, b]) if g is not None]
    assert [g.op.name for g in found] == ["dot_general", "dot_general"]


# ------------------------------------------------------------------------ jvp


def test_jvp_against_numeric_derivatives() -> None:
    outputs = [ops.mul(ops.tanh(X), ops.exp(Y)), total(ops.div(X, ops.exp(Y)))]
    tx, ty = ops.input_("tx", V), ops.input_("ty", V)
    rng = np.random.default_rng(2)
    x, y, dx, dy = rng.standard_normal((4, 4))
    got = [value(t, x=x, y=y, tx=dx, ty=dy) for t in jvp(outputs, [X, Y], [tx, ty])]
    for output, tangent in zip(outputs, got, strict=True):
        numeric = along(lambda at, o=output: float(value(o, x=at[0], y=at[1]).sum()), [x, y], [dx, dy])
        assert abs(tangent.sum() - numeric) < 1e-8


def test_jvp_does_not_depend_on_its_helper_and_nests() -> None:
    one = ops.ones(V)
    (first,) = jvp([ops.sin(X)], [X], [one])
    (second,) = jvp([first], [X], [one])
    assert {n for n in toposort([second]) if n.op.name == "input"} == {X}
    x = np.linspace(0, 1, 4)
    np.testing.assert_allclose(value(second, x=x), -np.sin(x), atol=1e-12)


def test_jvp_of_unconnected_is_zero() -> None:
    (t,) = jvp([ops.exp(Y)], [X], [ops.ones(V)])
    np.testing.assert_array_equal(value(t, y=np.arange(4.0)), 0)


# ------------------------------------------------------ composed functions, PyTorch


def softmax(x: Node) -> Node:
    keep = (0,)
    top = ops.broadcast(ops.reduce_max(x, (1,)), x.shape, keep)
    e = ops.exp(ops.sub(x, ops.stop_gradient(top)))
    return ops.div(e, ops.broadcast(ops.reduce_sum(e, (1,)), x.shape, keep))


def test_second_order_of_softmax() -> None:
    x = ops.input_("logits", TensorType((3, 5), float64))
    graph = Graph((x,), (ops.log(softmax(x)),))
    rng = np.random.default_rng(0)
    check_gradient(graph, [rng.standard_normal((3, 5))], rng, 1e-6)


EDGES: list[tuple[str, Callable, list[list[float]]]] = [
    ("abs", ops.abs, [[0.0, -1.0, 2.0]]),
    ("sign", ops.sign, [[0.0, -1.0, 2.0]]),
    ("sqrt", ops.sqrt, [[0.0, 4.0, 2.0]]),
    ("maximum", ops.maximum, [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]),
    ("minimum", ops.minimum, [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]),
    ("pow", ops.pow, [[0.0, 0.0, 0.0, 2.0, -2.0], [0.0, 1.0, 2.0, 0.0, 3.0]]),
    ("atan2", ops.atan2, [[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]]),
    ("remainder", ops.rem, [[5.5, -5.5, 5.5], [2.0, 2.0, -2.0]]),
    ("amax", lambda x: ops.reduce_max(x, (0,)), [[3.0, 1.0, 3.0]]),
    ("amin", lambda x: ops.reduce_min(x, (0,)), [[1.0, 1.0, 3.0, 1.0]]),
    ("prod", lambda x: ops.reduce_prod(x, (0,)), [[2.0, 0.0, 3.0]]),
    ("prod", lambda x: ops.reduce_prod(x, (0,)), [[0.0, 0.0, 3.0]]),
]


@pytest.mark.parametrize("name,build,points", EDGES, ids=[f"{e[0]}{i}" for i, e in enumerate(EDGES)])
@pytest.mark.parametrize("dtype", [float32, float64])
def test_conventions_at_corners_are_pytorchs(
    name: str, build: Callable, points: list[list[float]], dtype: DType
) -> None:
    torch = pytest.importorskip("torch")
    arrays = [np.array(p, dtype.numpy) for p in points]
    leaves = [ops.input_(f"p{i}", TensorType(a.shape, dtype)) for i, a in enumerate(arrays)]
    grads = vjp([y := build(*leaves)], [ops.ones(y.type)], leaves)
    got = evaluate(Graph(tuple(leaves), tuple(grads)), arrays)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    getattr(torch, name)(*tensors).sum().backward()
    for tensor, g in zip(tensors, got, strict=True):
        np.testing.assert_allclose(g, tensor.grad.numpy(), rtol=1e-5)


def test_product_of_zeros_to_second_order() -> None:
    x = ops.input_("z", TensorType((2, 3), float64))
    graph = Graph((x,), (ops.reduce_prod(x, (0, 1)),))
    rng = np.random.default_rng(1)
    point = np.array([[0.0, 1.5, 0.0], [2.0, -1.0, 0.5]])
    (first,) = grad(graph.outputs[0], x)
    assert first is not None
    np.testing.assert_allclose(evaluate(Graph((x,), (first,)), [point])[0], 0)
    weights = ops.constant(rng.standard_normal((2, 3)), float64)
    (second,) = grad(ops.mul(first, weights), x)
    assert second is not None
    got = evaluate(Graph((x,), (second,)), [point])[0]
    w = np.asarray(weights.attrs.array)
    rest = 1.5 * 2.0 * -1.0 * 0.5  # only the pair of zeros is left with a product that is not zero
    expected = np.zeros((2, 3))
    expected[0, 0], expected[0, 2] = w[0, 2] * rest, w[0, 0] * rest
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_pow_with_a_constant_exponent_is_as_without() -> None:
    x = ops.input_("base", TensorType((5,), float64))
    e = ops.input_("exponent", TensorType((5,), float64))
    points = np.array([0.0, 1.0, -2.0, 0.5, 3.0])
    for power in (0.0, 1.0, 2.0, 3.0, -1.0):
        (known,) = grad(ops.pow(x, ops.like(x, power)), x)
        (general,) = grad(ops.pow(x, e), x)
        assert known is not None
        assert general is not None
        (a,) = evaluate(Graph((x,), (known,)), [points])
        (b,) = evaluate(Graph((x, e), (general,)), [points, np.full(5, power)])
        np.testing.assert_allclose(a, b)


def test_selection_ops_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    rows = np.array([[1.0, 5.0, 5.0, 2.0], [np.nan, 1.0, np.nan, 7.0], [3.0, 3.0, 3.0, 3.0]])
    x = ops.input_("rows", TensorType(rows.shape, float64))
    got = evaluate(Graph((x,), (ops.argmax(x, 1), ops.argmin(x, 1), ops.argmax(x, 0))), [rows])
    tensor = torch.tensor(rows)
    for result, expected in zip(got, (tensor.argmax(1), tensor.argmin(1), tensor.argmax(0)), strict=True):
        assert result.dtype == np.int64
        np.testing.assert_array_equal(result, expected.numpy())


def test_conditions_have_no_gradient() -> None:
    c = ops.input_("c", TensorType((4,), bool_))
    a, b = grad(ops.select(c, X, Y), X, Y)
    arrays = [np.array([True, False, True, False])]
    for g, expected in ((a, [1, 0, 1, 0]), (b, [0, 1, 0, 1])):
        assert g is not None
        np.testing.assert_array_equal(evaluate(Graph((c,), (g,)), arrays)[0], expected)
