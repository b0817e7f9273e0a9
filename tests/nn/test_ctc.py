"""CTC loss against PyTorch and against a sum over all alignments, values and gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

RNG = np.random.default_rng(0)
T, N, C, S = 9, 4, 6, 3
PADDED = RNG.integers(1, C, (N, S))
PADDED[1] = 2  # repeats need blanks between them
LENGTHS = {
    "full": ([T] * N, [S] * N),
    "mixed": ([9, 7, 5, 8], [3, 2, 1, 0]),
    "too long": ([9, 4, 2, 0], [3, 3, 3, 0]),
}


def losses(namespace, x, targets, lengths, compile=False, as_tensors=False, **options):
    """The loss of log_softmax(x), and the gradients of the log-probabilities and of x."""
    kinds = [namespace.tensor(n) if as_tensors else n for n in lengths]

    def run(x, targets, *tensors):
        x = x.detach().requires_grad_()
        log_probs = x.log_softmax(-1)
        log_probs.retain_grad()
        loss = namespace.nn.functional.ctc_loss(log_probs, targets, *(tensors or kinds), **options)
        grads = namespace.autograd.grad(loss.sum(), [log_probs, x])
        return [loss.detach(), *grads]

    run = namespace.compile(run) if compile else run
    found = run(namespace.from_numpy(x), namespace.from_numpy(targets), *(kinds if as_tensors else ()))
    return [t.numpy() for t in found]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_equals_torch(lengths, reduction, zero_infinity):
    x = RNG.standard_normal((T, N, C)).astype(np.float32)
    given = LENGTHS[lengths]
    options = {"reduction": reduction, "zero_infinity": zero_infinity}
    joined = np.concatenate([row[:n] for row, n in zip(PADDED, given[1], strict=True)])
    for targets in (PADDED, joined):
        for compile, as_tensors in ((False, False), (True, True)):
            ours = losses(graphc, x, targets, given, compile, as_tensors, **options)
            theirs = losses(torch, x, targets, given, as_tensors=as_tensors, **options)
            for a, b in zip(ours, theirs, strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_float64_blank_and_one_sequence(dtype):
    x = RNG.standard_normal((T, C))
    targets = np.array([0, 3, 3], dtype)
    for reduction in ("none", "mean"):
        given = (np.array(T), np.array(3))
        ours, theirs = (
            losses(T_, x, targets, given, as_tensors=True, blank=5, reduction=reduction)
            for T_ in (graphc, torch)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_is_the_sum_over_alignments():
    """Every string of 5 labels that becomes the target when repeats, then blanks, are taken out."""
    x = RNG.standard_normal((5, 1, 3))
    chance = np.exp(x[:, 0]) / np.exp(x[:, 0]).sum(1, keepdims=True)

    def spelled(path):
        return tuple(k for k, _ in itertools.groupby(path) if k)

    for target in ((1,), (1, 2), (1, 1), (2, 1, 2), ()):
        total = sum(
            np.prod(chance[np.arange(5), path])
            for path in itertools.product(range(3), repeat=5)
            if spelled(path) == target
        )
        padded = np.array([[*target, 0]])
        loss, *_ = losses(graphc, x, padded, ([5], [len(target)]), reduction="sum")
        assert loss == pytest.approx(-np.log(total), rel=1e-12)


def test_long_sequences_do_not_underflow():
    """In float32 as near to PyTorch in float64 as PyTorch in float32 is."""
    x = 5 * RNG.standard_normal((400, 2, 30)).astype(np.float32)
    targets, lengths = RNG.integers(1, 30, (2, 60)), ([400, 300], [60, 20])
    found = [losses(m, x, targets, lengths, reduction="sum") for m in (graphc, torch)]
    exact = losses(torch, x.astype(np.float64), targets, lengths, reduction="sum")
    for ours, theirs, right in zip(*found, exact, strict=True):
        assert np.abs(ours - right).max() <= 1e-3 * np.abs(right).max()
        assert np.abs(ours - right).max() <= 2 * np.abs(theirs - right).max()


def test_module():
    x = RNG.standard_normal((T, N, C)).astype(np.float32)
    found = []
    for m in (graphc, torch):
        criterion = m.nn.CTCLoss(blank=1, reduction="sum", zero_infinity=True)
        log_probs = m.from_numpy(x).log_softmax(2)
        found.append(criterion(log_probs, m.from_numpy(PADDED), *LENGTHS["mixed"]).item())
        assert repr(criterion) == "CTCLoss()"
    assert found[0] == pytest.approx(found[1], rel=1e-5)


X, PAD = graphc.zeros(T, N, C), graphc.from_numpy(PADDED)
MISTAKES = {
    "input too long": ((X, PAD, [T + 1] * N, [S] * N), r"input_lengths .* at most 9, but got 10"),
    "target too long": ((X, PAD, [T] * N, [S + 1] * N), r"target_lengths .* at most 3, but got 4"),
    "negative": ((X, PAD, [-1] * N, [S] * N), "at least 0"),
    "count": ((X, PAD, [T] * 3, [S] * N), "input_lengths must be 4 integers"),
    "sum": ((X, PAD[0], [T] * N, [1] * N), "the sum of target_lengths, but got 3"),
    "batch": ((X, PAD[:2], [T] * N, [S] * N), "expected targets of 4 sequences"),
    "float targets": ((X, PAD.float(), [T] * N, [S] * N), "integer targets"),
    "log_probs": ((X[0, 0], PAD, [T] * N, [S] * N), r"expected log_probs \[T, N, C\]"),
    "integers": ((X.long(), PAD, [T] * N, [S] * N), "not implemented for 'Long'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    arguments, text = MISTAKES[name]
    with pytest.raises(RuntimeError, match=text):
        graphc.nn.functional.ctc_loss(*arguments)


def test_blank_and_labels_in_range():
    with pytest.raises(RuntimeError, match="blank must be in label range"):
        graphc.nn.functional.ctc_loss(X, PAD, [T] * N, [S] * N, blank=C)
    with pytest.raises(IndexError, match="target is out of bounds"):
        graphc.nn.functional.ctc_loss(X, PAD + C, [T] * N, [S] * N).item()


def test_lengths_are_checked_in_compiled_code():
    def loss(lengths):
        return graphc.nn.functional.ctc_loss(X, PAD, lengths, (lengths - 7).clamp(min=0))

    run = graphc.compile(loss)
    run(graphc.tensor([9, 8, 7, 6])).item()
    with pytest.raises(IndexError, match="input_lengths"):
        run(graphc.tensor([10, 8, 7, 6]))
