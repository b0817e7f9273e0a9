"""Metrics that are gathered over batches: `update` (or call) with predictions and targets, then `compute`.

Predictions of classes are scores [n, classes, ...] (or [n, classes] for two), or one score an example;
targets are class numbers, or 0 and 1. A single score counts as class 1 from `threshold` on: 0 is right for
logits, use 0.5 for probabilities. What is undefined for want of examples is nan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.tensor import Tensor

__all__ = ["AUC", "F1", "MAE", "MSE", "Accuracy", "Metric", "Precision", "Recall"]


def _array(value: Any) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


class Metric:
    """Base class: subclasses define `reset`, `_add(preds, targets)` on arrays, and `compute`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        raise NotImplementedError

    def _add(self, preds: np.ndarray, targets: np.ndarray) -> None:
        raise NotImplementedError

    def compute(self) -> float:
        """The metric of all examples since the last `reset`."""
        raise NotImplementedError

    def update(self, preds: Any, targets: Any) -> None:
        """Add a batch of tensors or arrays. ValueError for shapes that do not fit."""
        self._add(_array(preds), _array(targets))

    def __call__(self, preds: Any, targets: Any) -> float:
        """Add a batch; returns the metric of this batch alone."""
        alone = type(self).__new__(type(self))
        alone.__dict__.update(self.__dict__)
        alone.reset()
        alone.update(preds, targets)
        self.update(preds, targets)
        return alone.compute()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _classes(preds: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true class numbers, flat."""
    if preds.ndim == targets.ndim + 1 and preds.shape[1] > 1:
        chosen = preds.argmax(axis=1)
    elif preds.size == targets.size:
        chosen = (preds >= threshold).astype(np.int64)
    else:
        raise ValueError(
            f"predictions {list(preds.shape)} do not fit targets {list(targets.shape)}: scores are "
            "[n, classes, ...] for targets [n, ...], or as many as targets"
        )
    if chosen.size != targets.size:
        raise ValueError(f"predictions {list(preds.shape)} do not fit targets {list(targets.shape)}")
    return chosen.ravel(), targets.ravel().astype(np.int64)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


class Accuracy(Metric):
    """The share of examples whose class is right."""

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold
        super().__init__()

    def reset(self) -> None:
        """Forget everything."""
        self._right = self._count = 0

    def _add(self, preds: np.ndarray, targets: np.ndarray) -> None:
        chosen, true = _classes(preds, targets, self.threshold)
        self._right += int((chosen == true).sum())
        self._count += true.size

    def compute(self) -> float:
        """Right examples over all examples."""
        return _share(self._right, self._count)


class _Confusion(Metric):
    """Counts of true positives, predicted positives and actual positives, by class."""

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold
        super().__init__()

    def reset(self) -> None:
        """Forget everything."""
        self._binary = True
        self._hits, self._predicted, self._actual = (np.zeros(2, np.int64) for _ in range(3))

    def _add(self, preds: np.ndarray, targets: np.ndarray) -> None:
        chosen, true = _classes(preds, targets, self.threshold)
        self._binary = self._binary and (preds.size == targets.size or preds.shape[1] == 2)
        size = max(len(self._hits), int(max(chosen.max(initial=0), true.max(initial=0))) + 1)
        for name, values in (("_hits", true[chosen == true]), ("_predicted", chosen), ("_actual", true)):
            counts = np.bincount(values, minlength=size)
            counts[: len(getattr(self, name))] += getattr(self, name)
            setattr(self, name, counts)

    def _by_class(self) -> np.ndarray:
        raise NotImplementedError

    def compute(self) -> float:
        """Of class 1 for two classes; else the mean over the classes that occur."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self._by_class()
        if self._binary:
            return float(values[1])
        occurs = (self._actual + self._predicted) > 0
        return float(np.nan_to_num(values[occurs]).mean()) if occurs.any() else float("nan")


class Precision(_Confusion):
    """How many of those taken for a class belong to it."""

    def _by_class(self) -> np.ndarray:
        return self._hits / self._predicted


class Recall(_Confusion):
    """How many of a class are found."""

    def _by_class(self) -> np.ndarray:
        return self._hits / self._actual


class F1(_Confusion):
    """The harmonic mean of precision and recall."""

    def _by_class(self) -> np.ndarray:
        return 2 * self._hits / (self._predicted + self._actual)


class AUC(Metric):
    """Area under the ROC curve of two classes: the chance that an example of class 1 scores above one of
    class 0 (ties count half). Keeps all scores."""

    def reset(self) -> None:
        """Forget everything."""
        self._scores: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []

    def _add(self, preds: np.ndarray, targets: np.ndarray) -> None:
        if preds.ndim == targets.ndim + 1 and preds.shape[1] == 2:
            preds = preds[:, 1] - preds[:, 0]
        if preds.size != targets.size:
            raise ValueError(
                f"AUC is for two classes: predictions {list(preds.shape)}, targets {list(targets.shape)}"
            )
        self._scores.append(preds.ravel())
        self._targets.append(targets.ravel())

    def compute(self) -> float:
        """nan unless both classes occur."""
        if not self._scores:
            return float("nan")
        scores, positive = np.concatenate(self._scores), np.concatenate(self._targets) > 0
        _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2  # tied scores share the mean of their ranks
        n = int(positive.sum())
        above = ranks[place][positive].sum() - n * (n + 1) / 2
        return _share(float(above), n * (positive.size - n))


class _MeanError(Metric):
    def reset(self) -> None:
        """Forget everything."""
        self._sum, self._count = 0.0, 0

    def _add(self, preds: np.ndarray, targets: np.ndarray) -> None:
        if preds.size != targets.size:
            raise ValueError(f"predictions {list(preds.shape)} do not fit targets {list(targets.shape)}")
        difference = preds.astype(np.float64).ravel() - targets.ravel()
        self._sum += float(self._error(difference).sum())
        self._count += difference.size

    def _error(self, difference: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def compute(self) -> float:
        """The mean over all elements."""
        return _share(self._sum, self._count)


class MAE(_MeanError):
    """Mean absolute error."""

    def _error(self, difference: np.ndarray) -> np.ndarray:
        return np.abs(difference)


class MSE(_MeanError):
    """Mean squared error."""

    def _error(self, difference: np.ndarray) -> np.ndarray:
        return difference * difference
