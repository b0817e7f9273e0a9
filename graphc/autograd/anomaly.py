"""Anomaly detection: a backward pass that gives NaN names the operation whose gradient it first is.

While it is on, the gradients of every backward pass outside traces are computed and looked at. Only when one
is NaN are those of all values between computed as well, to find the operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.autodiff import gradients
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import from_node
from graphc.ir.graph import toposort
from graphc.ir.node import Node, site_of


class _Anomaly:
    enabled = False
    check_nan = True


def is_anomaly_enabled() -> bool:
    """Whether backward passes are checked."""
    return _Anomaly.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether NaN is an error while anomaly detection is on."""
    return _Anomaly.check_nan


class set_detect_anomaly:
    """Switch anomaly detection on or off: by the call, or as a context manager until its end.

    While on, a backward pass whose gradients hold NaN raises RuntimeError, which names the operation and the
    line that it comes from (with check_nan=False nothing is raised).
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = _Anomaly.enabled, _Anomaly.check_nan
        _Anomaly.enabled, _Anomaly.check_nan = bool(mode), bool(check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        _Anomaly.enabled, _Anomaly.check_nan = self._before


class detect_anomaly(set_detect_anomaly):
    """The context manager that switches anomaly detection on."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)
        self._inside = check_nan
        _Anomaly.enabled, _Anomaly.check_nan = self._before

    def __enter__(self) -> None:
        self._before = _Anomaly.enabled, _Anomaly.check_nan
        _Anomaly.enabled, _Anomaly.check_nan = True, self._inside


def check(seeds: Mapping[Node, Node], found: Mapping[Node, Node]) -> None:
    """RuntimeError if a gradient in `found`, of a pass that began with `seeds`, holds NaN."""
    if not _Anomaly.enabled or not _Anomaly.check_nan or MODE.trace is not None:
        return
    if not any(_has_nan(ct) for ct in found.values()):
        return
    node = _culprit(seeds)
    if node is None:
        raise fail(RuntimeError, "a backward function of Python returned nan values")
    at = site_of(node)
    raise fail(
        RuntimeError,
        f"Function '{_title(node)}' returned nan values in its 0th output."
        + (f" The operation was called at {at}." if at else ""),
    )


def _has_nan(node: Node) -> bool:
    return node.dtype.is_float and bool(np.isnan(value(from_node(node, True))).any())


def _title(node: Node) -> str:
    return "".join(part.capitalize() for part in node.op.name.split("_")) + "Backward0"


def _culprit(seeds: Mapping[Node, Node]) -> Node | None:
    """The operation nearest to the outputs with a gradient that is no NaN, and an operand's that is."""
    order = [n for n in toposort(list(seeds)) if n.dtype.is_float]
    bad = _with_nan(order, gradients(list(seeds), list(seeds.values()), order))
    for node in reversed(order):
        if node not in bad and any(n in bad for n in node.inputs):
            return node
    return None


def _with_nan(nodes: Sequence[Node], cts: Sequence[Node | None]) -> set[Node]:
    return {n for n, ct in zip(nodes, cts, strict=True) if ct is not None and _has_nan(ct)}
