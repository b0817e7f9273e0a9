"""From unconstrained numbers to constraints, and the transforms that this needs, against torch."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import distributions as D

torch = pytest.importorskip("torch")

NUMBERS = np.random.default_rng(3).standard_normal((2, 4, 4))

CONSTRAINTS = {
    "real": lambda c, T: c.real,
    "positive": lambda c, T: c.positive,
    "nonnegative": lambda c, T: c.nonnegative,
    "greater_than": lambda c, T: c.greater_than(-2.0),
    "less_than": lambda c, T: c.less_than(T.tensor([1.0, 2.0, 3.0, 4.0], dtype=T.float64)),
    "unit_interval": lambda c, T: c.unit_interval,
    "interval": lambda c, T: c.interval(-1.0, 3.0),
    "half_open_interval": lambda c, T: c.half_open_interval(2.0, 3.0),
    "simplex": lambda c, T: c.simplex,
    "real_vector": lambda c, T: c.real_vector,
    "independent": lambda c, T: c.independent(c.positive, 1),
    "lower_cholesky": lambda c, T: c.lower_cholesky,
    "positive_definite": lambda c, T: c.positive_definite,
    "cat": lambda c, T: c.cat([c.positive, c.unit_interval], dim=1, lengths=[1, 3]),
    "stack": lambda c, T: c.stack([c.positive, c.unit_interval], dim=0),
}


def found(T: Any, registry: str, name: str) -> dict[str, Any]:
    constraint = CONSTRAINTS[name](T.distributions.constraints, T)
    transform = getattr(T.distributions, registry)(constraint)
    x = T.tensor(NUMBERS, dtype=T.float64, requires_grad=True)
    y = transform(x)
    back = transform.inv(y)
    result = {"y": y, "inside": constraint.check(y.detach()).all(), "back": back}
    with contextlib.suppress(NotImplementedError):
        result["log_det"] = transform.log_abs_det_jacobian(x, y)
    (result["grad"],) = T.autograd.grad((y * T.arange(5, dtype=T.float64)[: y.shape[-1]]).sum(), [x])
    return {key: value.detach().numpy() for key, value in result.items()}


@pytest.mark.parametrize("registry", ["biject_to", "transform_to"])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_transforms_to_constraints(registry: str, name: str) -> None:
    if registry == "biject_to" and name in ("lower_cholesky", "positive_definite"):
        for T in (graphc, torch):
            with pytest.raises(NotImplementedError, match="Cannot transform"):
                found(T, registry, name)
        return
    ours, theirs = found(graphc, registry, name), found(torch, registry, name)
    assert ours.keys() == theirs.keys()
    assert ours["inside"]
    for key, expected in theirs.items():
        np.testing.assert_allclose(ours[key], expected, rtol=1e-9, atol=1e-9, err_msg=key)


def test_correlations() -> None:
    values = np.random.default_rng(4).standard_normal((3, 6))
    results = []
    for T in (graphc, torch):
        transform = T.distributions.biject_to(T.distributions.constraints.corr_cholesky)
        assert type(transform) is T.distributions.CorrCholeskyTransform
        definite = T.distributions.transform_to(T.distributions.constraints.positive_semidefinite)
        assert type(definite) is T.distributions.PositiveDefiniteTransform
        x = T.tensor(values, dtype=T.float64)
        y = transform(x)
        assert T.distributions.constraints.corr_cholesky.check(y).all()
        assert tuple(transform.forward_shape((3, 6))) == (3, 4, 4)
        assert tuple(transform.inverse_shape((3, 4, 4))) == (3, 6)
        log_det = transform.log_abs_det_jacobian(x, y)
        results.append([v.numpy() for v in (y, transform.inv(y), log_det)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="below the diagonal"):
        D.biject_to(D.constraints.corr_cholesky)(graphc.ones(5))


def test_cumulative_distribution() -> None:
    values = np.array([-1.0, 0.5, 2.0])
    results = []
    for T in (graphc, torch):
        normal = T.distributions.Normal(T.tensor(0.5, dtype=T.float64), T.tensor(2.0, dtype=T.float64))
        transform = T.distributions.transforms.CumulativeDistributionTransform(normal)
        x = T.tensor(values)
        y = transform(x)
        results.append([v.numpy() for v in (y, transform.inv(y), transform.log_abs_det_jacobian(x, y))])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("name", ["square", "symmetric", "positive_semidefinite", "positive_definite"])
def test_matrices(name: str) -> None:
    good = np.array([[2.0, 1.0], [1.0, 2.0]])
    turned = good * [[1, 1], [-1, 1]]  # (one by one: if any is not symmetric, torch looks at nothing else)
    stack = [good, good - 1.0, turned, good - 2.0]
    ours = getattr(D.constraints, name).check(graphc.tensor(np.stack(stack))).tolist()
    theirs = [getattr(torch.distributions.constraints, name).check(torch.tensor(m)).item() for m in stack]
    assert ours == theirs
    if name == "square":
        assert not D.constraints.square.check(graphc.ones(2, 3))


def test_registering_and_refusals() -> None:
    class Even(D.constraints.Constraint):
        pass

    registry = type(D.biject_to)()
    with pytest.raises(NotImplementedError, match="Cannot transform Even"):
        registry(Even())

    @registry.register(Even)
    def to_even(constraint: Any) -> Any:
        return D.AffineTransform(0.0, 2.0)

    assert registry(Even())(graphc.tensor(3.0)).item() == 6
    with pytest.raises(TypeError, match="Expected constraint"):
        registry.register(3, to_even)
    with pytest.raises(ValueError, match="lengths"):
        D.CatTransform([D.ExpTransform()], lengths=[1, 2])
    with pytest.raises(ValueError, match="long"):
        D.CatTransform([D.ExpTransform()], dim=0)(graphc.ones(3))
    with pytest.raises(ValueError, match="long"):
        D.StackTransform([D.ExpTransform()], dim=0)(graphc.ones(3))
    with pytest.raises(TypeError, match="Transform"):
        D.StackTransform([abs])


def test_a_scale_is_learnt_in_a_compiled_step() -> None:
    to_scale = D.transform_to(D.Normal.arg_constraints["scale"])
    free = graphc.zeros((), requires_grad=True)
    data = graphc.tensor([-3.0, 3.0, 1.0, -1.0])
    optimizer = graphc.optim.Adam([free], lr=0.1)

    @graphc.compile
    def step(data: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = -D.Normal(0.0, to_scale(free)).log_prob(data).mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(200):
        step(data)
    assert to_scale(free).item() == pytest.approx(5**0.5, rel=1e-3)
