"""Arrays that `numpy()` gives share the tensor's memory. What was recorded before an array is written to does
not see that, and graphc writes to none of them."""

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.frontend.shown import Shown


def test_writes_to_an_array_are_seen_by_later_operations_only() -> None:
    x = graphc.ones(3, 4)
    before = x * 2
    array = x.numpy()
    between = x * 2
    array[0] = 5
    assert np.shares_memory(array, x.numpy())
    assert before[0].tolist() == between[0].tolist() == [2] * 4
    assert x[0].tolist() == [5] * 4
    assert (x * 2)[0].tolist() == [10] * 4
    array[1:, 1] = 7  # through a view of the array
    assert x[1].tolist() == [1, 7, 1, 1]
    assert x.sum().item() == array.sum()


def test_parts_of_an_array_keep_the_memory_shared() -> None:
    x = graphc.zeros(8)
    part = x.numpy()[2:4]
    gc.collect()
    y = x + 1
    part[:] = 3
    assert y.tolist() == [1] * 8
    assert x.tolist() == [0, 0, 3, 3, 0, 0, 0, 0]


def test_what_is_written_last_is_seen_when_the_array_is_gone() -> None:
    x = graphc.ones(4)
    array = x.numpy()
    y = x + 1
    view = x[1:]
    array[:] = 3
    del array
    assert (y.tolist(), x.tolist(), view.tolist()) == ([2] * 4, [3] * 4, [3] * 3)
    assert (x + 1).tolist() == [4] * 4


def test_views_follow_their_base() -> None:
    x = graphc.arange(6.0)
    rows, flat = x.view(2, 3), x.view(2, 3).T
    assert flat.tolist() == [[0, 3], [1, 4], [2, 5]]
    array = x.numpy()
    for number in (10.0, 20.0):
        array[3] = number
        assert rows[1, 0].item() == flat[0, 1].item() == number
        assert rows.sum().item() == array.sum()
    rows[0].mul_(100)
    assert x.tolist() == [0, 100, 200, 20, 4, 5]
    assert array.tolist() == [0, 1, 2, 20, 4, 5], "an in-place change gives the tensor memory of its own"


@pytest.mark.parametrize("view", [lambda x: x[0], lambda x: x.T, lambda x: x.reshape(-1)])
def test_arrays_of_views_are_copies(view: Any) -> None:
    x = graphc.ones(2, 2)
    view(x).numpy()[:] = 5
    held = view(x)
    held.numpy()[:] = 5
    assert x.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(1),
        lambda x: x.zero_(),
        lambda x: x.copy_(graphc.zeros(4)),
        lambda x: x.__setitem__(1, 9.0),
        lambda x: x[1:].mul_(3),
        lambda x: x.data.neg_(),
    ],
)
def test_in_place_changes_leave_arrays_alone(change: Any) -> None:
    x = graphc.ones(4)
    array = x.numpy()
    array[0] = 2
    change(x)
    expected = graphc.tensor([2.0, 1, 1, 1])
    change(expected)
    assert x.tolist() == expected.tolist()
    assert array.tolist() == [2, 1, 1, 1]
    array[:] = 50
    assert x.tolist() == expected.tolist()
    again = x.numpy()
    again[:] = 7
    assert x.tolist() == [7] * 4


def test_slices_of_shared_memory_copy_only_their_part() -> None:
    x = graphc.arange(1000.0)
    array = x.numpy()
    for i in range(0, 1000, 100):
        array[i] = -1
        assert x[i : i + 2].tolist() == [-1, i + 1]
        rows = x.view(10, 100)[i // 100]
        assert (rows + 1)[0].item() == 0
    shown = x._cell.node.bound
    assert isinstance(shown, Shown)
    assert shown.last is None, "nothing has taken a snapshot of it all"


def test_snapshots_of_unchanged_memory_are_one() -> None:
    x = graphc.arange(1000.0)
    array = x.numpy()
    a, b = x * 2, x * 3
    assert isinstance(x._cell.node.bound, Shown)
    assert a._cell.node.inputs[0].bound is b._cell.node.inputs[0].bound
    array[999] = 0
    c = x * 2
    assert a._cell.node.inputs[0].bound is not c._cell.node.inputs[0].bound
    assert (a[999].item(), b[999].item(), c[999].item()) == (1998, 2997, 0)


def test_from_numpy_copies() -> None:
    source = np.ones(3, np.float32)
    x = graphc.from_numpy(source)
    source[:] = 7
    x.numpy()[0] = 3
    assert (source[0], x.tolist()) == (7, [3, 1, 1])


def test_handles_on_one_storage_share() -> None:
    x = graphc.ones(4)
    array, other = x.detach().numpy(), x.data.numpy()
    array[0], other[1] = 2, 3
    assert x.tolist() == [2, 3, 1, 1]


def test_equal_constants_do_not_share() -> None:
    x, y = graphc.zeros(4), graphc.zeros(4)
    x.numpy()[:] = 1
    array = y.numpy()
    array[0] = 5
    assert (x.tolist(), y.tolist(), graphc.zeros(4).tolist()) == ([1] * 4, [5, 0, 0, 0], [0] * 4)


def test_copies_of_a_tensor_do_not_share() -> None:
    x = graphc.arange(4.0)
    copies = [x.clone(), x + 0, graphc.tensor(x.tolist()), x.contiguous().clone()]
    array = x.numpy()
    other = graphc.zeros(4)
    other.copy_(x)
    array[:] = 9
    copies[0].numpy()[0] = 100
    assert [c.tolist()[1:] for c in (*copies, other)] == [[1, 2, 3]] * 5
    assert x.tolist() == [9] * 4


# ------------------------------------------------------------------- gradients


def test_backward_uses_the_values_of_the_forward_pass() -> None:
    x = graphc.tensor([1.0, 2.0])
    w = graphc.tensor([3.0, 4.0], requires_grad=True)
    seen, weights = x.numpy(), w.detach().numpy()
    loss = (x * w * w).sum()
    seen[:], weights[:] = 100, 200
    loss.backward()
    assert loss.item() == 41
    assert w.grad.tolist() == [6, 16]
    assert w.tolist() == [200, 200]
    w.grad = None
    (x * w).sum().backward()
    assert w.grad.tolist() == [100, 100]


def test_gradients_share_and_are_not_written_to() -> None:
    w = graphc.ones(3, requires_grad=True)
    (w * graphc.tensor([1.0, 2, 3])).sum().backward()
    array = w.grad.numpy()
    array[0] = 10
    assert w.grad.tolist() == [10, 2, 3]
    (w * 2).sum().backward()
    assert w.grad.tolist() == [12, 4, 5]
    assert array.tolist() == [10, 2, 3]


def _train(compiled: bool, momentum: float, peek: Any) -> tuple[list[float], list[np.ndarray]]:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    x, y = graphc.randn(16, 4), graphc.randn(16, 1)
    loss_of = lambda x, y: ((model(x) - y) ** 2).mean()  # noqa: E731
    step = graphc.compile(loss_of) if compiled else loss_of
    losses = []
    for i in range(6):
        optimizer.zero_grad()
        loss = step(x, y)
        peek(i, "forward", model, x)
        loss.backward()
        peek(i, "backward", model, x)
        optimizer.step()
        peek(i, "step", model, x)
        losses.append(loss.item())
    return losses, [p.detach().numpy().copy() for p in model.parameters()]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("moment", ["forward", "backward", "step"])
def test_arrays_of_parameters_stay_as_they_are_while_training(compiled: bool, moment: str) -> None:
    kept: list[tuple[np.ndarray, np.ndarray]] = []

    def peek(i: int, now: str, model: Any, x: Any) -> None:
        if now == moment and i != 3:
            for tensor in (*model.parameters(), *model.buffers(), x):
                array = tensor.detach().numpy()
                kept.append((array, array.copy()))

    plain = _train(compiled, 0.9, lambda *_: None)
    watched = _train(compiled, 0.9, peek)
    assert plain[0] == watched[0]
    for a, b in zip(plain[1], watched[1], strict=True):
        assert a.tobytes() == b.tobytes()
    for array, copy in kept:
        assert array.tobytes() == copy.tobytes()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("moment", ["forward", "backward", "step"])
def test_writes_to_parameters_while_training(compiled: bool, moment: str) -> None:
    """As with PyTorch where that is defined; a forward pass is not changed any more by later writes."""
    torch = pytest.importorskip("torch")

    def build(T: Any, compile_: bool) -> tuple[list[float], list[float]]:
        w = T.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
        data, optimizer = T.tensor([[1.0, 2.0], [3.0, -1.0]]), T.optim.SGD([w], lr=0.125)
        loss_of = lambda x: (x @ w).sum() + (x * x).sum()  # noqa: E731 (no gradient reads what is written)
        step = graphc.compile(loss_of) if compile_ else loss_of
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = step(data)
            if moment == "forward":
                data.numpy()[:] += 1
            loss.backward()
            if moment == "backward":
                w.detach().numpy()[0] += 1
                data.numpy()[0] -= 1
            optimizer.step()
            if moment == "step":
                w.detach().numpy()[1] *= 2
            losses.append(loss.item())
        return losses, w.detach().numpy().ravel().tolist()

    mine = build(graphc, compiled)
    if moment == "forward":  # PyTorch's gradient would be of the changed data
        data = np.array([[1.0, 2.0], [3.0, -1.0]])
        w = np.array([[1.0, -2.0], [0.5, 3.0]])
        for i in range(4):
            assert mine[0][i] == pytest.approx((data @ w).sum() + (data * data).sum(), rel=1e-6)
            w -= 0.125 * data.T @ np.ones((2, 2))
            data += 1
        assert mine[1] == pytest.approx(w.ravel().tolist(), rel=1e-6)
    else:
        theirs = build(torch, False)
        assert mine[0] == pytest.approx(theirs[0], rel=1e-6)
        assert mine[1] == pytest.approx(theirs[1], rel=1e-6)


# ---------------------------------------------------------- compiled functions


def test_a_staging_buffer() -> None:
    """One array, filled again and again: as an argument, and as something from outside."""
    model = nn.Linear(3, 2)
    inside = graphc.zeros(1, 3)
    given = graphc.zeros(1, 3)
    plain, compiled = model, graphc.compile(model)
    closed = graphc.compile(lambda: model(inside))
    a, b = given.numpy(), inside.numpy()
    with graphc.no_grad():
        for i in range(4):
            a[:] = b[:] = [i, 1, -i]
            expected = model(graphc.tensor([[float(i), 1, -i]])).tolist()[0]
            for found in (plain(given), compiled(given), closed()):
                assert found.tolist()[0] == pytest.approx(expected, rel=1e-6)


def test_weights_written_between_calls_of_a_compiled_model() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    compiled = graphc.compile(model)
    x = graphc.randn(4, 64)
    held = [p.detach().numpy() for p in model.parameters()]
    with graphc.no_grad():
        for i in range(5):
            if i % 2:
                held[0][i] += 1
                held[3][:] = i
            np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=1e-4, atol=1e-5)
        del held
        first = compiled(x).numpy()
        model[0].weight.detach().numpy()[:] = 0
        second = compiled(x).numpy()
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, np.broadcast_to(second[0], second.shape), rtol=1e-6)


def test_results_of_compiled_functions_share() -> None:
    double = graphc.compile(lambda x: x * 2)
    x = graphc.ones(1 << 12)
    with graphc.no_grad():
        results = [double(x) for _ in range(4)]
        arrays = [r.numpy() for r in results]
        for i, array in enumerate(arrays):
            array[:] = i
        more = [double(x) for _ in range(4)]
    assert [r[5].item() for r in results] == [0, 1, 2, 3]
    assert [m[5].item() for m in more] == [2] * 4
    del results
    assert [array[5] for array in arrays] == [0, 1, 2, 3]


def test_a_compiled_step_leaves_arrays_alone() -> None:
    w = graphc.ones(64, requires_grad=True)
    optimizer = graphc.optim.SGD([w], lr=0.5)

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    x = graphc.ones(64)
    shown = []
    for _ in range(4):
        step(x)
        shown.append(w.detach().numpy())
    assert [array[0] for array in shown] == [0.5, 0, -0.5, -1]
    shown[-1][:] = 3
    assert step(x).item() == 192
    assert w[0].item() == 2.5
    assert shown[-1][0] == 3


# ----------------------------------------------------------------- other doors


def test_asarray_shares_and_array_copies() -> None:
    x = graphc.ones(3)
    array = np.asarray(x)
    array[0] = 4
    np.array(x)[:] = 9
    assert x.tolist() == [4, 1, 1]
    assert np.shares_memory(np.asarray(x, copy=False), array)
    assert np.asarray(x, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(x[1:], copy=False)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, np.float64, copy=False)
    with pytest.raises(RuntimeError, match="requires grad"):
        np.array(graphc.ones(2, requires_grad=True))


def test_dlpack_shares() -> None:
    x = graphc.ones(3)
    array = np.from_dlpack(x)
    x.numpy()[1] = 8
    assert array.tolist() == [1, 8, 1]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_shapes_and_types(shape: tuple[int, ...], dtype: str) -> None:
    x = (
        graphc.ones(*shape, dtype=getattr(graphc, dtype))
        if shape
        else graphc.tensor(1).to(getattr(graphc, dtype))
    )
    array = x.numpy()
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array[...] = 0
    assert not np.any(x.tolist())


def test_nan_is_a_value_like_others() -> None:
    x = graphc.tensor([float("nan"), 1.0])
    array = x.numpy()
    y = x * 1
    array[0] = 2
    assert np.isnan(y[0].item())
    assert x.tolist() == [2, 1]


def test_a_failed_change_in_place_leaves_the_memory_shared() -> None:
    x = graphc.ones(3)
    array = x.numpy()
    index = graphc.tensor([5]) + 0
    x.copy_(x[index].sum() + x)
    with pytest.raises(IndexError):
        x.tolist()
    array[:] = 6
    assert x.tolist() == [6] * 3


# ------------------------------------------------------------ random programs


def _random_program(seed: int, steps: int = 60) -> None:
    rng = random.Random(seed)
    tensors = [graphc.tensor([[float(4 * i + j) for j in range(4)] for i in range(4)]) for _ in range(3)]
    mirror = [t.numpy().copy() for t in tensors]
    views: list[tuple[graphc.Tensor, int, Any]] = []
    shown: list[tuple[np.ndarray, np.ndarray]] = []  # the array, and what mirrors its memory
    lazy: list[tuple[graphc.Tensor, np.ndarray]] = []
    scale = graphc.compile(lambda x: x * 0.5 + 1)

    for _ in range(steps):
        k = rng.randrange(len(tensors))
        t, m = tensors[k], mirror[k]
        what = rng.choice("show show write write drop lazy lazy view inplace part call read check".split())
        if what == "show":
            shown.append((t.detach().numpy(), m))
        elif what == "write" and shown:
            i, number = rng.randrange(4), float(rng.randrange(100))
            for array in rng.choice(shown):
                array[i, 1:] = number
        elif what == "drop" and shown:
            shown.pop(rng.randrange(len(shown)))
        elif what == "lazy":
            other = rng.randrange(len(tensors))
            lazy.append((t - tensors[other] * 0.25, m - mirror[other] * np.float32(0.25)))
        elif what == "view":
            if rng.random() < 0.5:
                views.append((t.T, k, lambda a: a.T))
            else:
                i = rng.randrange(4)
                views.append((t[i : i + 2], k, lambda a, i=i: a[i : i + 2]))
        elif what in ("inplace", "part"):
            mirror[k] = m = m.copy()
            if what == "part":
                t[1:3].mul_(0.5)
                m[1:3] *= 0.5
            else:
                t.add_(1)
                m += 1
        elif what == "call":
            with graphc.no_grad():
                lazy.append((scale(t), m * np.float32(0.5) + 1))
        elif what == "read" and views:
            view, owner, take = rng.choice(views)
            lazy.append((view + 1, take(mirror[owner]) + 1))
        elif what == "check" and lazy:
            found, expected = lazy.pop(rng.randrange(len(lazy)))
            np.testing.assert_array_equal(found.numpy(), expected)
        for array, expected in shown:
            np.testing.assert_array_equal(array, expected)
    for found, expected in lazy:
        np.testing.assert_array_equal(found.numpy(), expected)
    for t, m in zip(tensors, mirror, strict=True):
        np.testing.assert_array_equal(t.tolist(), m)
    for view, owner, take in views:
        np.testing.assert_array_equal(view.tolist(), take(mirror[owner]))


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_share_as_promised(seed: int) -> None:
    _random_program(seed)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("order", [1, 2])
def test_leaves_that_are_looked_at_between_the_passes_have_their_gradients(kept, order):
    def gradients(look):
        graphc.manual_seed(0)
        model = nn.Linear(4, 3)
        x = graphc.ones(2, 4, requires_grad=True)
        leaves = [x, *model.parameters()]
        out = (model(x) ** 2).sum()
        if look:
            arrays = [p.detach().numpy() for p in leaves]
            if not kept:
                del arrays
        found = graphc.autograd.grad(out, leaves, create_graph=order == 2)
        if order == 2:
            if look:
                leaves[1].detach().numpy()
            found = graphc.autograd.grad((found[0] ** 2).sum(), leaves[1])
        return [g.numpy() for g in found]

    for mine, theirs in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_array_equal(mine, theirs)
