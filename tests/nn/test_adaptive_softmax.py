"""AdaptiveLogSoftmaxWithLoss against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import copy_state  # noqa: E402
from .gradients import same_gradients  # noqa: E402

RNG = np.random.default_rng(0)
CLASSES, WIDTH, N = 20, 8, 12
TARGETS = np.array([0, 3, 4, 9, 10, 19, 15, 2, 5, 11, 1, 19])


def layer(nn, **options):
    return nn.AdaptiveLogSoftmaxWithLoss(WIDTH, CLASSES, [4, 10], div_value=2.0, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head_bias", [False, True])
def test_output_loss_and_gradients(head_bias, dtype):
    x = RNG.standard_normal((N, WIDTH))
    same_gradients(
        lambda nn: layer(nn, head_bias=head_bias),
        lambda T: lambda m, x, y: tuple(m(x, y)),
        [x, TARGETS],
        dtype,
    )


def test_one_sample():
    x = RNG.standard_normal(WIDTH).astype(np.float32)
    ours, theirs = layer(graphc.nn), layer(torch.nn)
    copy_state(ours, theirs)
    for target in (1, 7, 19):
        found = [m(T.from_numpy(x), T.tensor(target)) for T, m in ((graphc, ours), (torch, theirs))]
        for a, b in zip(*found, strict=True):
            assert a.shape == b.shape == ()
            assert a.item() == pytest.approx(b.item(), rel=1e-5)


def test_targets_of_the_short_list_only():
    x = RNG.standard_normal((3, WIDTH))
    ours, theirs = layer(graphc.nn), layer(torch.nn)
    copy_state(ours, theirs)
    found = [m(T.from_numpy(x).float(), T.tensor([0, 2, 1])) for T, m in ((graphc, ours), (torch, theirs))]
    assert type(found[0]).__name__ == type(found[1]).__name__ == "_ASMoutput"
    np.testing.assert_allclose(*[f.output.detach().numpy() for f in found], rtol=1e-5)
    np.testing.assert_allclose(*[f.loss.item() for f in found], rtol=1e-5)


def test_log_prob_and_predict():
    x = RNG.standard_normal((200, WIDTH)).astype(np.float32)
    torch.manual_seed(0)
    ours, theirs = layer(graphc.nn), layer(torch.nn)
    copy_state(ours, theirs)
    found = [m.log_prob(T.from_numpy(x)).detach().numpy() for T, m in ((graphc, ours), (torch, theirs))]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(found[0]).sum(1), 1, rtol=1e-5)
    classes = [m.predict(T.from_numpy(x)).numpy() for T, m in ((graphc, ours), (torch, theirs))]
    np.testing.assert_array_equal(*classes)


MISTAKES = {
    "no cutoffs": lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, []),
    "not sorted": lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 4]),
    "repeated": lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 5]),
    "too large": lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 20]),
    "zero": lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [0, 4]),
    "not whole": lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [1.5, 4]),
    "batch": lambda T: layer(T.nn)(T.zeros(3, WIDTH), T.zeros(2, dtype=T.int64)),
    "input rank": lambda T: layer(T.nn)(T.zeros(WIDTH), T.zeros(2, dtype=T.int64)),
    "input rank 0": lambda T: layer(T.nn)(T.zeros(2, WIDTH), T.tensor(0)),
    "target rank": lambda T: layer(T.nn)(T.zeros(2, WIDTH), T.zeros(2, 2, dtype=T.int64)),
    "target range": lambda T: layer(T.nn)(T.zeros(2, WIDTH), T.tensor([1, 20])),
    "target negative": lambda T: layer(T.nn)(T.zeros(2, WIDTH), T.tensor([-1, 2])),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    errors = []
    for T in (torch, graphc):
        with pytest.raises(Exception) as caught:
            MISTAKES[name](T)
        errors.append(caught.value)
    assert isinstance(errors[1], type(errors[0]))
    assert "test_adaptive_softmax.py" in str(errors[1])


def test_targets_are_checked_in_compiled_code():
    module = layer(graphc.nn)
    run = graphc.compile(lambda y: module(graphc.zeros(2, WIDTH), y).loss)
    run(graphc.tensor([0, 19])).item()
    with pytest.raises(IndexError, match="target is out of bounds"):
        run(graphc.tensor([0, 20])).item()
