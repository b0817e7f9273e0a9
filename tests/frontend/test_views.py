"""Indexing, assignment, views that share storage, in-place methods: against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 5, 6)).astype(np.float32)
I1, I2 = np.array([0, 3, 1]), np.array([[0, 2], [1, -1]])
MASK, ROWS = X > 0.3, np.array([True, False, True, True])
INDICES = [
    0,
    -1,
    slice(1, 3),
    (slice(None), 2),
    (..., 1),
    (None, 0),
    (slice(None, None, 2), slice(1, None, 3)),
    I1,
    (slice(None), I1),
    (I1, I1),
    (I1, slice(None), I1),
    (0, slice(None), I1),
    (I2,),
    (slice(None), I2, I2),
    MASK,
    ROWS,
    (ROWS, slice(1, 2)),
    (slice(None), None, I1),
    [0, 2],
    (..., None),
    (2, 3, 4),
    (0, I1, I1),
    slice(3, 1),
    True,
    (slice(-3, -1), ..., slice(None, -1)),
    (np.array(2), slice(None)),
    (slice(0, 0),),
]


def convert(index: Any, module: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(convert(i, module) for i in index)
    return module.tensor(index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("index", INDICES, ids=[str(i)[:30] for i in range(len(INDICES))])
def test_getitem(index: Any) -> None:
    ours, theirs = gc.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    found, expected = ours[convert(index, gc)], theirs[convert(index, torch)]
    assert tuple(found.shape) == tuple(expected.shape)
    np.testing.assert_array_equal(found.detach().numpy(), expected.detach().numpy())
    (found**2).sum().backward()
    (expected**2).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("index", INDICES, ids=[str(i)[:30] for i in range(len(INDICES))])
@pytest.mark.parametrize("whole", [True, False])
def test_setitem(index: Any, whole: bool) -> None:
    shape = torch.tensor(X)[convert(index, torch)].shape if whole else ()
    new = RNG.standard_normal(tuple(shape)).astype(np.float32)
    ours, theirs = gc.tensor(X), torch.tensor(X)
    a, b = gc.tensor(new, requires_grad=True), torch.tensor(new, requires_grad=True)
    ours[convert(index, gc)] = a
    theirs[convert(index, torch)] = b
    np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
    (ours**2).sum().backward()
    (theirs**2).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5)


def test_setitem_last_writer_wins_and_casts() -> None:
    x = gc.zeros(3)
    x[gc.tensor([1, 1, 1])] = gc.tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [0, 3, 0]
    y = gc.zeros(3, dtype=gc.int64)
    y[1] = 2.7
    assert y.tolist() == [0, 2, 0]


SCRIPTS: list[Callable[[Any], list[Any]]] = []


def script(f: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    SCRIPTS.append(f)
    return f


@script
def writes_through_views(T: Any) -> list[Any]:
    a = T.zeros(4, 5)
    b = a[1:3]
    b[:, 0] = 7
    b += 1
    c = a.t()
    c[4].fill_(9)
    row = a[3]
    a.mul_(2)
    return [a, b, c, row]


@script
def views_of_views(T: Any) -> list[Any]:
    a = T.arange(24)
    b = a.view(2, 3, 4)
    c = b.transpose(0, 2)
    d = c[1:3, ::2]
    d.zero_()
    e = b.reshape(6, 4).chunk(2)[1]
    e.add_(100)
    return [a, b, c, d, e]


@script
def in_place_family(T: Any) -> list[Any]:
    a = T.arange(6.0) - 2.5
    a.abs_().sqrt_().clamp_(0.5, 1.4).neg_()
    a += 1
    a *= T.tensor(2.0)
    a -= T.ones(6)
    a /= 3
    a.sub_(1, alpha=2).pow_(2)
    b = T.ones(2, 3)
    b.copy_(T.tensor([1, 2, 3]))
    b.masked_fill_(b > 2, -1.0)
    b[0].exp_()
    return [a, b]


@script
def data_and_detach_share(T: Any) -> list[Any]:
    w = T.ones(3, requires_grad=True)
    w.data.mul_(5)
    w.detach()[1] = 0
    w.data = w.data - 1
    with T.no_grad():
        w.sub_(0.5)
        w[0] = 3
    return [w, w.data]


@script
def split_and_unbind_are_views(T: Any) -> list[Any]:
    a = T.zeros(4, 2)
    first, second = a.split(2)
    second.fill_(1)
    for i, row in enumerate(first.unbind()):
        row.add_(i + 2)
    a.squeeze().unsqueeze(0)[0, 0, 0] = 50
    return [a, first, second]


@script
def clone_is_not_a_view(T: Any) -> list[Any]:
    a = T.ones(3)
    b = a.clone()
    c = a + 0
    a.zero_()
    return [a, b, c]


@script
def aliases_by_copy(T: Any) -> list[Any]:
    a, b = T.ones(3), T.zeros(3)
    b.copy_(a)
    a.add_(1)
    b.mul_(3)
    return [a, b]


@script
def gradients_through_writes(T: Any) -> list[Any]:
    x = T.arange(6.0).requires_grad_()
    y = x * 2
    y[1:3] = x[3:5] * x[0:2]
    y.view(2, 3)[1].mul_(x[:3])
    z = T.zeros(6)
    z[::2] = y[:3]
    z[1] += 4
    (z * y).sum().backward()
    return [y, z, x.grad]


@script
def a_view_gets_the_history_of_its_base(T: Any) -> list[Any]:
    w = T.full((3,), 2.0, requires_grad=True)
    x = T.ones(2, 3)
    v, u = x[1], x.view(-1)
    x.mul_(w)
    y = (v * v).sum() + u.max()
    y.backward()
    return [v, u, x, w.grad]


@script
def windows_are_views(T: Any) -> list[Any]:
    x = T.arange(12.0).view(3, 4)
    apart, overlapping = x.unfold(1, 2, 2), x.unfold(0, 2, 1)
    x[1] = -1.0
    apart.mul_(2)
    return [x, apart, overlapping]


@pytest.mark.parametrize("run", SCRIPTS, ids=lambda f: f.__name__)
def test_script(run: Callable[[Any], list[Any]]) -> None:
    for found, expected in zip(run(gc), run(torch), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-6)
        assert found.requires_grad == expected.requires_grad


@pytest.mark.native
def test_scripts_native_after_sync() -> None:
    """The same with values computed by the native backend, all at once."""
    for run in SCRIPTS:
        found = run(gc)
        gc.sync()
        for a, b in zip(found, run(torch), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6)


def test_views_of_views_follow_their_root_after_a_step() -> None:
    """What lies between a view and its root may be gone: the root can still change, and be changed."""
    root = gc.ones(2, 3) * 2
    view = root.view(-1)[:4].view(2, 2)
    gc.sync()
    root.mul_(3)
    assert view.tolist() == [[6.0, 6.0], [6.0, 6.0]]
    view.add_(1)
    assert root.tolist() == [[7.0, 7.0, 7.0], [7.0, 6.0, 6.0]]


@pytest.mark.parametrize(
    "handle",
    [
        lambda t: t.detach(),
        lambda t: t.detach().detach(),
        lambda t: t.data,
        lambda t: t.detach()[:],
        lambda t: gc.nn.Parameter(t.detach(), requires_grad=False),
        lambda t: gc.empty(0).set_(t),
    ],
)
def test_changes_through_a_handle_that_is_gone_are_computed_by_the_step(handle: Callable[[Any], Any]) -> None:
    """The average of a weight, changed through `.detach()`, outlives the weight's being overwritten."""
    weight = gc.nn.Parameter(gc.ones(3))
    average = gc.zeros(3)
    optimizer = gc.optim.SGD([weight], lr=0.25)
    for _ in range(3):
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()
        handle(average).add_(weight.detach())
    assert average.tolist() == [0.75 + 0.5 + 0.25] * 3


@pytest.mark.parametrize("mask", [True, False])
def test_a_mask_without_dims_is_a_dim_of_its_own(mask: bool) -> None:
    """Also one that is not computed yet, on a tensor with and without dims."""
    for array in (np.float32(2), X[0, 0]):
        seen = []
        for T in (torch, gc):
            x = T.from_numpy(np.array(array))
            holds = (x > -9).all() if mask else (x < -9).all()
            picked = x[holds]
            x[holds] = 7
            seen.append((picked.numpy(), x.numpy().copy()))
            x[holds] = T.ones(1, *x.shape)
            if not mask:
                x[holds] = T.ones(0, *x.shape)
            seen[-1] += (x.numpy(),)
        for a, b in zip(*seen, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "make", [lambda x: x.expand(3, 4), lambda x: x.expand(3, 4)[1:], lambda x: x.expand(3, 4)[0]]
)
def test_nothing_is_written_where_elements_share_a_place(make: Callable[[Any], Any]) -> None:
    """And the refused write leaves the values as they were."""
    base = gc.ones(3, 1)
    with pytest.raises(RuntimeError, match="single memory location"):
        make(base).add_(1)
    with pytest.raises(RuntimeError, match="single memory location"):
        base.view(3).unfold(0, 2, 1).mul_(2)
    view = make(base)
    assert view.flatten().tolist() == [1.0] * view.numel()
    assert base.tolist() == [[1.0]] * 3
    base.expand(1, 3, 1).add_(1)  # nothing is repeated here
    assert base.tolist() == [[2.0]] * 3


def test_a_scale_must_fit_the_result() -> None:
    """`alpha` of add and sub."""
    for T in (torch, gc):
        flags = T.tensor([True, False])
        assert flags.add_(T.tensor([False, True]), alpha=2).tolist() == [True, True]
        with pytest.raises(RuntimeError, match="must not be a floating point number"):
            T.tensor([1]).add(T.tensor([1]), alpha=2.5)
        with pytest.raises(RuntimeError, match="Boolean alpha"):
            T.tensor([1]).sub(1, alpha=True)


def test_quotients_cut_to_whole_numbers_have_gradients_of_zero() -> None:
    """Also where the quotient is infinite."""
    for T in (torch, gc):
        a, b = T.tensor([1.0, 5.0], requires_grad=True), T.tensor([0.0, 2.0], requires_grad=True)
        T.div(a, b, rounding_mode="trunc")[1].backward()
        assert a.grad.tolist() == b.grad.tolist() == [0.0, 0.0]


def test_logsumexp_of_nothing() -> None:
    for T in (torch, gc):
        assert T.zeros(0, 3).logsumexp(0).tolist() == [-np.inf] * 3
        assert T.zeros(0).logsumexp(0, keepdim=True).tolist() == [-np.inf]
        assert T.zeros(2, 0).logsumexp((0, 1)).item() == -np.inf


@pytest.mark.parametrize("dims", [(0, 1), (1, 0), (-1, 0), (2, 1), (0, 2)])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_writes_to_diagonals(dims: tuple[int, int], offset: int) -> None:
    """Of square and other matrices, dims in any order."""
    for array in (X[:, :4], X[:3, :3, 0], X[:3, 0, :]):
        if max(dims) >= array.ndim:
            continue
        seen = []
        for T in (torch, gc):
            x = T.from_numpy(array.copy())
            x.diagonal(offset, *dims)[..., 1:] *= 10
            seen.append(x.numpy())
        np.testing.assert_array_equal(*seen)


def test_what_is_overwritten_by_a_copy_keeps_its_history() -> None:
    """With a gradient of zero, so that a backward pass can still go through it."""
    for T in (torch, gc):
        a = T.ones(3, requires_grad=True)
        b = a * 2
        b.copy_(T.arange(3.0))
        assert b.requires_grad
        assert not b.is_leaf
        b.sum().backward()
        assert a.grad.tolist() == [0.0, 0.0, 0.0]


def test_a_mask_without_dims_in_a_compiled_function() -> None:
    """Its value is not known there, and need not be."""

    def put(x: gc.Tensor) -> gc.Tensor:
        x = x * 2
        x[x.sum() > 0] = 5.0
        return x

    compiled = gc.compile(put)
    for sign in (1.0, -1.0):
        assert compiled(gc.ones(3) * sign).tolist() == put(gc.ones(3) * sign).tolist()


def swapped(T: Any) -> list[Any]:
    """Averages of weights, swapped in and out through `.data`, between steps of an optimizer."""
    model = T.nn.Linear(3, 2)
    with T.no_grad():
        for p in model.parameters():
            p.copy_(T.linspace(-1, 1, p.numel()).reshape(p.shape))
    optimizer = T.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    shadow = {name: p.data.clone() for name, p in model.named_parameters()}
    x = T.linspace(0, 1, 12).reshape(4, 3)
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        model(x).pow(2).sum().backward()
        optimizer.step()
        backup = {}
        for name, p in model.named_parameters():
            shadow[name] = 0.5 * shadow[name] + 0.5 * p.data
            backup[name] = p.data
            p.data = shadow[name]
        seen.append(model(x).detach())
        for name, p in model.named_parameters():
            p.data = backup[name]
        seen.append(model(x).detach())
    return [t.tolist() for t in seen]


def test_data_leaves_the_storage_to_the_others() -> None:
    for ours, theirs in zip(swapped(gc), swapped(torch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    w = gc.ones(2, requires_grad=True)
    kept, again = w.detach(), w.data
    (w * 2).sum().backward()
    w.data = gc.zeros(2)
    assert (kept.tolist(), w.tolist()) == ([1, 1], [0, 0])
    kept.add_(1)
    assert (again.tolist(), w.tolist()) == ([2, 2], [0, 0])
    assert w.grad is not None
    state = {"w": w.detach() + 0}
    w.data = w.data * 3 + 1
    assert (state["w"].tolist(), w.tolist()) == ([0, 0], [1, 1])
