"""Results with names: their text, their fields, and that compiled functions give them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402

CASES: dict[str, Callable[[Any], Any]] = {
    "max": lambda x: x.max(dim=1),
    "min": lambda x: x.min(1, keepdim=True),
    "sort": lambda x: x.sort(descending=True),
    "topk": lambda x: x.topk(2),
    "kthvalue": lambda x: x.kthvalue(2, dim=1),
    "median": lambda x: x.median(dim=1),
    "nanmedian": lambda x: x.nanmedian(dim=1),
    "mode": lambda x: x.mode(1),
    "cummax": lambda x: x.cummax(1),
    "cummin": lambda x: x.cummin(0),
    "aminmax": lambda x: x.aminmax(),
    "slogdet": lambda x: x[:, :2].slogdet(),
    "max of a number": lambda x: x[0, 0].max(0),
    "sort of a number": lambda x: x[0, 0].sort(),
    "topk of a number": lambda x: x[0, 0].topk(1),
    "kthvalue of a number": lambda x: x[0, 0].kthvalue(1),
    "median of a number": lambda x: x[0, 0].median(0),
    "mode of a number": lambda x: x[0, 0].mode(),
}
X = np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]], np.float32)


@pytest.mark.parametrize("name", CASES)
def test_text_and_fields(name: str) -> None:
    theirs, ours = CASES[name](torch.from_numpy(X)), CASES[name](gc.from_numpy(X))
    assert repr(ours) == repr(theirs).replace("torch", "graphc")
    assert isinstance(ours, tuple)
    assert isinstance(ours, getattr(gc.return_types, name.split()[0]))
    for field in ours._fields:
        np.testing.assert_allclose(getattr(ours, field).numpy(), getattr(theirs, field).numpy(), rtol=1e-6)
    first, second = ours
    assert first is ours[0]
    assert second is ours[1]


def test_compiled() -> None:
    found = gc.compile(lambda x: x.max(1))(gc.from_numpy(X))
    assert type(found) is gc.return_types.max
    assert isinstance(found, gc.return_types.ValuesIndices)
    assert found.values.tolist() == [3.0, 6.0]
