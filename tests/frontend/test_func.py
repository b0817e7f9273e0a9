"""`graphc.func` and `graphc.autograd.functional`: the same programs as in torch, value by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.node import Kind

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(3)
X, W, V = RNG.standard_normal((3, 2)), RNG.standard_normal(2), RNG.standard_normal(2)


def leaves(value: Any) -> list[np.ndarray]:
    """The arrays of nested results, in order, with the names of dicts."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value.detach().numpy()]


def agree(program: Callable[[Any], Any]) -> None:
    """`program(lib)` gives the same nested numbers with both libraries."""
    mine, theirs = leaves(program(gc)), leaves(program(torch))
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def several(lib: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda d: {"a": d["x"] @ d["w"], "b": (d["x"].exp().sum(), d["w"] ** 2)}


JACOBIANS: dict[str, Callable[[Any, Any], Any]] = {
    "first argument": lambda lib, jac: jac(lambda x, w: (x @ w).sin())(lib.tensor(X), lib.tensor(W)),
    "both": lambda lib, jac: jac(lambda x, w: (x @ w).sin(), argnums=(0, 1))(lib.tensor(X), lib.tensor(W)),
    "second": lambda lib, jac: jac(lambda x, w: (x @ w).sin(), argnums=1)(lib.tensor(X), lib.tensor(W)),
    "dicts": lambda lib, jac: jac(several(lib))({"x": lib.tensor(X), "w": lib.tensor(W)}),
    "scalar": lambda lib, jac: jac(lambda w: w * w)(lib.tensor(3.0)),
    "extra": lambda lib, jac: jac(lambda x: ((x**2).sum(0), x.sum()), has_aux=True)(lib.tensor(X)),
    "twice": lambda lib, jac: jac(jac(lambda w: (w**3).sum()))(lib.tensor(W)),
    "unused": lambda lib, jac: jac(lambda x, w: x.sum(0), argnums=(0, 1))(lib.tensor(X), lib.tensor(W)),
}


@pytest.mark.parametrize("mode", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("case", JACOBIANS)
def test_jacobians(case: str, mode: str) -> None:
    agree(lambda lib: JACOBIANS[case](lib, getattr(lib.func, mode)))


def test_hessians() -> None:
    def value(lib: Any) -> Callable[[Any, Any], Any]:
        return lambda x, w: (x @ w).tanh().sum()

    agree(lambda lib: lib.func.hessian(value(lib), argnums=1)(lib.tensor(X), lib.tensor(W)))
    agree(lambda lib: lib.func.hessian(value(lib), argnums=(0, 1))(lib.tensor(X), lib.tensor(W)))


def test_grad_and_value() -> None:
    agree(lambda lib: lib.func.grad_and_value(lambda x: (x**2).sum())(lib.tensor(X)))
    agree(lambda lib: lib.func.grad_and_value(lambda x: ((x**2).sum(), x), has_aux=True)(lib.tensor(X)))


FUNCTIONALS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "jacobian": lambda f, x, w, v: f.jacobian(lambda a: (a * 2, a.sum()), w),
    "jacobian of two": lambda f, x, w, v: f.jacobian(lambda a, b: (a @ b).sum(), (x, w)),
    "forward": lambda f, x, w, v: f.jacobian(lambda a: a.sin(), w, vectorize=True, strategy="forward-mode"),
    "hessian": lambda f, x, w, v: f.hessian(lambda a: (a**3).sum(), w),
    "hessian of two": lambda f, x, w, v: f.hessian(lambda a, b: (a @ b).exp().sum(), (x, w)),
    "vjp": lambda f, x, w, v: f.vjp(lambda a: a**2, w, v),
    "vjp of two": lambda f, x, w, v: f.vjp(lambda a, b: (a @ b).sum(), (x, w)),
    "jvp": lambda f, x, w, v: f.jvp(lambda a: a**2, w, v),
    "hvp": lambda f, x, w, v: f.hvp(lambda a: (a**3).sum(), w, v),
    "hvp of two": lambda f, x, w, v: f.hvp(lambda a, b: (a @ b).exp().sum(), (x, w), (x, v)),
    "vhp": lambda f, x, w, v: f.vhp(lambda a: (a**3).sum(), w, v),
}


@pytest.mark.parametrize("case", FUNCTIONALS)
def test_functionals(case: str) -> None:
    """`autograd.functional`, which takes the point where `func` takes none."""

    def run(lib: Any) -> Any:
        return FUNCTIONALS[case](lib.autograd.functional, *[lib.tensor(a) for a in (X, W, V)])

    agree(run)
    assert not any(t.requires_grad for t in [run(gc)] if isinstance(t, gc.Tensor))


def test_functionals_keep_history_on_demand() -> None:
    w = gc.tensor(W, requires_grad=True)
    gc.autograd.functional.jacobian(lambda a: a**3, w, create_graph=True).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 6 * W)
    assert not gc.autograd.functional.jacobian(lambda a: a**3, w).requires_grad


def test_mistakes_of_functionals() -> None:
    functional, w = gc.autograd.functional, gc.tensor(W)
    with pytest.raises(ValueError, match=r"strategy must be one of .*got 'sideways'"):
        functional.jacobian(lambda a: a, w, strategy="sideways")
    with pytest.raises(RuntimeError, match="a single number"):
        functional.hvp(lambda a: a * 2, w, w)
    with pytest.raises(RuntimeError, match="vjp: the vector v can only be None"):
        functional.vjp(lambda a: a * 2, w)
    with pytest.raises(IndexError, match="argnums=2"):
        gc.func.jacrev(lambda a: a, argnums=2)(w)


# ------------------------------------------------------------------------- vmap

VMAPS: dict[str, Callable[[Any], Any]] = {
    "dot": lambda lib: lib.vmap(lib.dot)(lib.tensor(X), lib.tensor(X)),
    "same for all": lambda lib: lib.vmap(lib.dot, in_dims=(0, None))(lib.tensor(X), lib.tensor(W)),
    "last dimension": lambda lib: lib.vmap(lambda c: c.sort()[0], in_dims=-1)(lib.tensor(X)),
    "out_dims": lambda lib: lib.vmap(lambda r: (r * 2, r.exp()), out_dims=(1, 0))(lib.tensor(X)),
    "nested arguments": lambda lib: lib.vmap(
        lambda d, t: d["x"] * d["s"] + t[0], in_dims=({"x": 0, "s": None}, 0)
    )({"x": lib.tensor(X), "s": lib.tensor(2.0)}, (lib.tensor(X),)),
    "keywords": lambda lib: lib.vmap(lambda r, scale: r * scale)(lib.tensor(X), scale=lib.tensor(W)),
    "twice": lambda lib: lib.vmap(lib.vmap(lambda a, b: a * b), in_dims=(0, None))(
        lib.tensor(X), lib.tensor(W)
    ),
    "products": lambda lib: lib.vmap(lambda r: lib.outer(r, r) @ lib.tensor(W))(lib.tensor(X)),
    "gradients inside": lambda lib: lib.vmap(lib.func.grad(lambda r: (r**3).sum()))(lib.tensor(X)),
    "gradients outside": lambda lib: lib.func.grad(
        lambda w: lib.vmap(lambda r: (r @ w).sin().sum())(lib.tensor(X)).sum()
    )(lib.tensor(W)),
    "forward inside": lambda lib: lib.vmap(
        lambda v: lib.func.jvp(lib.sin, (lib.tensor(W),), (v,))[1]
    )(lib.tensor(X)),
}  # fmt: skip


@pytest.mark.parametrize("case", VMAPS)
def test_vmap(case: str) -> None:
    agree(VMAPS[case])


def network(lib: Any) -> Any:
    """A small network with the same weights in both libraries."""
    made = lib.nn.Sequential(lib.nn.Linear(2, 4), lib.nn.Tanh(), lib.nn.Linear(4, 3)).double()
    rng = np.random.default_rng(5)
    with lib.no_grad():
        for p in made.parameters():
            p.copy_(lib.tensor(rng.standard_normal(tuple(p.shape))))
    return made


def cross_entropy(lib: Any, model: Any) -> Callable[[Any, Any, Any], Any]:
    def loss(weights: Any, x: Any, y: Any) -> Any:
        out = lib.func.functional_call(model, weights, (x.unsqueeze(0),))
        return lib.nn.functional.cross_entropy(out, y.unsqueeze(0))

    return loss


def test_gradients_of_every_sample() -> None:
    """The per-sample-gradient tutorial; the loop over samples becomes products over all of them."""

    def run(lib: Any) -> Any:
        model = network(lib)
        weights = {name: p.detach() for name, p in model.named_parameters()}
        each = lib.func.vmap(lib.func.grad(cross_entropy(lib, model)), in_dims=(None, 0, 0))
        return each(weights, lib.tensor(X), lib.tensor([0, 2, 1]))

    agree(run)


def test_what_is_mapped_over_products_needs_no_loop() -> None:
    def each(x: gc.Tensor, w: gc.Tensor) -> gc.Tensor:
        return gc.vmap(lambda r: (r @ w).tanh())(x)

    graph: Graph = gc.trace(each, gc.zeros(3, 2), gc.zeros(2, 4))
    assert not any(node.kind is Kind.SCAN for node in graph.nodes)
    assert sum(node.kind is Kind.CONTRACT for node in graph.nodes) == 1
    compiled = gc.compile(each)
    np.testing.assert_allclose(
        compiled(gc.tensor(X), gc.tensor(np.outer(W, V))).numpy(), np.tanh(X @ np.outer(W, V)), rtol=1e-9
    )


MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: gc.vmap(lambda a: a, in_dims=None)(gc.ones(2)), ValueError, "maps over no tensor"),
    (lambda: gc.vmap(lambda a, b: a)(gc.ones(2), gc.ones(3)), ValueError, r"of one size, got \[2, 3\]"),
    (lambda: gc.vmap(lambda a: a, in_dims=(0, 0))(gc.ones(2)), ValueError, "2 entries for 1 argument"),
    (lambda: gc.vmap(lambda a: a)(gc.tensor(1.0)), ValueError, "has no dimension"),
    (lambda: gc.vmap(lambda a: a, in_dims="x")(gc.ones(2)), ValueError, "ints and None"),
    (lambda: gc.vmap(lambda a, b: a)(gc.ones(2), 3.0), ValueError, "give it None"),
    (lambda: gc.vmap(lambda a: "text")(gc.ones(2)), TypeError, "must return tensors"),
    (lambda: gc.vmap(lambda a: a, out_dims=(0, 1))(gc.ones(2)), ValueError, "does not fit"),
    (lambda: gc.vmap(lambda a: a, randomness="different"), RuntimeError, "draw the random numbers before"),
    (lambda: gc.vmap(lambda a: a + gc.rand(2))(gc.ones(2)), RuntimeError, "random"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_of_vmap(number: int) -> None:
    call, error, text = MISTAKES[number]
    with pytest.raises(error, match=text):
        call()
