"""Anomaly detection: the operation whose gradient is NaN is named, with the user's line."""

from __future__ import annotations

from typing import Any

import pytest

import graphc as gc
from graphc import autograd


def root_of_nothing(x: Any) -> Any:
    return ((x * 0) - 1).sqrt().sum()


def test_names_the_operation() -> None:
    x = gc.ones(2, requires_grad=True)
    with (
        autograd.detect_anomaly(),
        pytest.raises(RuntimeError, match=r"SqrtBackward0' returned nan values.*test_anomaly.py:14"),
    ):
        root_of_nothing(x).backward()
    assert not gc.is_anomaly_enabled()
    root_of_nothing(x).backward()
    assert x.grad.isnan().all()


def test_names_the_first_one() -> None:
    """What comes before it in the function, and so after it in the backward pass, is not blamed."""
    x = gc.zeros(2, requires_grad=True)
    y = (x.exp() * 2).sin() * (x / x)
    with autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match=r"(Mul|Div)Backward0"):
        y.sum().backward()


def test_gradients_without_nan_pass() -> None:
    x = gc.ones(2, requires_grad=True)
    with autograd.detect_anomaly():
        (x * 2).sum().backward()
        (found,) = autograd.grad((x**3).sum(), x)
    assert x.grad.tolist() == [2.0, 2.0]
    assert found.tolist() == [3.0, 3.0]


def test_switches() -> None:
    gc.set_anomaly_enabled(True, check_nan=False)
    try:
        assert gc.is_anomaly_enabled()
        assert not gc.is_anomaly_check_nan_enabled()
        root_of_nothing(gc.ones(2, requires_grad=True)).backward()
    finally:
        autograd.set_detect_anomaly(False)
    assert not gc.is_anomaly_enabled()
    outer = autograd.detect_anomaly()
    assert not gc.is_anomaly_enabled()
    with outer:
        assert gc.is_anomaly_enabled()
        assert gc.is_anomaly_check_nan_enabled()
    assert not gc.is_anomaly_enabled()
