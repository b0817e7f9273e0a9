"""Calls repeated from memory: the same nodes, history, errors and warnings as calls made."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
import graphc.nn.functional as F
from graphc.frontend import repeated
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import apply

CALLS: list[Callable[..., gc.Tensor]] = [
    lambda x, y: x + y,
    lambda x, y: x * 2 - 1.5 / (y + 3),
    lambda x, y: x @ y.t(),
    lambda x, y: x[1:, ::2] + y[None, 0, 1:3],
    lambda x, y: x.sum(1, keepdim=True) + y.mean() - x.var(0, unbiased=False),
    lambda x, y: gc.cat([x, y], dim=1).reshape(-1, 2).transpose(0, 1),
    lambda x, y: F.linear(x, y, y[:, 0]).softmax(-1).log(),
    lambda x, y: F.mse_loss(x, y) + F.smooth_l1_loss(x, target=y, beta=0.5),
    lambda x, y: gc.where(x > y, F.gelu(x), F.elu(y, alpha=0.5)).clamp(-1, max=1.0),
    lambda x, y: F.layer_norm(x, (4,), y[0], y[1], eps=1e-3).unsqueeze(0).expand(2, 3, 4),
]


def _values(f: Callable[..., gc.Tensor], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    a, b = gc.tensor(x, requires_grad=True), gc.tensor(y)
    out = f(a, b)
    out.sum().backward()
    assert a.grad is not None
    return [out.detach().numpy(), a.grad.numpy()]


@pytest.mark.parametrize("f", CALLS)
def test_repeated_calls_give_the_same_bits(f: Callable[..., gc.Tensor]) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2))
    first = _values(f, x, y)
    for _ in range(4):
        again = _values(f, x, y)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True))


def _counted() -> tuple[Callable[..., gc.Tensor], list[int]]:
    calls = [0]

    @repeatable
    def scaled(x: gc.Tensor, factor: float = 1.0, *, shift: bool = False) -> gc.Tensor:
        """x * factor."""
        calls[0] += 1
        from_x = x + 1 if shift else x
        return apply("MulBackward0", lambda n: n, from_x) if factor == 1 else from_x * factor

    return scaled, calls


def test_a_call_is_made_three_times_at_most() -> None:
    scaled, calls = _counted()
    x = gc.ones(3)
    for _ in range(6):
        np.testing.assert_array_equal(scaled(x, 2.0), [2.0] * 3)
    assert calls == [3]  # made, made and recorded, from memory


def test_what_differs_is_another_call() -> None:
    scaled, _ = _counted()
    x, wide = gc.ones(3), gc.ones(3, dtype=gc.float64)
    for _ in range(4):
        assert scaled(x, 2.0).dtype is gc.float32
        assert scaled(wide, 2.0).dtype is gc.float64
        assert scaled(gc.ones(3, dtype=gc.int64), 2).dtype is gc.int64
        assert scaled(gc.ones(3, dtype=gc.int64), 2.0).dtype is gc.float32
        assert scaled(x, -0.0).sum().item() == 0
        assert np.signbit(scaled(x, -0.0)).all()
        assert not np.signbit(scaled(x, 0.0)).any()
        assert scaled(x, float("nan")).isnan().all()
        np.testing.assert_array_equal(scaled(x, factor=3), [3.0] * 3)
        np.testing.assert_array_equal(scaled(x, 3, shift=True), [6.0] * 3)  # two operations: never recorded


def test_the_default_dtype_is_part_of_a_call() -> None:
    whole = gc.ones(2, dtype=gc.int64)
    try:
        for dtype in (gc.float32, gc.float64) * 3:
            gc.set_default_dtype(dtype)
            assert (whole / 2).dtype is dtype
    finally:
        gc.set_default_dtype(gc.float32)


def test_history_is_that_of_the_call() -> None:
    x, y = gc.ones(2, 2, requires_grad=True), gc.ones(2, 2)
    for _ in range(4):
        assert (x * y).grad_fn.name() == "MulBackward0"
        assert (y * x).grad_fn.next_functions[0][0].variable is x
        assert F.linear(y, x).grad_fn is not None
        assert (y * y).grad_fn is None
        with gc.no_grad():
            assert not (x * y).requires_grad
    for _ in range(4):
        view = y.t()
        view[0, 1] = 5.0
        assert y[1, 0].item() == 5.0


def test_operands_that_are_equal_are_not_one() -> None:
    a = gc.tensor([2.0, 3.0])
    for _ in range(4):
        np.testing.assert_array_equal(a * a, [4.0, 9.0])
        np.testing.assert_array_equal(a * (a + 1), [6.0, 12.0])


def test_values_are_looked_at_every_time() -> None:
    x = gc.arange(4.0)
    for i in (0, 1, 2, 3, 0, 3):
        assert x[gc.tensor(i)].item() == i
        np.testing.assert_array_equal(x[gc.tensor([i, 0])], [i, 0])
    for n in range(4):
        assert x[x >= n].shape == (4 - n,)
    with pytest.raises(IndexError):
        x[gc.tensor([9])]


def test_random_draws_differ() -> None:
    x = gc.ones(1000)
    found = {float(F.dropout(x, 0.5).sum()) for _ in range(6)}
    assert len(found) > 1


def test_changes_in_place_are_made_every_time() -> None:
    for _ in range(4):
        x = gc.tensor([-1.0, 2.0])
        assert F.relu(x, inplace=True) is x
        np.testing.assert_array_equal(x, [0.0, 2.0])


def test_warnings_come_every_time_and_name_the_caller() -> None:
    x, y = gc.ones(3, 2), gc.ones(3, 1)
    for _ in range(4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            F.mse_loss(x, y)
            F.l1_loss(x, x, size_average=True)
        assert [w.filename for w in caught] == [__file__] * 2


def test_errors_come_every_time_and_name_the_line() -> None:
    for _ in range(4):
        with pytest.raises(RuntimeError, match=r"test_repeated\.py"):
            F.linear(gc.ones(2, 3), gc.ones(4, 5))


def test_few_calls_are_kept() -> None:
    scaled, calls = _counted()
    x = gc.ones(1)
    for _ in range(2):
        for i in range(repeated.MANY + 10):
            scaled(x, i + 2)
    assert calls[0] >= 2 * repeated.MANY
