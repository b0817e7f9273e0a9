"""Gradients through samples and densities, what is refused, and distributions in compiled functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402
from graphc import distributions as D  # noqa: E402
from graphc.distributions import constraints, transforms  # noqa: E402
from graphc.distributions.gammas import gamma_slope  # noqa: E402
from graphc.frontend.tensor import apply  # noqa: E402

MEANS, SCALES = [0.5, -1.0, 2.0], [1.0, 0.3, 2.0]


def leaf(values: Any) -> Any:
    return gc.tensor(values, dtype=gc.float64, requires_grad=True)


@pytest.mark.parametrize("name", ["Normal", "Laplace", "Cauchy", "Gumbel", "LogNormal"])
def test_location_and_scale_move_samples(name: str) -> None:
    """A sample is a function of loc and scale at a constant quantile: checked by finite differences."""
    loc, scale = leaf(MEANS), leaf(SCALES)
    gc.manual_seed(3)
    sample = getattr(D, name)(loc, scale).rsample((4,))
    sample.sum().backward()
    step = 1e-6
    for i, (leaf_, other) in enumerate(((loc, scale), (scale, loc))):
        moved = []
        for sign in (1, -1):
            gc.manual_seed(3)
            at = leaf_.detach() + sign * step
            given = (at, other.detach()) if i == 0 else (other.detach(), at)
            moved.append(getattr(D, name)(*given).sample((4,)).sum(0).numpy())
        np.testing.assert_allclose(leaf_.grad.numpy(), (moved[0] - moved[1]) / (2 * step), rtol=1e-5)
    assert not D.Normal(loc, scale).sample().requires_grad


@pytest.mark.parametrize("a", [0.05, 0.5, 1.0, 2.0, 7.0, 40.0, 1e3])
def test_slope_of_gamma_variates(a: float) -> None:
    """dx/da against torch's approximation, which has three digits."""
    torch.manual_seed(0)
    alpha = torch.full((500,), a, dtype=torch.float64)
    x = torch._standard_gamma(alpha).clamp(min=1e-30)
    wanted = torch._standard_gamma_grad(alpha, x).numpy()
    found = apply("", gamma_slope, gc.from_numpy(alpha.numpy()), gc.from_numpy(x.numpy())).numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-12)


def test_gradients_of_means_through_gamma_samples() -> None:
    """The derivative of the mean of x ** 2 under Gamma(a, b) is that of a (a + 1) / b ** 2."""
    a, b = leaf(2.5), leaf(1.5)
    gc.manual_seed(0)
    D.Gamma(a, b).rsample((100_000,)).square().mean().backward()
    np.testing.assert_allclose(a.grad.item(), (2 * 2.5 + 1) / 1.5**2, rtol=0.03)
    np.testing.assert_allclose(b.grad.item(), -2 * 2.5 * 3.5 / 1.5**3, rtol=0.03)
    c = leaf([2.0, 3.0, 0.7])
    D.Dirichlet(c).rsample((100_000,))[:, 0].mean().backward()
    total = 5.7
    np.testing.assert_allclose(c.grad.numpy(), [3.7 / total**2, -2 / total**2, -2 / total**2], atol=4e-3)
    p, q = leaf(2.0), leaf(3.0)
    D.Beta(p, q).rsample((100_000,)).mean().backward()
    np.testing.assert_allclose([p.grad.item(), q.grad.item()], [3 / 25, -2 / 25], atol=3e-3)


def test_multivariate_normal() -> None:
    loc = np.array([1.0, -2.0, 0.5])
    root = np.array([[1.0, 0, 0], [0.5, 2.0, 0], [-0.3, 0.4, 0.7]])
    results = []
    for T, dist in ((torch, torch.distributions), (gc, D)):
        mean = T.tensor(loc, requires_grad=True)
        matrix = T.tensor(root @ root.T, requires_grad=True)
        p = dist.MultivariateNormal(mean, matrix)
        value = T.tensor(np.linspace(-1, 1, 12).reshape(4, 3))
        q = dist.MultivariateNormal(T.tensor(-loc), scale_tril=T.tensor(root))
        total = p.log_prob(value).sum() + p.entropy() + dist.kl_divergence(p, q)
        total.backward()
        parts = (total, mean.grad, matrix.grad, p.scale_tril, p.precision_matrix, p.covariance_matrix)
        results.append([t.detach().numpy() for t in parts])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)
    gc.manual_seed(0)
    samples = D.MultivariateNormal(gc.tensor(loc), gc.tensor(root @ root.T)).sample((50_000,)).numpy()
    np.testing.assert_allclose(np.cov(samples.T), root @ root.T, atol=0.08)


def test_straight_through() -> None:
    logits = leaf([0.3, -0.2, 1.0])
    sample = D.OneHotCategoricalStraightThrough(logits=logits).rsample()
    assert sorted(sample.detach().numpy().tolist()) == [0, 0, 1]
    (sample * gc.tensor([1.0, 2.0, 3.0], dtype=gc.float64)).sum().backward()
    t = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
    (t.softmax(-1) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), t.grad.numpy(), rtol=1e-9)


TRANSFORMS = {
    "ExpTransform": (lambda T: T.ExpTransform(), 0),
    "SigmoidTransform": (lambda T: T.SigmoidTransform(), 0),
    "TanhTransform": (lambda T: T.TanhTransform(), 0),
    "SoftplusTransform": (lambda T: T.SoftplusTransform(), 0),
    "AffineTransform": (lambda T: T.AffineTransform(1.0, -2.0), 0),
    "affine over rows": (lambda T: T.AffineTransform(1.0, -2.0, event_dim=1), 0),
    "StickBreakingTransform": (lambda T: T.StickBreakingTransform(), 0),
    "ComposeTransform": (lambda T: T.ComposeTransform([T.AffineTransform(0.5, 2.0), T.ExpTransform()]), 0),
    "IndependentTransform": (lambda T: T.IndependentTransform(T.ExpTransform(), 1), 0),
    "ReshapeTransform": (lambda T: T.ReshapeTransform((3,), (3, 1)), 0),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    x = np.linspace(-1.2, 1.3, 6).reshape(2, 3)
    build, _ = TRANSFORMS[name]
    their, our = build(torch.distributions.transforms), build(transforms)
    a, b = torch.tensor(x), gc.tensor(x)
    ya, yb = their(a), our(b)
    np.testing.assert_allclose(yb.numpy(), ya.numpy(), rtol=1e-9)
    np.testing.assert_allclose(our.inv(yb).numpy(), x, rtol=1e-6)
    np.testing.assert_allclose(
        our.log_abs_det_jacobian(b, yb).numpy(), their.log_abs_det_jacobian(a, ya).numpy(), rtol=1e-7
    )
    np.testing.assert_allclose(
        our.inv.log_abs_det_jacobian(yb, b).numpy(), their.inv.log_abs_det_jacobian(ya, a).numpy(), rtol=1e-7
    )
    assert our.forward_shape((2, 3)) == tuple(yb.shape)
    assert our.inverse_shape(tuple(yb.shape)) == (2, 3)
    assert our == build(transforms)
    assert our != transforms.AbsTransform()
    assert our.inv.inv is our


def test_transforms_without_inverse() -> None:
    x = gc.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert transforms.AbsTransform()(x).tolist() == [[1.0, 2.0], [0.5, 3.0]]
    soft = transforms.SoftmaxTransform()
    np.testing.assert_allclose(soft(soft.inv(soft(x))).numpy(), soft(x).numpy(), rtol=1e-6)
    lower = transforms.LowerCholeskyTransform()
    assert lower(x)[0, 1].item() == 0
    np.testing.assert_allclose(lower.inv(lower(x)).numpy(), x.tril().numpy(), rtol=1e-6)
    assert transforms.identity_transform(x) is x
    assert isinstance(transforms.PowerTransform(2.0), transforms.Transform)
    with pytest.raises(ValueError, match="different numbers of elements"):
        transforms.ReshapeTransform((2,), (3,))


MISTAKES = {
    "negative scale": (
        lambda T, d: d.Normal(T.zeros(2), T.tensor([1.0, -1.0])),
        ValueError,
        "parameter scale",
    ),
    "NaN": (lambda T, d: d.Normal(T.tensor([float("nan")]), 1.0), ValueError, "parameter loc"),
    "chance above one": (lambda T, d: d.Bernoulli(T.tensor([1.5])), ValueError, "parameter probs"),
    "both": (lambda T, d: d.Bernoulli(T.tensor([0.5]), T.tensor([0.5])), ValueError, "but not both"),
    "neither": (lambda T, d: d.Categorical(), ValueError, "but not both"),
    "scalar": (lambda T, d: d.Categorical(T.tensor(0.5)), ValueError, "at least one-dimensional"),
    "empty interval": (lambda T, d: d.Uniform(T.tensor([1.0]), T.tensor([0.5])), ValueError, "low>= high"),
    "no number": (lambda T, d: d.Normal("a", 1.0), ValueError, "must all be instances"),
    "outside": (lambda T, d: d.Exponential(1.0).log_prob(T.tensor(-1.0)), ValueError, "within the support"),
    "class outside": (lambda T, d: d.Categorical(T.ones(3)).log_prob(T.tensor(3)), ValueError, "support"),
    "shape": (lambda T, d: d.Normal(T.zeros(2), 1.0).log_prob(T.zeros(3)), ValueError, "not broadcastable"),
    "event": (lambda T, d: d.Dirichlet(T.ones(3)).log_prob(T.ones(2) / 2), ValueError, "right-most size"),
    "no tensor": (lambda T, d: d.Normal(0.0, 1.0).log_prob(0.5), ValueError, "must be a Tensor"),
    "no gradient": (
        lambda T, d: d.Bernoulli(T.tensor([0.5])).rsample(),
        NotImplementedError,
        "implement rsample",
    ),
    "no form": (
        lambda T, d: d.Cauchy(0.0, 1.0).enumerate_support(),
        NotImplementedError,
        "implement enumerate_support",
    ),
    "dims": (lambda T, d: d.Independent(d.Normal(0.0, 1.0), 1), ValueError, "reinterpreted_batch_ndims"),
    "not definite": (
        lambda T, d: d.MultivariateNormal(T.zeros(2), T.tensor([[1.0, 2.0], [2.0, 1.0]])),
        ValueError,
        "covariance_matrix",
    ),
    "two matrices": (
        lambda T, d: d.MultivariateNormal(T.zeros(2), T.eye(2), T.eye(2)),
        ValueError,
        "Exactly one",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    build, error, text = MISTAKES[name]
    with pytest.raises(error):
        build(torch, torch.distributions)
    with pytest.raises(error, match=text):
        build(gc, D)


def test_validation_can_be_switched_off() -> None:
    found = D.Normal(0.0, gc.tensor([-1.0]), validate_args=False)
    assert found.scale.tolist() == [-1.0]
    D.Distribution.set_default_validate_args(False)
    try:
        D.Normal(0.0, gc.tensor([-1.0]))
    finally:
        D.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="must be a bool"):
        D.Distribution.set_default_validate_args("yes")


CONSTRAINTS = {
    "boolean": [0.0, 1.0, 0.5], "real": [0.0, float("nan")], "positive": [0.0, 1.0],
    "nonnegative": [0.0, -1.0],
    "unit_interval": [0.0, 1.0, 1.1], "nonnegative_integer": [0.0, 1.5, -1.0], "positive_integer": [0.0, 2.0],
    "simplex": [[0.5, 0.5], [0.5, 0.6], [-0.5, 1.5]], "one_hot": [[0.0, 1.0], [1.0, 1.0], [0.5, 0.5]],
    "lower_triangular": [[[1.0, 0.0], [2.0, -1.0]], [[1.0, 1.0], [2.0, 1.0]]],
    "lower_cholesky": [[[1.0, 0.0], [2.0, -1.0]], [[1.0, 0.0], [2.0, 1.0]]],
    "positive_definite": [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]],
    "real_vector": [[0.0, 1.0], [float("nan"), 1.0]],
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(name: str) -> None:
    their, our = getattr(torch.distributions.constraints, name), getattr(constraints, name)
    wanted = their.check(torch.tensor(CONSTRAINTS[name])).tolist()
    assert our.check(gc.tensor(CONSTRAINTS[name])).tolist() == wanted
    assert our.check(np.array(CONSTRAINTS[name], np.float32)).tolist() == wanted
    assert (our.event_dim, our.is_discrete) == (their.event_dim, their.is_discrete)


@pytest.mark.native
def test_compiled() -> None:
    """Each call of a compiled function draws anew; the draws are those of the function called plainly."""

    def draw(loc: Any, chances: Any) -> Any:
        p = D.Normal(loc, 2.0)
        z = p.rsample((3,))
        return z, p.log_prob(z), D.Categorical(chances).sample((5,)), D.kl_divergence(p, D.Normal(0.0, 1.0))

    compiled = gc.compile(draw)
    loc, chances = gc.tensor([0.5, -1.0]), gc.tensor([0.2, 0.8])
    gc.manual_seed(0)
    plain = [[t.numpy() for t in draw(loc, chances)] for _ in range(3)]
    gc.manual_seed(0)
    calls = [[t.numpy() for t in compiled(loc, chances)] for _ in range(3)]
    for a, b in zip(plain, calls, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert not np.array_equal(calls[0][0], calls[1][0])
    with pytest.raises(gc.TracerError, match="draw outside"):
        gc.compile(lambda r: D.Poisson(r).sample())(loc.abs())


@pytest.mark.native
def test_gamma_samples_are_trained_in_one_program() -> None:
    a = gc.tensor(1.0, requires_grad=True)
    optimizer = gc.optim.Adam([a], lr=0.05)

    @gc.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = (D.Gamma(a.exp(), gc.tensor(1.0)).rsample((256,)).mean() - 4.0).square()
        loss.backward()
        optimizer.step()
        return loss

    gc.manual_seed(0)
    for _ in range(60):
        step()
    assert abs(a.exp().item() - 4.0) < 0.4
