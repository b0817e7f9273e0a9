"""Padding and packing sequences of different lengths, as torch does; in compiled functions, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.nn.utils import rnn

torch = pytest.importorskip("torch")

from tests.nn.against_torch import close, inputs, weighted  # noqa: E402

BOTH = (graphc, torch)
STEPS, BATCH = 5, 3
(X,) = inputs((STEPS, BATCH, 2))
(LONG, MIDDLE, SHORT) = inputs((4, 2), (3, 2), (1, 2), seed=3)


def utils(T: Any) -> Any:
    return T.nn.utils.rnn


def same(ours: Any, theirs: Any) -> None:
    """Equal tensors, None, or sequences of them."""
    if theirs is None:
        assert ours is None
    elif isinstance(theirs, torch.Tensor):
        close("result", ours, theirs)
    else:
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)


PACKED = {
    "sorted": ([5, 3, 1], {}),
    "all as long": ([5, 5, 5], {}),
    "batch first": ([3, 2, 2, 1, 1], {"batch_first": True}),
    "any order": ([2, 5, 4], {"enforce_sorted": False}),
    "ties": ([3, 4, 3], {"enforce_sorted": False}),
    "any order, batch first": ([1, 2, 3, 1, 3], {"enforce_sorted": False, "batch_first": True}),
}


@pytest.mark.parametrize("name", PACKED)
def test_packing_and_padding(name: str) -> None:
    """All fields, what comes back, and the gradient; lengths as a list and as a tensor."""
    lengths, options = PACKED[name]
    for as_tensor in (False, True):
        found = []
        for T in BOTH:
            x = T.from_numpy(X.copy()).requires_grad_(True)
            packed = utils(T).pack_padded_sequence(x, T.tensor(lengths) if as_tensor else lengths, **options)
            padded, counts = utils(T).pad_packed_sequence(packed)
            longer, _ = utils(T).pad_packed_sequence(
                packed, batch_first=True, padding_value=7, total_length=8
            )
            weighted(T, [packed.data, padded, longer]).backward()
            found.append([*packed, padded, counts, longer, x.grad, utils(T).unpack_sequence(packed)])
        same(*found)


def test_packed_of_data_of_ones_own() -> None:
    """`PackedSequence(changed data, the other fields)` goes through layers and padding."""
    torch.manual_seed(0)
    layers = [T.nn.GRU(2, 3) for T in BOTH]
    layers[0].load_state_dict({k: graphc.from_numpy(v.numpy()) for k, v in layers[1].state_dict().items()})
    found = []
    for T, gru in zip(BOTH, layers, strict=True):
        x = T.from_numpy(X.copy()).requires_grad_(True)
        packed = utils(T).pack_padded_sequence(x, [2, 5, 4], enforce_sorted=False)
        made = utils(T).PackedSequence(packed.data * 2, *list(packed)[1:])
        again = packed._replace(data=packed.data + 1)
        out, last = gru(made)
        padded, _ = utils(T).pad_packed_sequence(again)
        weighted(T, [out.data, last, padded]).backward()
        found.append([*out, last, padded, x.grad, *utils(T).PackedSequence((again.data, again.batch_sizes))])
    same(*found)


def test_packed_as_a_named_tuple() -> None:
    packed, theirs = (
        utils(T).pack_padded_sequence(T.arange(6.0).reshape(3, 2), [2, 3], enforce_sorted=False) for T in BOTH
    )
    assert repr(packed) == repr(theirs)
    assert packed._fields == theirs._fields
    assert len(packed) == 4
    data, sizes, _, _ = packed
    assert data is packed.data is packed[0]
    assert packed[1] is sizes
    same(packed.to(graphc.float64), theirs.to(torch.float64))
    same(packed.double().float(), theirs)
    same(packed.long(), theirs.long())
    same(packed.int(), theirs.int())
    assert packed.cpu() is packed.pin_memory() is packed
    assert not packed.is_cuda
    assert not packed.is_pinned()
    with pytest.raises(AssertionError, match="list or tuple of length 2"):
        rnn.PackedSequence(packed.data)


def test_inverse_permutation() -> None:
    same(*[utils(T).invert_permutation(T.tensor([2, 0, 1])) for T in BOTH])
    assert rnn.invert_permutation(None) is None


LISTS = {
    "longest first": [LONG, MIDDLE, SHORT],
    "any order": [SHORT, LONG, MIDDLE],
    "numbers": [LONG[:, 0], SHORT[:, 0]],
    "integers": [np.arange(3), np.arange(1)],
}
PADDING: list[dict[str, Any]] = [
    {},
    {"batch_first": True, "padding_value": 9},
    {"padding_side": "left"},
    {"batch_first": True, "padding_side": "left"},
]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("options", PADDING, ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["known", "with gradient"])
def test_pad_sequence(name: str, options: dict[str, Any], known: bool) -> None:
    """Values that are there are padded at once; others by a program, with gradients."""
    found: list[list[Any]] = []
    for T in BOTH:
        items = [T.from_numpy(a.copy()) for a in LISTS[name]]
        grad = not known and items[0].dtype is T.float32
        items = [t.requires_grad_(True) if grad else t for t in items]
        out = utils(T).pad_sequence([t if known else t + 0 for t in items], **options)
        found.append([out])
        if grad:
            weighted(T, out).backward()
            found[-1] += [t.grad for t in items]
        if options.get("padding_side") != "left":
            lengths = T.tensor([len(t) for t in items])
            copy = out * 1  # torch transposes its argument in place
            found[-1].append(utils(T).unpad_sequence(copy, lengths, options.get("batch_first", False)))
    same(*found)


def test_pack_sequence() -> None:
    for name, ordered in (("longest first", True), ("any order", False)):
        found = []
        for T in BOTH:
            packed = utils(T).pack_sequence([T.from_numpy(a.copy()) for a in LISTS[name]], ordered)
            found.append([packed, utils(T).unpack_sequence(packed)])
        same(*found)


# --------------------------------------------------------------------- compiled


def lstm() -> Any:
    graphc.manual_seed(0)
    return graphc.nn.LSTM(2, 3, bidirectional=True)


def run(layer: Any, x: Any, lengths: Any) -> Any:
    packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    out, (h, _) = layer(packed)
    return rnn.pad_packed_sequence(out, total_length=STEPS)[0], h


def test_lengths_of_a_compiled_call_are_data() -> None:
    """One program for all lengths, equal to the lazy one."""
    layer, x = lstm(), graphc.from_numpy(X.copy())
    fast = graphc.compile(lambda x, n: run(layer, x, n))
    for lengths in ([5, 4, 1], [1, 1, 2], [3, 5, 3]):
        expected = run(layer, x, lengths)
        for a, b in zip(fast(x, graphc.tensor(lengths)), expected, strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    assert fast.compilations == 1


def test_lengths_out_of_bounds_of_a_compiled_call() -> None:
    x = graphc.from_numpy(X.copy())
    ordered = graphc.compile(
        lambda x, n: rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, n), total_length=4)[0]
    )
    assert tuple(ordered(x, graphc.tensor([4, 2, 1])).shape) == (4, 3, 2)
    for lengths, says in (
        ([4, 2, 0], "at least 1 and at most 5"),
        ([6, 2, 1], "at least 1 and at most 5"),
        ([3, 4, 1], "sorted in decreasing order"),
        ([5, 2, 1], "not at most total_length=4"),
    ):
        with pytest.raises(IndexError, match=says):
            ordered(x, graphc.tensor(lengths)).numpy()


def test_packed_arguments_and_results_of_a_compiled_call() -> None:
    """A PackedSequence is data, as a tuple is; its longest length is part of the signature."""
    layer, x = lstm(), graphc.from_numpy(X.copy())
    fast = graphc.compile(lambda packed: layer(packed)[0])
    for lengths in ([2, 4, 1], [3, 1, 4], [3, 5, 3]):
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        found, expected = fast(packed), layer(packed)[0]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    assert fast.compilations == 2


def test_packed_from_outside_a_compiled_function() -> None:
    layer, x = lstm(), graphc.from_numpy(X.copy())
    packed = rnn.pack_padded_sequence(x, [5, 4, 1])
    inside = rnn.PackedSequence(packed.data, packed.batch_sizes)
    for given in (packed, inside):
        fast = graphc.compile(lambda factor, given=given: layer(given)[1][0] * factor)
        out = fast(graphc.tensor(2.0))
        np.testing.assert_array_equal(out.detach().numpy(), 2 * layer(given)[1][0].detach().numpy())


def test_what_needs_lengths_says_so() -> None:
    x = graphc.from_numpy(X.copy())
    for look in (lambda p: p.data, lambda p: p.batch_sizes, lambda p: rnn.pad_packed_sequence(p)[0]):
        fast = graphc.compile(lambda x, n, look=look: look(rnn.pack_padded_sequence(x, n)))
        with pytest.raises(RuntimeError, match=r"depends on the values of the lengths.*total_length"):
            fast(x, graphc.tensor([5, 4, 1]))


# --------------------------------------------------------------------- mistakes

MISTAKES = {
    "order": (RuntimeError, "must be sorted in decreasing order", X, [3, 5, 2]),
    "zero": (RuntimeError, "has to be greater than 0", X, [3, 2, 0]),
    "negative": (RuntimeError, "has to be greater than 0", X, [3, 2, -1]),
    "too few": (RuntimeError, r"but got 2 \(batch_size=3\)", X, [3, 2]),
    "rank": (RuntimeError, "'lengths' argument should be a 1D", X, np.array([[5, 3, 2]])),
    "nothing": (RuntimeError, "Cannot pack empty tensors", X[:0], [0, 0, 0]),
    "no batch": (IndexError, None, X[:, 0, 0], [5]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    error, says, x, lengths = MISTAKES[name]
    for T in BOTH:  # torch says the same
        given = T.from_numpy(lengths) if isinstance(lengths, np.ndarray) else lengths
        with pytest.raises(error, match=says):
            utils(T).pack_padded_sequence(T.from_numpy(x.copy()), given)


def test_too_long() -> None:
    """torch reads beyond the batch."""
    with pytest.raises(RuntimeError, match="no length may be larger than the 5 steps of the input, got"):
        rnn.pack_padded_sequence(graphc.from_numpy(X.copy()), [6, 3, 2])


def test_mistakes_of_padding() -> None:
    for T in BOTH:  # torch says the same
        packed = utils(T).pack_padded_sequence(T.from_numpy(X.copy()), [5, 3, 2])
        with pytest.raises(ValueError, match="total_length=4 and max sequence length being 5"):
            utils(T).pad_packed_sequence(packed, total_length=4)
        with pytest.raises(RuntimeError, match="received an empty list"):
            utils(T).pad_sequence([])
        with pytest.raises(RuntimeError, match="Expected iterable"):
            utils(T).pad_sequence(3)
        with pytest.raises(RuntimeError, match="padding_side to be one of left or right"):
            utils(T).pad_sequence([T.zeros(2)], padding_side="top")
        with pytest.raises(RuntimeError):
            utils(T).pad_sequence([T.zeros(2, 3), T.zeros(2, 4)])
