"""Functions and methods against torch: values, dtypes, gradients."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(3)


def floats(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def ints(*shape: int, low: int = -5, high: int = 6) -> np.ndarray:
    return RNG.integers(low, high, shape)


def bools(*shape: int) -> np.ndarray:
    return RNG.random(shape) < 0.5


A, B = floats(3, 4), floats(3, 4)
V, W = floats(4), floats(5)
M, N = floats(3, 4), floats(4, 5)
P = floats(2, 3, 4, low=0.1, high=0.9)
IA, JA = ints(3, 4), ints(3, 4, low=1)
K, L = bools(3, 4), bools(3, 4)
D = A.astype(np.float64)

UNARY = (
    "exp exp2 expm1 sin cos tan atan sinh cosh tanh asinh erf erfc sigmoid neg abs sign floor ceil trunc "
    "round square frac relu reciprocal sinc deg2rad rad2deg nan_to_num positive"
).split()
POSITIVE = "log log1p log2 log10 sqrt rsqrt asin acos atanh logit".split()
REDUCTIONS = "sum mean prod var std amax amin logsumexp".split()

Case = tuple[str, Callable[..., Any], tuple[np.ndarray, ...]]
CASES: list[Case] = []


def case(name: str, function: Callable[..., Any], *arrays: np.ndarray) -> None:
    CASES.append((name, function, arrays))


for _name in UNARY:
    case(_name, lambda T, x, n=_name: getattr(T, n)(x), A)
for _name in POSITIVE:
    case(_name, lambda T, x, n=_name: getattr(T, n)(x), P)
for _name in "exp sqrt sin sigmoid reciprocal".split():
    case(f"{_name} of ints", lambda T, x, n=_name: getattr(T, n)(x), JA)
for _name in "neg abs sign floor square relu".split():
    case(f"{_name} of ints", lambda T, x, n=_name: getattr(T, n)(x), IA)
for _name in REDUCTIONS:
    for _dims in ((), (0,), (1, True), (-1,)):
        if _name == "logsumexp" and not _dims:
            continue
        case(f"{_name}{_dims}", lambda T, x, n=_name, d=_dims: getattr(x, n)(*d), A)
for _name in "sum mean amax var std".split():
    case(f"{_name} of two dims", lambda T, x, n=_name: getattr(T, n)(x, (0, 2), keepdim=True), P)
for _name in "sum prod any all max min argmax argmin".split():
    case(f"{_name} of ints", lambda T, x, n=_name: getattr(T, n)(x), IA)
    case(
        f"{_name} of bools",
        lambda T, x, n=_name: getattr(T, n)(x) if n in ("any", "all", "sum", "prod") else x.any(),
        K,
    )
for _name in "argmax argmin".split():
    case(f"{_name} along", lambda T, x, n=_name: getattr(T, n)(x, 1, keepdim=True), A)

for _name in "add sub mul div maximum minimum atan2 hypot logaddexp fmax fmin".split():
    case(_name, lambda T, x, y, n=_name: getattr(T, n)(x, y), A, B)
    case(f"{_name} broadcast", lambda T, x, y, n=_name: getattr(T, n)(x, y), A, V)
for _name in "eq ne lt le gt ge logical_and logical_or logical_xor".split():
    case(_name, lambda T, x, y, n=_name: getattr(T, n)(x, y), A, B)
    case(f"{_name} of ints", lambda T, x, y, n=_name: getattr(T, n)(x, y), IA, JA)
    case(f"{_name} of bools", lambda T, x, y, n=_name: getattr(T, n)(x, y), K, L)
for _name in "bitwise_and bitwise_or bitwise_xor".split():
    case(_name, lambda T, x, y, n=_name: getattr(T, n)(x, y), IA, JA)
for _name in "add sub mul div remainder fmod".split():
    case(f"{_name} of ints", lambda T, x, y, n=_name: getattr(T, n)(x, y), IA, JA)
    case(f"{_name} of ints and a number", lambda T, x, n=_name: getattr(T, n)(x, 3), IA)
    case(f"{_name} int and float", lambda T, x, y, n=_name: getattr(T, n)(x, y), IA, P[0])
    case(f"{_name} float32 and float64", lambda T, x, y, n=_name: getattr(T, n)(x, y), P[0], D)

case("floor_divide ints", lambda T, x, y: T.floor_divide(x, y), IA, JA)
case("floor_divide floats", lambda T, x, y: T.floor_divide(x.detach(), y.detach()), A, B)
case("number - x", lambda T, x: 2 - x, A)
case("number / x", lambda T, x: 1 / x, P)
case("x // number", lambda T, x: x.detach() // 0.7, A)
case("x % number", lambda T, x: x % 0.7, A)
case("int tensor + float", lambda T, x: x + 0.5, IA)
case("bool tensor + int", lambda T, x: x + 1, K)
case("bool tensor * float", lambda T, x: x * 1.5, K)
case("bool + bool", lambda T, x, y: x + y, K, L)
case("0-d int64 + float32", lambda T, x, y: x + y, np.array(3), A)
case("0-d float64 + float32", lambda T, x, y: x + y, np.array(3.0), A)
case("0-d float64 + int", lambda T, x, y: x + y, np.array(3.0), IA)
case("add alpha", lambda T, x, y: T.add(x, y, alpha=3), A, B)
case("div trunc", lambda T, x, y: T.div(x, y, rounding_mode="trunc"), A, B)
case("div trunc ints", lambda T, x, y: T.div(x, y, rounding_mode="trunc"), IA, JA)
case("div floor", lambda T, x, y: T.div(x, y, rounding_mode="floor"), A, B)
for _p in (0, 1, 2, 3, 0.5, -1, -2, 2.5):
    case(f"pow {_p}", lambda T, x, p=_p: x**p, P)
case("pow tensors", lambda T, x, y: x**y, P[0], B)
case("number ** x", lambda T, x: 2**x, A)
case("int ** int", lambda T, x: x**3, IA)
case("int ** float", lambda T, x: x**2.0, IA)
case("clamp", lambda T, x: x.clamp(-0.5, 0.7), A)
case("clamp min", lambda T, x: T.clamp(x, min=0.1), A)
case("clamp tensors", lambda T, x, lo, hi: T.clamp(x, lo, hi), A, V - 1, V + 1)
case("where", lambda T, c, x, y: T.where(c, x, y), K, A, B)
case("where scalar", lambda T, c, x: T.where(c, x, 0.0), K, A)
case("where broadcast", lambda T, c, x, y: T.where(c, x, y), K[0], A, V)
case("masked_fill", lambda T, c, x: x.masked_fill(c, float("-inf")).exp(), K, A)
case("lerp", lambda T, x, y: T.lerp(x, y, 0.3), A, B)
case("addcmul", lambda T, x, y, z: T.addcmul(x, y, z, value=0.5), A, B, P[0])
case("addcdiv", lambda T, x, y, z: T.addcdiv(x, y, z, value=0.5), A, B, P[0])
case(
    "xlogy",
    lambda T, x, y: T.xlogy(x, y),
    np.array([0.0, 1, 2], np.float32),
    np.array([0.5, 2, 3], np.float32),
)
case("round decimals", lambda T, x: T.round(x, decimals=2), A)
case("nansum", lambda T, x: T.nansum(x), np.array([1, np.nan, 3], np.float32))
case("isfinite", lambda T, x: T.isfinite(x), np.array([1, np.nan, np.inf], np.float32))
case("isclose", lambda T, x, y: T.isclose(x, y, rtol=0.5), A, B)
case("std correction", lambda T, x: T.std(x, 1, correction=0), A)
case("var biased", lambda T, x: x.var(1, unbiased=False), A)
for _p in (1, 2, 3, float("inf"), "fro"):
    case(f"norm {_p}", lambda T, x, p=_p: T.norm(x, p), A)
case("norm dim", lambda T, x: x.norm(dim=1, keepdim=True), A)
case("count_nonzero", lambda T, x: T.count_nonzero(x, 1), IA)
case("max dim", lambda T, x: T.max(x, 1)[0], A)
case("max dim indices", lambda T, x: T.max(x, 1)[1], A)
case("min named", lambda T, x: x.min(0).values, A)

case("reshape", lambda T, x: x.reshape(2, -1) * 2, A)
case("view", lambda T, x: x.view(12)[3:7], A)
case("flatten", lambda T, x: T.flatten(x, 1), P)
case("unflatten", lambda T, x: x.unflatten(1, (2, -1)), A)
case("t", lambda T, x: x.t() @ x, A)
case("T", lambda T, x: x.T, A)
case("transpose", lambda T, x: T.transpose(x, 0, 2), P)
case("permute", lambda T, x: x.permute(2, 0, 1), P)
case("movedim", lambda T, x: T.movedim(x, 0, -1), P)
case("squeeze", lambda T, x: x[:, :1].squeeze(1).unsqueeze(-1), A)
case("expand", lambda T, x: x.expand(3, -1, 4), P[:1, :, :])
case("expand_as", lambda T, x, y: x.expand_as(y), V, A)
case("repeat", lambda T, x: x.repeat(2, 1, 3), A)
case("tile", lambda T, x: T.tile(x, (2, 2)), A)
case("repeat_interleave", lambda T, x: T.repeat_interleave(x, 2, 1), A)
case("cat", lambda T, x, y: T.cat([x, y], 1), A, B)
case("cat promotes", lambda T, x, y: T.cat((x, y)), A, IA)
case("stack", lambda T, x, y: T.stack([x, y], -1), A, B)
case("split", lambda T, x: T.split(x, 3, 1)[1], A)
case("split sizes", lambda T, x: x.split([1, 3], 1)[1], A)
case("chunk", lambda T, x: x.chunk(3, 1)[1], A)
case("unbind", lambda T, x: x.unbind(1)[2], A)
case("flip", lambda T, x: x.flip(0, 1), A)
case("roll", lambda T, x: T.roll(x, (1, -2), (0, 1)), A)
case("roll flat", lambda T, x: T.roll(x, 5), A)
case("rot90", lambda T, x: T.rot90(x, 1, (0, 1)), A)
case("narrow", lambda T, x: x.narrow(1, 1, 2), A)
case("tril", lambda T, x: x.tril(-1), A)
case("triu", lambda T, x: T.triu(x, 1), A)
case("diag", lambda T, x: T.diag(x), V)
case("diag of matrix", lambda T, x: T.diag(x, 1), A)
case("diagonal", lambda T, x: x.diagonal(0, 1, 2), P)
case("trace", lambda T, x: T.trace(x), A)
case("cumsum", lambda T, x: x.cumsum(1), A)
case("cumprod", lambda T, x: x.cumprod(1), P)
case("diff", lambda T, x: T.diff(x), A)
case("meshgrid", lambda T, x, y: T.meshgrid(x, y, indexing="xy")[0], V, W)

G = ints(3, 2, low=0, high=4)
case("gather", lambda T, x, i: x.gather(1, i), A, G)
case("take_along_dim", lambda T, x, i: T.take_along_dim(x, i, 1), A, G)
case("index_select", lambda T, x, i: x.index_select(1, i), A, np.array([2, 0, 2]))
case("take", lambda T, x, i: x.take(i), A, np.array([[0, 5], [11, 3]]))
case("scatter_add", lambda T, x, i, v: x.scatter_add(1, i, v), A, G, floats(3, 2))
case("scatter", lambda T, x, i, v: x.scatter(1, i, v), A, np.array([[0, 2], [1, 3], [3, 0]]), floats(3, 2))
case("scatter number", lambda T, x, i: x.scatter(1, i, 7.0), A, G)
case("index_add", lambda T, x, i, v: x.index_add(0, i, v, alpha=2), A, np.array([0, 2, 0]), B)
case("masked_select", lambda T, x, m: x.masked_select(m), A, K)
case("masked_scatter", lambda T, x, m, v: x.masked_scatter(m, v), A, K, B)
case("nonzero", lambda T, x: x.nonzero(), IA)

case("mm", lambda T, x, y: T.mm(x, y), M, N)
case("matmul", lambda T, x, y: x @ y, M, N)
case("matmul vectors", lambda T, x, y: x @ y, V, V + 1)
case("matrix vector", lambda T, x, y: x @ y, M, V)
case("vector matrix", lambda T, x, y: x @ y, V, N)
case("batched", lambda T, x, y: x @ y, P, floats(2, 4, 3))
case("batched matrix", lambda T, x, y: x @ y, P, N)
case("matrix batched", lambda T, x, y: x @ y, floats(5, 3), P)
case("batched vector", lambda T, x, y: x @ y, P, V)
case("vector batched", lambda T, x, y: x @ y, floats(3), P)
case("broadcast batches", lambda T, x, y: x @ y, floats(2, 1, 3, 4), floats(3, 4, 2))
case("bmm", lambda T, x, y: T.bmm(x, y), P, floats(2, 4, 3))
case("addmm", lambda T, b, x, y: T.addmm(b, x, y, beta=2, alpha=0.5), W, M, N)
case("baddbmm", lambda T, b, x, y: T.baddbmm(b, x, y), floats(2, 3, 3), P, floats(2, 4, 3))
case("mv", lambda T, x, y: T.mv(x, y), M, V)
case("dot", lambda T, x, y: T.dot(x, y), V, V * 2)
case("outer", lambda T, x, y: T.outer(x, y), V, W)
case("tensordot", lambda T, x, y: T.tensordot(x, y, dims=([1, 2], [0, 1])), P, floats(3, 4, 5))
for _e, _a in {
    "ij,jk->ik": (M, N),
    "ij->ji": (M,),
    "ij->": (M,),
    "ii->i": (floats(4, 4),),
    "ii": (floats(4, 4),),
    "bij,bjk->bik": (P, floats(2, 4, 3)),
    "i,j->ij": (V, W),
    "ij,jk,kl->il": (M, N, floats(5, 2)),
    "...ij,...jk->...ik": (P, floats(4, 2)),
    "bhqd,bhkd->bhqk": (floats(2, 2, 3, 4), floats(2, 2, 5, 4)),
    "ij,ij->i": (A, B),
    "ij,jk": (M, N),
    "ijk->kij": (P,),
    "b...->...": (P,),
}.items():
    case(f"einsum {_e}", lambda T, *x, e=_e: T.einsum(e, *x), *_a)


def _leaf(module: Any, array: np.ndarray) -> Any:
    made = module.tensor(array)
    return made.requires_grad_() if array.dtype.kind == "f" else made


@pytest.mark.parametrize("function, arrays", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_like_torch(function: Callable[..., Any], arrays: tuple[np.ndarray, ...]) -> None:
    theirs = [_leaf(torch, a) for a in arrays]
    ours = [_leaf(gc, a) for a in arrays]
    expected, found = function(torch, *theirs), function(gc, *ours)
    assert str(found.dtype).split(".")[1] == str(expected.dtype).split(".")[1]
    assert tuple(found.shape) == tuple(expected.shape)
    assert found.requires_grad == expected.requires_grad
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=2e-5, atol=1e-5)
    if not expected.requires_grad:
        return
    weight = RNG.standard_normal(tuple(expected.shape)).astype(expected.detach().numpy().dtype)
    expected.backward(torch.tensor(weight))
    found.backward(gc.tensor(weight))
    for x, y in zip(ours, theirs, strict=True):
        if y.grad is not None:
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-4, atol=1e-4)
        elif x.grad is not None:
            np.testing.assert_array_equal(x.grad.numpy(), np.zeros(x.shape))


def test_creation() -> None:
    for make in (
        lambda T: T.arange(7),
        lambda T: T.arange(1, 8, 2),
        lambda T: T.arange(0.0, 1.0, 0.25),
        lambda T: T.arange(3.0),
        lambda T: T.linspace(-1, 1, 7),
        lambda T: T.eye(3, 4),
        lambda T: T.zeros(2, 3),
        lambda T: T.ones((2, 3)),
        lambda T: T.full((2, 2), 7),
        lambda T: T.full((2, 2), 1.5),
        lambda T: T.full((2,), True),
        lambda T: T.tensor(5),
        lambda T: T.tensor([1, 2.5]),
        lambda T: T.tensor([[True], [False]]),
        lambda T: T.tensor([], dtype=T.int64),
        lambda T: T.zeros(3, dtype=T.int32),
        lambda T: T.ones_like(T.zeros(2, dtype=T.float64)),
        lambda T: T.full_like(T.zeros(2), 3),
        lambda T: T.zeros(3).new_full((2,), 4.0),
        lambda T: T.tensor(np.float64(2)),
        lambda T: T.logspace(0, 2, 3),
        lambda T: T.as_tensor([1, 2]),
        lambda T: T.from_numpy(np.ones((2, 2))),
        lambda T: T.tensor([T.tensor(1.0), T.tensor(2.0)]),
        lambda T: T.LongTensor([1, 2]),
        lambda T: T.tensor(range(3)),
    ):
        expected, found = make(torch), make(gc)
        assert repr(found.dtype).split(".")[1] == repr(expected.dtype).split(".")[1]
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_conversions() -> None:
    x = gc.tensor([[1.5, -2.5]])
    assert x.tolist() == [[1.5, -2.5]]
    assert x.int().tolist() == [[1, -2]]
    assert x.long().dtype is gc.int64
    assert x.bool().dtype is gc.bool
    assert x.double().dtype is gc.float64
    assert x.to(gc.int32).dtype is gc.int32
    assert x.to("cpu") is x
    assert x.type() == "graphc.FloatTensor"
    assert x.type_as(gc.zeros(1, dtype=gc.int64)).dtype is gc.int64
    assert float(x[0, 0]) == 1.5
    assert int(gc.tensor(3)) == 3
    assert bool(gc.tensor(1))
    assert [10, 20][gc.tensor(1)] == 20
    assert len(gc.zeros(4, 2)) == 4
    assert [v.item() for v in gc.arange(3)] == [0, 1, 2]
    assert np.asarray(x).dtype == np.float32
    assert np.from_dlpack(x).tolist() == x.tolist()
    assert gc.from_dlpack(np.arange(3)).tolist() == [0, 1, 2]
    assert x.numpy() is not x.numpy()


def test_numpy_operands() -> None:
    x = gc.ones(3)
    assert (np.float32(2) * x).tolist() == [2, 2, 2]
    assert (x + np.arange(3)).tolist() == [1, 2, 3]
    assert isinstance(np.ones(3) - x, gc.Tensor)


def test_constructors_copies_and_constants() -> None:
    assert gc.Tensor([1, 2]).dtype is gc.float32
    assert tuple(gc.Tensor(2, 3).shape) == (2, 3)
    assert gc.Tensor().numel() == 0
    x = gc.ones(2)
    shared, own = copy.copy(x), copy.deepcopy(x)
    x.add_(1)
    assert shared.tolist() == [2, 2]
    assert own.tolist() == [1, 1]
    with pytest.raises(TypeError, match=r"graphc\.save"):
        pickle.dumps(x)
    assert gc.finfo(gc.float32).eps == torch.finfo(torch.float32).eps
    assert gc.iinfo(gc.int32).max == 2**31 - 1
    assert not gc.cuda.is_available()
    assert gc.is_tensor(x)
    assert x[gc.newaxis].ndim == 2


@pytest.mark.parametrize("name", ["sum", "mean", "max", "argmax", "softmax", "cumsum", "sort", "unsqueeze"])
def test_numpys_names_of_arguments(name: str) -> None:
    """`axis` and `keepdims` are `dim` and `keepdim`, for methods and functions."""
    x = gc.tensor([[1.0, 3.0, 2.0], [6.0, 4.0, 5.0]])
    found = [getattr(x, name)(axis=1), getattr(gc, name)(x, axis=1)]
    if name in ("sum", "mean", "max", "argmax"):
        found = [getattr(x, name)(axis=1, keepdims=True)]
        wanted = getattr(x, name)(dim=1, keepdim=True)
    else:
        wanted = getattr(x, name)(dim=1)
    for one in found:
        pairs = zip(one, wanted, strict=True) if isinstance(one, tuple) else [(one, wanted)]
        assert all(a.shape == b.shape and a.tolist() == b.tolist() for a, b in pairs)


def test_numpys_names_beside_the_others() -> None:
    assert gc.cat([gc.ones(2, 2)] * 2, axis=1).shape == (2, 4)
    with pytest.raises(TypeError):
        gc.ones(2, 2).sum(dim=0, axis=0)


def test_deviation_of_equal_numbers_has_a_gradient_of_zero() -> None:
    """Not 0 times the infinite slope of the root; in float64 as in torch."""
    for T in (torch, gc):
        x = T.full((2, 3), 1.5, dtype=T.float64, requires_grad=True)
        (x.std(1).sum() + T.std_mean(x, 0, correction=0)[0].sum() + x[:1, :1].std(correction=0)).backward()
        assert np.abs(x.grad.numpy()).tolist() == [[0.0] * 3] * 2


def test_the_angle_of_the_origin_has_a_gradient_of_zero() -> None:
    for T in (torch, gc):
        a, b = T.tensor([0.0, 1.0], requires_grad=True), T.tensor([0.0, -2.0], requires_grad=True)
        T.atan2(a, b).sum().backward()
        np.testing.assert_allclose([a.grad.numpy(), b.grad.numpy()], [[0, -0.4], [0, -0.2]], rtol=1e-6)


def test_addcmul_of_integers_cuts_its_factor() -> None:
    for T in (torch, gc):
        a = T.tensor([3, 4], dtype=T.int32)
        found = [T.addcmul(a, a, a, value=v) for v in (0.5, 2.7, -1.5, 2)]
        assert [f.tolist() for f in found] == [[3, 4], [21, 36], [-6, -12], [21, 36]]
        assert all(f.dtype == T.int32 for f in found)


def test_hypot_of_numbers_whose_squares_leave_the_range() -> None:
    for dtype, huge in ((np.float32, 1e30), (np.float64, 1e200)):
        values = np.array([0.0, 1.0, -3.0, huge, 1 / huge, 4e-39], dtype)
        a, b = (m.ravel().copy() for m in np.meshgrid(values, values))
        x, y = gc.tensor(a, requires_grad=True), gc.tensor(b, requires_grad=True)
        found = gc.hypot(x, y)
        np.testing.assert_allclose(found.detach().numpy(), np.hypot(a, b), rtol=1e-6)
        found.sum().backward()
        with np.errstate(invalid="ignore"):
            expected = a / np.hypot(a, b)
        some = np.isfinite(expected)
        np.testing.assert_allclose(x.grad.numpy()[some], expected[some], rtol=1e-5, atol=1e-30)
    for wrong in (gc.tensor([3]), gc.tensor([True])):
        with pytest.raises(NotImplementedError, match="hypot_cpu"):
            gc.hypot(wrong, wrong)


def test_hypot_of_an_infinity_is_infinite() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 1.0], np.float32)
    a, b = (m.ravel().copy() for m in np.meshgrid(values, values))
    np.testing.assert_array_equal(gc.hypot(gc.tensor(a), gc.tensor(b)).numpy(), np.hypot(a, b))


def test_numpy_functions_of_tensors_give_tensors() -> None:
    x = gc.tensor([0.0, 1.0])
    found = np.sin(x)
    assert isinstance(found, gc.Tensor)
    np.testing.assert_allclose(found.numpy(), np.sin([0.0, 1.0]), rtol=1e-6)
    assert np.greater(x, 0).dtype is gc.uint8


def test_writing_at_no_place_changes_nothing() -> None:
    def write(x: gc.Tensor) -> gc.Tensor:
        nowhere = gc.zeros(0, dtype=gc.int64)
        return x.index_put((nowhere,), gc.zeros(0)).scatter(0, nowhere, gc.zeros(0))

    for function in (write, gc.compile(write)):
        np.testing.assert_array_equal(function(gc.arange(3.0)).numpy(), [0.0, 1.0, 2.0])
