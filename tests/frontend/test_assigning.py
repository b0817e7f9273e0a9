"""Parts of known values are written at once; what was recorded before is not touched."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.evaluation.known import COPIED
from graphc.frontend.modes import MODE


def one_hot(word: list[int], letters: int) -> gc.Tensor:
    line = gc.zeros(len(word), 1, letters)
    for i, letter in enumerate(word):
        line[i][0][letter] = 1
    return line


def test_words_are_one_program_whatever_their_letters() -> None:
    w = gc.tensor(np.random.default_rng(0).standard_normal((9, 4)))
    programs = []
    for word in ([3, 1, 4], [1, 5, 2], [6, 5, 3], [5, 8, 8], [0, 7, 1]):
        scores = gc.tanh(one_hot(word, 9).double() @ w)
        np.testing.assert_allclose(scores.numpy()[:, 0], np.tanh(w.numpy()[word]))
        programs.append(gc.compilations())
    assert programs[-1] == programs[1]


def test_a_write_to_a_known_value_leaves_nothing_pending() -> None:
    x = gc.tensor([[1.0, 2.0], [3.0, 4.0]])
    before = len(MODE.pending)
    x[0, 1] = 7
    x[1] = gc.tensor([5.0, 6.0])
    assert len(MODE.pending) == before
    assert x.tolist() == [[1, 7], [5, 6]]


def test_what_was_recorded_before_reads_the_value_of_before() -> None:
    x = gc.zeros(3, 4)
    row, doubled, same = x[1], x * 2 + 1, x.clone()
    x[1][2] = 5
    assert row.tolist() == [0, 0, 5, 0]
    assert doubled.tolist() == [[1.0] * 4] * 3
    assert same.tolist() == [[0.0] * 4] * 3


@pytest.mark.parametrize("size", [4, COPIED // 4 + 1])
def test_gradients_use_the_values_of_their_forward_pass(size: int) -> None:
    x, w = gc.ones(size), gc.ones(size, requires_grad=True)
    (x * w).sum().backward()
    x[0] = 9
    loss = (x * w).sum()
    x[0] = 11
    assert w.grad is not None
    assert w.grad[0].item() == 1
    w.grad = None
    loss.backward()
    assert w.grad is not None
    assert w.grad[0].item() == 9
    assert x[0].item() == 11


def test_arrays_of_the_users_are_never_written_to() -> None:
    x = gc.zeros(3)
    shown = x.numpy()
    x[1] = 2
    assert shown.tolist() == [0, 0, 0]
    given = np.zeros(3)
    y = gc.from_numpy(given)
    y[1] = 2
    assert y.tolist() == [0, 2, 0]
    assert given.tolist() in ([0, 0, 0], [0, 2, 0])  # (memory of NumPy's is shown, not taken over)


def test_every_handle_on_a_storage_sees_a_write() -> None:
    x = gc.zeros(2, 2)
    other, view, turned = x.detach(), x.view(4), x.t()
    x[0, 1] = 3
    view[2] = 4
    other[1, 1] = 5
    turned[0, 0] = 6
    for tensor, rows in ((x, [[6, 3], [4, 5]]), (other, [[6, 3], [4, 5]]), (turned, [[6, 4], [3, 5]])):
        assert tensor.tolist() == rows
    assert view.tolist() == [6, 3, 4, 5]


def test_writes_that_take_part_in_a_gradient_are_recorded() -> None:
    w = gc.tensor([1.0, 2.0], requires_grad=True)
    x = gc.zeros(3)
    x[1] = w[0] * 3
    x[0] = 5
    (x * x).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [18, 0]
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        w[0] = 1
    with gc.no_grad():
        w[0] = 4
    assert w.tolist() == [4, 2]
    assert w.requires_grad


def test_a_saved_value_that_is_written_to_is_kept() -> None:
    x = gc.ones(2, requires_grad=True)
    y = x * 2
    y.data[0] = 7
    assert y.tolist() == [7, 2]
    assert x.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [gc.float32, gc.float64, gc.int64, gc.bool, gc.uint8])
def test_numbers_become_the_dtype(dtype: gc.dtype) -> None:
    x = gc.zeros(3, dtype=dtype)
    x[1] = 1
    x[...] = x
    assert x.dtype is dtype
    assert x.double().tolist() == [0, 1, 0]
    y = gc.zeros((), dtype=dtype)
    y[...] = 1
    assert float(y) == 1


def test_places_and_shapes_are_checked() -> None:
    x = gc.zeros(2, 3)
    with pytest.raises(IndexError, match="out of bounds"):
        x[2, 0] = 1
    with pytest.raises(IndexError, match="too many indices"):
        x[0, 0, 0] = 1
    with pytest.raises(RuntimeError):
        x[0] = gc.ones(2)
    assert x.tolist() == [[0] * 3] * 2


def test_a_traced_function_records_its_writes() -> None:
    def f(x: gc.Tensor) -> gc.Tensor:
        line = gc.zeros(3)
        line[1] = 4
        state[0] = x[0]
        return line * x + state

    state = gc.zeros(3)
    compiled = gc.compile(f)
    for at in (1.0, 2.0):
        assert compiled(gc.tensor([at, 1, 1])).tolist() == [at, 4, 0]
    assert state.tolist() == [2, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_random_writes_agree_with_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, a = gc.zeros(4, 3, 5), np.zeros((4, 3, 5), np.float32)
    kept: list[tuple[gc.Tensor, np.ndarray]] = []
    for step in range(30):
        i, j, k = (int(rng.integers(-n, n)) for n in a.shape)
        v = float(rng.integers(1, 99))
        match int(rng.integers(8)):
            case 0:
                x[i, j, k], a[i, j, k] = v, v
            case 1:
                x[i][j][k], a[i][j][k] = v, v
            case 2:
                row = rng.standard_normal(5).astype(np.float32)
                x[i, j], a[i, j] = gc.tensor(row), row
            case 3:
                x[1:3, :, ::2], a[1:3, :, ::2] = v, v
            case 4:
                x.transpose(0, 2)[k][j], a.transpose(2, 1, 0)[k, j] = v, v
            case 5:
                x.view(12, 5)[3 * (i % 4) + 1, k], a.reshape(12, 5)[3 * (i % 4) + 1, k] = v, v
            case 6:
                kept.append((x * 2 + step, a * 2 + step))
            case _:
                kept.append((x[i].clone(), a[i].copy()))
        if rng.random() < 0.1:
            x.add_(1)
            a += 1
    np.testing.assert_array_equal(x.numpy(), a)
    for tensor, array in kept:
        np.testing.assert_array_equal(tensor.numpy(), array)
