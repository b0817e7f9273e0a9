"""Embedding and EmbeddingBag equal torch: values, gradients, tables shortened in place; and their errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

from tests.nn.against_torch import close, weighted  # noqa: E402

BOTH = (graphc, torch)
ROWS, WIDTH = 7, 4
TABLE = 2 * np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
LINE = np.array([3, 1, 4, 1, 5, 6, 2, 6, 5, 3], np.int64)
SQUARE = np.array([[3, 1, 1], [2, 2, 6], [5, 0, 2], [2, 2, 2]], np.int64)
FACTORS = np.random.default_rng(1).standard_normal(LINE.shape).astype(np.float32)


def table(T: Any) -> Any:
    return T.from_numpy(TABLE.copy()).requires_grad_(True)


def compare(function: Any, *arrays: np.ndarray) -> None:
    """`function(F, table, *tensors)`: the result, the gradients, and the table afterwards."""
    found = []
    for T in BOTH:
        weight = table(T)
        tensors = [T.from_numpy(a.copy()) for a in arrays]
        tensors = [t.requires_grad_(True) if t.dtype is T.float32 else t for t in tensors]
        out = function(T.nn.functional, weight, *tensors)
        weighted(T, out).backward()
        found.append([out, weight.grad, weight, *[t.grad for t in tensors if t.dtype is T.float32]])
    for i, (a, b) in enumerate(zip(*found, strict=True)):
        close(f"result {i}", a, b)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"padding_idx": 2},
    "padding from the end": {"padding_idx": -1},
    "max norm": {"max_norm": 1.5},
    "max norm 1": {"max_norm": 2.5, "norm_type": 1.0},
    "max norm 3": {"max_norm": 1.0, "norm_type": 3.0},
    "by frequency": {"scale_grad_by_freq": True},
    "all": {"padding_idx": 6, "max_norm": 1.5, "scale_grad_by_freq": True},
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("indices", [LINE, SQUARE, SQUARE[None]], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("options", OPTIONS)
def test_embedding(options: str, indices: np.ndarray, dtype: Any) -> None:
    compare(lambda F, w, i: F.embedding(i, w, **OPTIONS[options]), indices.astype(dtype))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", OPTIONS)
def test_bags_of_one_size(options: str, mode: str) -> None:
    given = {k: v for k, v in OPTIONS[options].items() if k != "scale_grad_by_freq"}
    compare(lambda F, w, i: F.embedding_bag(i, w, mode=mode, **given), SQUARE)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_by_frequency(mode: str) -> None:
    """As for single rows. (torch divides by the frequency of another index: its loop mixes up two orders.)"""
    F, found = graphc.nn.functional, []
    for bag in (True, False):
        weight, indices = table(graphc), graphc.from_numpy(SQUARE.copy())
        if bag:
            out = F.embedding_bag(indices, weight, mode=mode, scale_grad_by_freq=True)
        else:
            out = getattr(F.embedding(indices, weight, scale_grad_by_freq=True), mode)(1)
        weighted(graphc, out).backward()
        found.append((out, weight.grad))
    for i, (a, b) in enumerate(zip(*found, strict=True)):
        close(f"result {i}", a, b)


OFFSETS = {
    "two": [0, 4],
    "one": [0],
    "empty bags": [0, 0, 3, 3, 3, 10],
    "all alone": list(range(10)),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("offsets, options", [*itertools.product(OFFSETS, ("plain", "padding", "max norm"))])
def test_bags_by_offsets(offsets: str, options: str, mode: str, last: bool) -> None:
    starts = np.array([*OFFSETS[offsets], 10] if last else OFFSETS[offsets], np.int64)
    given = {"mode": mode, "include_last_offset": last, **OPTIONS[options]}
    compare(lambda F, w, i, o: F.embedding_bag(i, w, o, **given), LINE, starts)


def test_weighted_bags() -> None:
    def flat(F: Any, w: Any, i: Any, o: Any, f: Any) -> Any:
        return F.embedding_bag(i, w, o, mode="sum", per_sample_weights=f, padding_idx=5)

    def square(F: Any, w: Any, i: Any, f: Any) -> Any:
        return F.embedding_bag(i, w, mode="sum", per_sample_weights=f)

    compare(flat, LINE, np.array([0, 3, 3], np.int64), FACTORS)
    compare(square, SQUARE, np.random.default_rng(2).standard_normal(SQUARE.shape).astype(np.float32))


def test_offsets_of_a_compiled_call_are_data() -> None:
    """One program for all offsets, which are then checked when it runs."""
    weight = graphc.from_numpy(TABLE.copy())
    bags = graphc.compile(lambda i, o: graphc.nn.functional.embedding_bag(i, weight, o, mode="max"))
    line = graphc.from_numpy(LINE.copy())
    for offsets in ([0, 2, 7], [0, 0, 1]):
        expected = torch.nn.functional.embedding_bag(
            torch.from_numpy(LINE), torch.from_numpy(TABLE), torch.tensor(offsets), mode="max"
        )
        close("bags", bags(line, graphc.tensor(offsets)), expected)
    assert bags.compilations == 1
    for offsets, says in (([1, 2, 3], "has to be 0"), ([0, 5, 3], "decrease"), ([0, 3, 11], "greater")):
        with pytest.raises(IndexError, match=says):
            bags(line, graphc.tensor(offsets)).sum().item()


@pytest.mark.parametrize("compiled", [False, True], ids=["lazily", "compiled"])
def test_training_a_table_of_bounded_rows(compiled: bool) -> None:
    """Each step shortens rows in place, before the optimizer changes them."""
    batches = np.random.default_rng(3).integers(0, ROWS, (5, 4))
    found = []
    for T in BOTH:
        layer = T.nn.Embedding.from_pretrained(T.from_numpy(TABLE.copy()), False, padding_idx=1, max_norm=1.2)
        optimizer = T.optim.SGD(layer.parameters(), lr=0.3)

        def plain(i: Any, T: Any = T, layer: Any = layer, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = weighted(T, layer(i))
            loss.backward()
            optimizer.step()
            return loss

        step = T.compile(plain) if compiled and T is graphc else plain
        losses = [step(T.from_numpy(i)).item() for i in batches]
        found.append((losses, layer.weight.detach().numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


LAYERS = {
    "embedding": lambda nn: nn.Embedding(ROWS, WIDTH, 2, 1.5, 1.0, True),
    "sparse": lambda nn: nn.Embedding(ROWS, WIDTH, sparse=True),
    "bag": lambda nn: nn.EmbeddingBag(ROWS, WIDTH),
    "bag with all": lambda nn: nn.EmbeddingBag(ROWS, WIDTH, 1.5, 1.0, False, "sum", padding_idx=-2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    ours, theirs = (LAYERS[name](T.nn) for T in BOTH)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    if ours.padding_idx is not None:
        assert not ours.weight[ours.padding_idx].any().item()
    ours.load_state_dict({"weight": graphc.from_numpy(theirs.weight.detach().numpy().copy())})
    if name != "sparse":
        found = []
        for T, layer in zip(BOTH, (ours, theirs), strict=True):
            out = layer(T.from_numpy(SQUARE.copy()))
            weighted(T, out).backward()
            found.append((out, layer.weight.grad, layer.weight))
        for i, (a, b) in enumerate(zip(*found, strict=True)):
            close(f"result {i}", a, b)


def test_pretrained() -> None:
    for name in ("Embedding", "EmbeddingBag"):
        kind = getattr(graphc.nn, name)
        given = graphc.from_numpy(TABLE.copy())
        assert not kind.from_pretrained(given).weight.requires_grad
        layer = kind.from_pretrained(given, freeze=False, padding_idx=1)
        assert layer.weight.requires_grad
        np.testing.assert_array_equal(layer.weight.detach().numpy(), TABLE)
        with pytest.raises(AssertionError, match="2-dimensional"):
            kind.from_pretrained(given[0])
        with pytest.raises(AssertionError, match="num_embeddings"):
            kind(3, 2, padding_idx=3)


def tensor(array: Any) -> graphc.Tensor:
    return graphc.from_numpy(np.array(array))


MISTAKES = {
    "floats": (RuntimeError, "one of the following scalar types: Long, Int", (FACTORS,), {}),
    "no offsets": (ValueError, "offsets has to be a 1D Tensor but got None", (LINE,), {}),
    "offsets with bags": (ValueError, "if input is 2D, then offsets", (SQUARE, [0, 1]), {}),
    "rank 3": (ValueError, "1D or 2D Tensor, but got Tensor of dimension 3", (SQUARE[None],), {}),
    "offsets of rank 2": (ValueError, "offsets has to be a 1D Tensor", (LINE, [[0, 1]]), {}),
    "float offsets": (RuntimeError, "'offsets'", (LINE, [0.0, 1.0]), {}),
    "first offset": (RuntimeError, r"offsets\[0\] has to be 0", (LINE, [1, 2]), {}),
    "last offset": (RuntimeError, "greater than input's length 10 but got", (LINE, [0, 11]), {}),
    "order": (RuntimeError, "must not decrease", (LINE, [0, 5, 3]), {}),
    "mode": (ValueError, "mode has to be one of sum, mean or max", (SQUARE,), {"mode": "min"}),
    "sparse maximum": (ValueError, "max mode", (SQUARE,), {"mode": "max", "sparse": True}),
    "frequency": (ValueError, "max mode", (SQUARE,), {"mode": "max", "scale_grad_by_freq": True}),
    "padding": (RuntimeError, "-7 through 6, but got 9", (SQUARE,), {"padding_idx": 9}),
    "no last": (RuntimeError, "at least 1", (LINE, np.zeros(0, np.int64)), {"include_last_offset": True}),
    "factors of a mean": (NotImplementedError, "mode='sum'", (LINE, [0]), {"per_sample_weights": FACTORS}),
    "factors of a shape": (
        ValueError,
        "same shape as the input",
        (LINE, [0]),
        {"mode": "sum", "per_sample_weights": FACTORS[:3]},
    ),
    "factors of a dtype": (
        RuntimeError,
        "per_sample_weights",
        (LINE, [0]),
        {"mode": "sum", "per_sample_weights": FACTORS.astype(np.float64)},
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    error, says, (indices, *offsets), options = MISTAKES[name]
    options = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with pytest.raises(error, match=says):
        graphc.nn.functional.embedding_bag(
            tensor(indices), graphc.from_numpy(TABLE.copy()), *[tensor(o) for o in offsets], **options
        )


@pytest.mark.parametrize("name", ["embedding", "embedding_bag"])
def test_index_out_of_range(name: str) -> None:
    function, weight = getattr(graphc.nn.functional, name), graphc.from_numpy(TABLE.copy())
    for index in (-1, ROWS):
        with pytest.raises(IndexError, match=f"{name}: index is out of bounds: .* less than {ROWS}"):
            function(tensor([[index]]), weight).sum().item()
