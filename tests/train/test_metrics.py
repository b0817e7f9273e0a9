"""Metrics against scikit-learn, over several batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc
from graphc.train import metrics

sk = pytest.importorskip("sklearn.metrics")
RNG = np.random.default_rng(0)


def batches(classes):
    for size in (7, 30, 1):
        yield RNG.standard_normal((size, classes)).astype(np.float32), RNG.integers(0, classes, size)


def run(metric, data):
    for preds, targets in data:
        metric.update(graphc.from_numpy(preds), graphc.from_numpy(targets))
    return metric.compute()


REFERENCES = {"Precision": sk.precision_score, "Recall": sk.recall_score, "F1": sk.f1_score}


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", ["Accuracy", *REFERENCES])
def test_classes(name, classes):
    data = list(batches(classes))
    chosen = np.concatenate([p.argmax(1) for p, _ in data])
    true = np.concatenate([t for _, t in data])
    if name == "Accuracy":
        expected = sk.accuracy_score(true, chosen)
    else:
        expected = REFERENCES[name](
            true, chosen, average="binary" if classes == 2 else "macro", zero_division=0
        )
    assert run(getattr(metrics, name)(), data) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["Accuracy", *REFERENCES])
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_scores_of_one_class(name, threshold):
    scores, true = RNG.random((40, 1)) - 0.2, RNG.integers(0, 2, (40, 1))
    chosen = scores >= threshold
    reference = REFERENCES.get(name, sk.accuracy_score)
    found = run(getattr(metrics, name)(threshold), [(scores, true)])
    assert found == pytest.approx(reference(true.ravel(), chosen.ravel()))


def test_pictures_of_classes():
    scores, true = RNG.standard_normal((2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    assert run(metrics.Accuracy(), [(scores, true)]) == pytest.approx((scores.argmax(1) == true).mean())


@pytest.mark.parametrize("kind", ["column", "two", "ties"])
def test_auc(kind):
    true = RNG.integers(0, 2, 60)
    scores = RNG.integers(0, 5, 60) if kind == "ties" else RNG.standard_normal(60)
    preds = np.stack([-scores, scores], 1) if kind == "two" else scores[:, None]
    targets = true if kind == "two" else true[:, None]
    data = [(preds[:20], targets[:20]), (preds[20:], targets[20:])]
    assert run(metrics.AUC(), data) == pytest.approx(sk.roc_auc_score(true, scores))


@pytest.mark.parametrize("name, reference", [("MAE", sk.mean_absolute_error), ("MSE", sk.mean_squared_error)])
def test_errors(name, reference):
    preds, targets = RNG.standard_normal((2, 30, 1))
    assert run(getattr(metrics, name)(), [(preds, targets)]) == pytest.approx(reference(targets, preds))


@pytest.mark.parametrize("name", ["Accuracy", "AUC", "F1", "MAE", "MSE", "Precision", "Recall"])
def test_call_gives_the_batch_and_gathers(name):
    metric = getattr(metrics, name)()
    first = (np.array([[2.0], [-1.0], [0.5]]), np.array([[1], [0], [0]]))
    second = (np.array([[-2.0], [1.0], [-3.0]]), np.array([[1], [1], [0]]))
    alone = [getattr(metrics, name)() for _ in range(2)]
    for part, batch in zip(alone, (first, second), strict=True):
        part.update(*batch)
        assert metric(*batch) == pytest.approx(part.compute())
    both = getattr(metrics, name)()
    both.update(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))
    assert metric.compute() == pytest.approx(both.compute())
    metric.reset()
    assert math.isnan(metric.compute())
    assert repr(metric) == f"{name}()"


def test_shapes_that_do_not_fit():
    for name in ("Accuracy", "F1", "AUC", "MAE"):
        with pytest.raises(ValueError, match=r"\[3, 4\]"):
            getattr(metrics, name)().update(np.zeros((3, 4)), np.zeros(5, int))


def test_own_metric():
    class Count(metrics.Metric):
        def reset(self):
            self.n = 0

        def _add(self, preds, targets):
            self.n += len(preds)

        def compute(self):
            return float(self.n)

    count = Count()
    assert count([1, 2], [3, 4]) == 2
    assert count([1], [3]) == 1
    assert count.compute() == 3
