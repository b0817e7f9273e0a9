"""Every loss against PyTorch, with every reduction: values and gradients."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import inputs, same_function  # noqa: E402

REDUCTIONS = ("none", "mean", "sum")
X, Y = inputs((4, 5), (4, 5))
P = np.random.default_rng(1).uniform(0.05, 0.95, (4, 5)).astype(np.float32)
T01 = np.random.default_rng(2).uniform(0, 1, (4, 5)).astype(np.float32)
IMAGE = inputs((2, 5, 3, 4))[0]
SIGNS = np.sign(inputs((4, 5), seed=5)[0]).astype(np.int64)  # not differentiable
SEVERAL = np.array([[3, 0, -1, 2, 1], [-1, 1, 2, 3, 4], [0, 1, 2, 3, 4], [4, 4, -1, -1, -1]])
LABELS = np.array([1, 4, 0, 2])
IMAGE_LABELS = np.random.default_rng(3).integers(0, 5, (2, 3, 4))
WITH_IGNORED = np.array([1, -100, 0, -100])
W = np.linspace(0.2, 1.4, 5, dtype=np.float32)
PROBABILITIES = (P / P.sum(1, keepdims=True)).astype(np.float32)


def loss(name, *extra, **options):
    """A builder for `same_function` of the loss `name`, and arrays beside its first two."""

    def build(T, reduction):
        given = {k: T.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        function = getattr(T.nn.functional, name)
        return lambda a, b, *rest: function(a, b, *rest, reduction=reduction, **given)

    return build, extra


CASES = {
    "mse": (*loss("mse_loss"), X, Y),
    "l1": (*loss("l1_loss"), X, Y),
    "smooth_l1": (*loss("smooth_l1_loss", beta=0.7), X, Y),
    "smooth_l1 zero": (*loss("smooth_l1_loss", beta=0.0), X, Y),
    "huber": (*loss("huber_loss", delta=0.6), X, Y),
    "bce": (*loss("binary_cross_entropy"), P, T01),
    "bce weighted": (*loss("binary_cross_entropy", weight=W), P, T01),
    "logits": (*loss("binary_cross_entropy_with_logits"), X * 30, T01),
    "logits weighted": (
        *loss("binary_cross_entropy_with_logits", weight=W, pos_weight=W[::-1].copy()), X, T01),
    "kl_div": (*loss("kl_div"), np.log(P), T01),
    "kl_div log": (*loss("kl_div", log_target=True), np.log(P), np.log(T01)),
    "poisson": (*loss("poisson_nll_loss", full=True), X, T01 * 4),
    "poisson of rates": (*loss("poisson_nll_loss", log_input=False), P, T01 * 4),
    "gaussian": (*loss("gaussian_nll_loss", P, full=True), X, Y),
    "gaussian one variance": (*loss("gaussian_nll_loss", P[:, :1].copy()), X, Y),
    "hinge": (*loss("hinge_embedding_loss", margin=0.7), X, SIGNS),
    "ranking": (*loss("margin_ranking_loss", SIGNS, margin=0.2), X, Y),
    "multilabel soft": (*loss("multilabel_soft_margin_loss", weight=W), X, T01),
    "multi margin": (*loss("multi_margin_loss"), X, LABELS),
    "multi margin all": (*loss("multi_margin_loss", p=2, margin=0.6, weight=W), X, LABELS),
    "multilabel margin": (*loss("multilabel_margin_loss"), X, SEVERAL),
    "cosine embedding": (*loss("cosine_embedding_loss", SIGNS[:, 0].copy(), margin=0.1), X, Y),
    "triplet": (*loss("triplet_margin_loss", Y[::-1].copy(), margin=2.0), X, Y),
    "triplet swap": (*loss("triplet_margin_loss", Y[::-1].copy(), p=3, swap=True), X, Y),
    "nll": (*loss("nll_loss"), X, LABELS),
    "nll weighted": (*loss("nll_loss", weight=W, ignore_index=2), X, LABELS),
    "nll image": (*loss("nll_loss", weight=W), IMAGE, IMAGE_LABELS),
    "cross_entropy": (*loss("cross_entropy"), X * 20, LABELS),
    "cross_entropy ignored": (*loss("cross_entropy"), X, WITH_IGNORED),
    "cross_entropy weighted": (*loss("cross_entropy", weight=W, ignore_index=2), X, LABELS),
    "cross_entropy smoothed": (*loss("cross_entropy", label_smoothing=0.2), X, WITH_IGNORED),
    "cross_entropy smoothed, weighted": (
        *loss("cross_entropy", weight=W, label_smoothing=0.2), X, WITH_IGNORED),
    "cross_entropy image": (*loss("cross_entropy", weight=W, label_smoothing=0.1), IMAGE, IMAGE_LABELS),
    "cross_entropy one": (*loss("cross_entropy"), X[0], np.array(3)),
    "cross_entropy of probabilities": (*loss("cross_entropy"), X, PROBABILITIES),
    "cross_entropy of probabilities, weighted": (
        *loss("cross_entropy", weight=W, label_smoothing=0.3), X, PROBABILITIES),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss(name, reduction):
    build, extra, a, b = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_function(lambda T: build(T, reduction), [a, b, *extra])


def test_batchmean():
    same_function(
        lambda T: lambda a, b: T.nn.functional.kl_div(a, b, reduction="batchmean"), [np.log(P), T01]
    )


def test_bce_at_the_ends():
    target = np.array([1.0, 0.0, 1.0], np.float32)

    def build(T):
        return lambda p: T.nn.functional.binary_cross_entropy(p, T.from_numpy(target))

    same_function(build, [np.array([0.0, 1.0, 1.0], np.float32)])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_soft_margin(reduction):
    def build(T):
        signs = T.from_numpy(SIGNS.astype(np.float32))
        return lambda x: T.nn.functional.soft_margin_loss(x, signs, reduction=reduction)

    same_function(build, [X * 20])


def test_kl_div_of_zero_targets():
    target = np.where(T01 > 0.5, 0, T01).astype(np.float32)

    def build(T):
        return lambda x: T.nn.functional.kl_div(x, T.from_numpy(target), reduction="sum")

    same_function(build, [np.log(P)])


def test_every_label_ignored():
    labels = graphc.tensor([-100, -100])
    assert np.isnan(graphc.nn.functional.cross_entropy(graphc.from_numpy(X[:2]), labels).item())
    total = graphc.nn.functional.cross_entropy(graphc.from_numpy(X[:2]), labels, reduction="sum")
    assert total.item() == 0


@pytest.mark.parametrize("wrong", [5, -1])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_label_out_of_range(name, wrong):
    labels = graphc.tensor([0, wrong, 1, 2])
    loss_ = getattr(graphc.nn.functional, name)(graphc.from_numpy(X), labels)
    with pytest.raises(IndexError, match=rf"{name}: Target is out of bounds.*less than 5"):
        loss_.item()


def test_wrong_shapes_and_dtypes():
    F = graphc.nn.functional
    x = graphc.from_numpy(X)
    with pytest.raises(ValueError, match=r"batch_size \(4\) to match target batch_size \(3\)"):
        F.cross_entropy(x, graphc.tensor([0, 1, 2]))
    with pytest.raises(RuntimeError, match="expected scalar type Long but found Int"):
        F.cross_entropy(x, graphc.tensor([0, 1, 2, 3], dtype=graphc.int32))
    with pytest.raises(RuntimeError, match="all 5 classes"):
        F.cross_entropy(x, graphc.tensor([0, 1, 2, 3]), weight=graphc.ones(4))
    with pytest.raises(ValueError, match="must be the same as input size"):
        F.binary_cross_entropy_with_logits(x, graphc.zeros(4, 4))
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        F.mse_loss(x, x, reduction="median")


def test_module_losses():
    nn, x, labels = graphc.nn, graphc.from_numpy(X), graphc.from_numpy(LABELS)
    a = nn.CrossEntropyLoss(weight=graphc.from_numpy(W), label_smoothing=0.1)(x, labels)
    b = nn.functional.cross_entropy(x, labels, graphc.from_numpy(W), label_smoothing=0.1)
    assert a.item() == b.item()
    assert list(nn.CrossEntropyLoss(graphc.ones(3)).state_dict()) == ["weight"]
    assert repr(nn.BCEWithLogitsLoss()) == "BCEWithLogitsLoss()"
