"""The less common functions and methods against torch: values, dtypes, gradients; moments of random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402
from tests.nn.against_torch import close, inputs, same_function  # noqa: E402

A, B, V, W, Q, R = inputs((3, 4), (3, 4), (4,), (3,), (2, 3, 4), (2, 4, 3))
P = np.random.default_rng(1).uniform(0.1, 0.9, (3, 4)).astype(np.float32)
I = np.random.default_rng(2).integers(-5, 6, (3, 4))  # noqa: E741
ROWS = np.array([2, 0])

# name -> (function of the namespace and tensors, arrays); the gradients of all float arrays are compared too
DIFFERENTIABLE: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "absolute": (lambda T, x: T.absolute(x), [A]),
    "subtract": (lambda T, x, y: T.subtract(x, y, alpha=2), [A, B]),
    "true_divide": (lambda T, x, y: T.true_divide(x, y), [A, P]),
    "expit": (lambda T, x: T.special.expit(x) if T is torch else T.expit(x), [A]),
    "clamp_min": (lambda T, x: T.clamp_min(x, -0.3), [A]),
    "clamp_max": (lambda T, x: T.clamp_max(x, 0.3), [A]),
    "clip": (lambda T, x: T.clip(x, -0.3, 0.4), [A]),
    "addmv": (lambda T, x, m, v: T.addmv(x, m, v, beta=0.5, alpha=2), [W, A, V]),
    "addbmm": (lambda T, x, a, b: T.addbmm(x, a, b, beta=0.5, alpha=2), [A[:, :3].copy(), Q, R]),
    "addr": (lambda T, x, a, b: T.addr(x, a, b, beta=0.5, alpha=2), [A, W, V]),
    "ger": (lambda T, a, b: T.ger(a, b), [W, V]),
    "aminmax": (lambda T, x: tuple(T.aminmax(x, dim=1, keepdim=True)), [A]),
    "std_mean": (lambda T, x: T.std_mean(x, dim=1), [A]),
    "var_mean": (lambda T, x: T.var_mean(x, dim=0, correction=0), [A]),
    "atleast_1d": (lambda T, x: T.atleast_1d(x.sum()), [A]),
    "atleast_2d": (lambda T, x: T.atleast_2d(x), [V]),
    "broadcast_to": (lambda T, x: T.broadcast_to(x, (2, 3, 4)), [A]),
    "broadcast_tensors": (lambda T, x, y: T.broadcast_tensors(x, y), [A, V]),
    "cummax": (lambda T, x: T.cummax(x, 1)[0], [A]),
    "cummin": (lambda T, x: T.cummin(x, 0)[0], [A]),
    "logcumsumexp": (lambda T, x: T.logcumsumexp(x * 30, 1), [A]),
    "diag_embed": (lambda T, x: T.diag_embed(x, 1), [A]),
    "fliplr": (lambda T, x: T.fliplr(x), [A]),
    "flipud": (lambda T, x: T.flipud(x), [A]),
    "hstack": (lambda T, x, y: T.hstack((x, y)), [A, B]),
    "hstack of rank 1": (lambda T, x, y: T.hstack((x, y)), [V, W]),
    "vstack": (lambda T, x, y: T.vstack((x, y)), [A, V]),
    "row_stack": (lambda T, x, y: T.row_stack((x, y)), [V, A]),
    "index_copy": (
        lambda T, x, y: T.index_copy(x, 0, T.from_numpy(ROWS), y),
        [A, B[:2].copy()],
    ),
    "index_fill": (lambda T, x: T.index_fill(x, 1, T.from_numpy(ROWS), 7.0), [A]),
    "index_put": (
        lambda T, x, y: T.index_put(x, (T.tensor([1, 1, 2]), T.tensor([0, 0, 3])), y, accumulate=True),
        [A, W],
    ),
    "kthvalue": (lambda T, x: T.kthvalue(x, 2, dim=1)[0], [A]),
    "msort": (lambda T, x: T.msort(x), [A]),
    "topk": (lambda T, x: T.topk(x, 2, dim=1)[0], [A]),
    "topk smallest": (lambda T, x: T.topk(x, 2, dim=0, largest=False)[0], [A]),
    "quantile": (lambda T, x: T.quantile(x, 0.3, dim=1), [A]),
    "quantiles": (lambda T, x, q: T.quantile(x, q.detach(), dim=0, keepdim=True), [A, P[0, :2].copy()]),
    "log_softmax": (lambda T, x: T.log_softmax(x, dim=1), [A]),
    "swapaxes": (lambda T, x: T.swapaxes(x, 0, 2), [Q]),
    "swapdims": (lambda T, x: T.swapdims(x, -1, 1), [Q]),
    "tensor_split": (lambda T, x: T.tensor_split(x, 3, dim=1), [A]),
    "tensor_split at": (lambda T, x: T.tensor_split(x, (1, 3), dim=1), [A]),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_like_torch(name: str) -> None:
    function, arrays = DIFFERENTIABLE[name]
    same_function(lambda T: lambda *xs: function(T, *xs), arrays)


CONSTANT: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "argsort": (lambda T, x: T.argsort(x, dim=1), [A]),
    "argsort descending": (lambda T, x: T.argsort(x, dim=0, descending=True), [A]),
    "positions of cummax": (lambda T, x: T.cummax(x, 1)[1], [I]),
    "positions of cummin": (lambda T, x: T.cummin(x, 0)[1], [I]),
    "positions of kthvalue": (lambda T, x: T.kthvalue(x, 3, dim=1)[1], [A]),
    "positions of topk": (lambda T, x: T.topk(x, 2, dim=1)[1], [A]),
    "argwhere": (lambda T, x: T.argwhere(x > 0), [I]),
    "bitwise_not": (lambda T, x: T.bitwise_not(x), [I]),
    "bitwise_not of bools": (lambda T, x: T.bitwise_not(x > 0), [I]),
    "fix": (lambda T, x: T.fix(3 * x), [A]),
    "sgn": (lambda T, x: T.sgn(x), [I]),
    "greater_equal": (lambda T, x, y: T.greater_equal(x, y), [A, V]),
    "less_equal": (lambda T, x, y: T.less_equal(x, y), [A, V]),
    "not_equal": (lambda T, x: T.not_equal(x, 2), [I]),
    "empty_like": (lambda T, x: T.empty_like(x).fill_(3), [I]),
    "scalar_tensor": (lambda T: T.scalar_tensor(2.5), []),
    "BoolTensor": (lambda T: T.BoolTensor([True, False]), []),
    "ByteTensor": (lambda T: T.ByteTensor([1, 255]), []),
    "DoubleTensor": (lambda T: T.DoubleTensor([1, 2]), []),
    "IntTensor": (lambda T: T.IntTensor([[1], [2]]), []),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_without_gradient(name: str) -> None:
    function, arrays = CONSTANT[name]
    ours, theirs = (function(T, *[T.from_numpy(a.copy()) for a in arrays]) for T in (gc, torch))
    close(name, ours, theirs)


def test_inner_1d() -> None:
    assert gc.inner_1d(gc.from_numpy(V), gc.from_numpy(V)).item() == pytest.approx(float(V @ V))


def test_questions_about_tensors() -> None:
    for T in (gc, torch):
        x = T.zeros(2, 3)
        assert x.nelement() == x.numel() == 6
        assert T.is_floating_point(x)
        assert not T.is_floating_point(T.tensor([1]))
        assert not T.is_complex(x)
        assert tuple(T.broadcast_shapes((3, 1), (2, 1, 4))) == (2, 3, 4)
    assert gc.nelement(gc.zeros(2, 3)) == 6


def test_there_is_no_cuda() -> None:
    """Programs that ask before they use it go on with the CPU; what they call anyway does nothing."""
    assert not gc.cuda.is_available()
    assert gc.cuda.device_count() == 0
    for call in (gc.cuda.synchronize, gc.cuda.empty_cache):
        call()
    gc.manual_seed(3)
    first = gc.rand(2).tolist()
    gc.manual_seed(3)
    gc.cuda.manual_seed(4)
    gc.cuda.manual_seed_all(4)
    assert gc.rand(2).tolist() == first


def test_dtypes_of_results() -> None:
    names = ("bool", "uint8", "int32", "int64", "float32", "float64")
    for a in names:
        for b in names:
            ours, theirs = (T.promote_types(getattr(T, a), getattr(T, b)) for T in (gc, torch))
            assert str(ours).split(".")[1] == str(theirs).split(".")[1]
            ours, theirs = (T.can_cast(getattr(T, a), getattr(T, b)) for T in (gc, torch))
            assert ours == theirs, f"{a} to {b}"


def test_default_dtype() -> None:
    assert gc.get_default_dtype() is gc.float32
    gc.set_default_dtype(gc.float64)
    try:
        assert gc.get_default_dtype() is gc.float64
        assert gc.tensor(1.5).dtype is gc.float64
        assert gc.zeros(2).dtype is gc.float64
        assert (gc.tensor([1, 2]) / 2).dtype is gc.float64
    finally:
        gc.set_default_dtype(gc.float32)
    assert gc.zeros(2).dtype is gc.float32


def test_inference_mode_records_nothing() -> None:
    x = gc.ones(2, requires_grad=True)
    with gc.inference_mode():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_random_like() -> None:
    gc.manual_seed(5)
    x = gc.zeros(64, 65)
    uniform, normal, ints = gc.rand_like(x), gc.randn_like(x), gc.randint_like(x, 3, 9)
    for drawn in (uniform, normal, ints):
        assert drawn.shape == x.shape
        assert drawn.dtype is gc.float32
    assert 0 <= uniform.min().item() < 0.01
    assert 0.99 < uniform.max().item() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.02)
    assert normal.mean().item() == pytest.approx(0, abs=0.06)
    assert normal.std().item() == pytest.approx(1, abs=0.04)
    assert sorted(set(ints.flatten().tolist())) == [3, 4, 5, 6, 7, 8]


def test_default_generator_is_the_one_that_is_seeded() -> None:
    gc.manual_seed(17)
    assert gc.default_generator.initial_seed() == gc.initial_seed() == 17
    first = gc.rand(3).tolist()
    gc.default_generator.manual_seed(17)
    assert gc.rand(3).tolist() == first
