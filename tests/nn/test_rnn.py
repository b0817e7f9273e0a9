"""RNN, LSTM, GRU and their cells equal torch's: values, last states and all gradients, for every option."""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

torch = pytest.importorskip("torch")

from tests.nn.against_torch import close, copy_state, inputs, weighted  # noqa: E402
from tests.nn.pairwise import compiled_once, pairwise  # noqa: E402

STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 3}),
    "gru": ("GRU", {}),
}
FORMS = ("plain", "states", "one", "packed", "packed, any order")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "mode": tuple(MODES),
    "form": FORMS,
    "num_layers": (1, 2),
    "bidirectional": (False, True),
    "bias": (True, False),
    "batch_first": (False, True),
    "dtype": ("float32", "float64"),
}
EVERY = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]
PRECISION = {"float32": 1e-4, "float64": 1e-9}
LENGTHS = {"packed": [5, 3, 1], "packed, any order": [2, 5, 4]}
BOTH = (graphc, torch)


def layer(T: Any, case: dict[str, Any]) -> Any:
    name, extra = MODES[case["mode"]]
    options = {k: case[k] for k in ("num_layers", "bidirectional", "bias", "batch_first")}
    return getattr(T.nn, name)(FEATURES, HIDDEN, **options, **extra, dtype=getattr(T, case["dtype"]))


def arrays_of(case: dict[str, Any], module: Any) -> list[np.ndarray]:
    """The input and, for all forms but the plain one, initial states of a torch module."""
    shape = (BATCH, STEPS, FEATURES) if case["batch_first"] else (STEPS, BATCH, FEATURES)
    alone = case["form"] == "one"
    rows = module.num_layers * (2 if module.bidirectional else 1)
    widths = [module.proj_size or HIDDEN, HIDDEN][: 2 if module.mode == "LSTM" else 1]
    states = [(rows, w) if alone else (rows, BATCH, w) for w in widths]
    given = [] if case["form"] == "plain" else states
    return [a.astype(case["dtype"]) for a in inputs((STEPS, FEATURES) if alone else shape, *given, seed=5)]


def results(T: Any, module: Any, case: dict[str, Any], arrays: list[np.ndarray]) -> dict[str, Any]:
    """Outputs, last states, and the gradients of all inputs and parameters."""
    x, *states = leaves = [T.from_numpy(a.copy()).requires_grad_(True) for a in arrays]
    hx = None if not states else states[0] if len(states) == 1 else tuple(states)
    utils, first, lengths = T.nn.utils.rnn, case["batch_first"], LENGTHS.get(case["form"])
    found: dict[str, Any] = {}
    if lengths is None:
        out, last = module(x, hx)
        parts = [out]
    else:
        packed = utils.pack_padded_sequence(x, lengths, first, enforce_sorted=case["form"] == "packed")
        out, last = module(packed, hx)
        padded, counts = utils.pad_packed_sequence(out, first, 0.5, total_length=STEPS + 1)
        found |= {"batch sizes": out.batch_sizes, "lengths": counts}
        parts = [out.data, padded]
    parts += last if isinstance(last, tuple) else [last]
    found |= {f"output {i}": part for i, part in enumerate(parts)}
    weighted(T, parts).backward()
    found |= {f"gradient of input {i}": t.grad for i, t in enumerate(leaves)}
    return found | {f"gradient of {name}": p.grad for name, p in module.named_parameters()}


def compare(case: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = (layer(T, case) for T in BOTH)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy_state(ours, theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that oneDNN has no projections
        arrays = arrays_of(case, theirs)
        found = [results(T, m, case, arrays) for T, m in zip(BOTH, (ours, theirs), strict=True)]
    tolerance = PRECISION[case["dtype"]]
    assert list(found[0]) == list(found[1])
    for name in found[0]:
        close(name, found[0][name], found[1][name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", compiled_once(pairwise(OPTIONS)))
def test_any_two_options(case: dict[str, Any]) -> None:
    compare(case)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_every_combination(mode: str, form: str) -> None:
    for case in EVERY:
        if (case["mode"], case["form"]) == (mode, form):
            compare(case)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_batch_of_nothing(name: str) -> None:
    shapes = []
    for T in BOTH:
        out, last = getattr(T.nn, name)(FEATURES, HIDDEN, 2, bidirectional=True)(T.zeros(5, 0, FEATURES))
        parts = [out, *(last if isinstance(last, tuple) else (last,))]
        shapes.append([tuple(p.shape) for p in parts])
        assert all(p.numpy().size == 0 for p in [q.detach() for q in parts])
    assert shapes[0] == shapes[1]


def test_long_and_short_sequences_share_parameters() -> None:
    """One step, and hundreds: gradients through all of them."""
    for steps in (1, 300):
        (x,) = inputs((steps, 2, FEATURES))
        torch.manual_seed(0)
        ours, theirs = (T.nn.GRU(FEATURES, HIDDEN, bidirectional=True) for T in BOTH)
        copy_state(ours, theirs)
        found = []
        for T, m in zip(BOTH, (ours, theirs), strict=True):
            weighted(T, m(T.from_numpy(x.copy()))[0]).backward()
            found.append([p.grad for p in m.parameters()])
        for a, b in zip(*found, strict=True):
            close("gradient", a, b, rtol=1e-3, atol=1e-3)


def test_dropout_between_layers() -> None:
    """With weights that copy an input of ones, outputs show which of the first layer's were kept."""
    graphc.manual_seed(3)
    rnn = nn.RNN(50, 50, num_layers=2, nonlinearity="relu", bias=False, dropout=0.25)
    with graphc.no_grad():
        for name, p in rnn.named_parameters():
            p.copy_(graphc.eye(50) if "_ih_" in name else graphc.zeros(50, 50))
    x = graphc.ones(20, 30, 50)
    out = rnn(x)[0].detach().numpy()
    assert np.isclose(out, 0).mean() == pytest.approx(0.25, abs=0.02)
    assert set(np.unique(out.round(4))) == {np.float32(0), np.float32(1.3333)}
    assert not np.array_equal(out, rnn(x)[0].detach().numpy())
    np.testing.assert_array_equal(rnn.eval()(x)[0].detach().numpy(), 1)


def test_parameters_by_layer_and_their_initial_range() -> None:
    for T in BOTH:
        lstm = T.nn.LSTM(FEATURES, 25, 2, bidirectional=True, proj_size=5)
        shapes = [tuple(w.shape) for w in lstm.all_weights[0]]
        assert shapes == [(100, FEATURES), (100, 5), (100,), (100,), (5, 25)]
        assert len(lstm.all_weights) == 4
        assert lstm.all_weights[2][0] is lstm.weight_ih_l1
        assert lstm.flatten_parameters() is None
        drawn = np.concatenate([p.detach().numpy().ravel() for p in lstm.parameters()])
        assert 0.19 < drawn.max() <= 0.2
        assert -0.2 <= drawn.min() < -0.19
    again = copy.deepcopy(lstm)
    assert again.weight_hr_l0 is not lstm.weight_hr_l0


def test_layers_are_equal_compiled() -> None:
    """`nn.RNNBase` is what they share; compiled, a layer is one program and gives the same."""
    lstm = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True)
    assert isinstance(lstm, nn.RNNBase)
    (x,) = inputs((BATCH, STEPS, FEATURES))
    fast = graphc.compile(lstm)
    for _ in range(2):
        out, (h, c) = fast(graphc.from_numpy(x))
    lazy, (lazy_h, lazy_c) = lstm(graphc.from_numpy(x))
    for a, b in ((out, lazy), (h, lazy_h), (c, lazy_c)):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    assert fast.compilations == 1


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_gradients_of_gradients(name: str) -> None:
    """A gradient penalty: the norm of the input's gradient, differentiated by the parameters."""
    (x,) = inputs((STEPS, BATCH, FEATURES))
    torch.manual_seed(0)
    ours, theirs = (getattr(T.nn, name)(FEATURES, HIDDEN, bidirectional=True).double() for T in BOTH)
    copy_state(ours, theirs)
    found = []
    for T, m in zip(BOTH, (ours, theirs), strict=True):
        leaf = T.from_numpy(x.astype("f8")).requires_grad_(True)
        (slope,) = T.autograd.grad(weighted(T, m(leaf)[0]), leaf, create_graph=True)
        (slope * slope).sum().backward()
        found.append([slope, leaf.grad, *[p.grad for p in m.parameters()]])
    for i, (a, b) in enumerate(zip(*found, strict=True)):
        if b is None:  # the bias of an output that nothing multiplies
            assert a is None or not a.any().item()
        else:
            close(f"result {i}", a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("compiled", [False, True], ids=["lazily", "compiled"])
def test_states_carried_from_batch_to_batch(compiled: bool) -> None:
    """Truncated backpropagation through time: states go on, gradients do not."""
    torch.manual_seed(0)
    batches = inputs(*[(STEPS, BATCH, FEATURES)] * 6)
    ours, theirs = (T.nn.LSTM(FEATURES, HIDDEN, num_layers=2) for T in BOTH)
    copy_state(ours, theirs)
    found = []
    for T, lstm in zip(BOTH, (ours, theirs), strict=True):
        optimizer = T.optim.SGD(lstm.parameters(), lr=0.5)

        def plain(x: Any, states: Any, T: Any = T, lstm: Any = lstm, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            out, states = lstm(x, states)
            loss = weighted(T, out)
            loss.backward()
            optimizer.step()
            return loss, tuple(s.detach() for s in states)

        step = T.compile(plain) if compiled and T is graphc else plain
        states = (T.zeros(2, BATCH, HIDDEN), T.zeros(2, BATCH, HIDDEN))
        losses = []
        for x in batches:
            loss, states = step(T.from_numpy(x), states)
            losses.append(loss.item())
        found.append([losses, *[s.numpy() for s in states]])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------- cells

CELLS = {
    "tanh": lambda T, **o: T.nn.RNNCell(FEATURES, HIDDEN, **o),
    "relu": lambda T, **o: T.nn.RNNCell(FEATURES, HIDDEN, nonlinearity="relu", **o),
    "lstm": lambda T, **o: T.nn.LSTMCell(FEATURES, HIDDEN, **o),
    "gru": lambda T, **o: T.nn.GRUCell(FEATURES, HIDDEN, **o),
}


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mode", CELLS)
def test_cell(mode: str, bias: bool, dtype: str) -> None:
    """Three steps from zeros and from given states, with and without a batch dim."""
    torch.manual_seed(0)
    ours, theirs = (CELLS[mode](T, bias=bias, dtype=getattr(T, dtype)) for T in BOTH)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert isinstance(ours, nn.RNNCellBase)
    copy_state(ours, theirs)
    for lead, given in itertools.product(((BATCH,), ()), (False, True)):
        arrays = inputs((3, *lead, FEATURES), *[(*lead, HIDDEN)] * (2 if mode == "lstm" else 1))
        found = []
        for T, cell in zip(BOTH, (ours, theirs), strict=True):
            cell.zero_grad()
            x, *states = [T.from_numpy(a.astype(dtype)).requires_grad_(True) for a in arrays]
            hx = None if not given else tuple(states) if mode == "lstm" else states[0]
            outs: list[Any] = []
            for step in range(3):
                hx = cell(x[step], hx)
                outs += hx if mode == "lstm" else [hx]
            weighted(T, outs).backward()
            found.append(
                [*outs, x.grad, *[s.grad for s in states if given], *[p.grad for p in cell.parameters()]]
            )
        for i, (a, b) in enumerate(zip(*found, strict=True)):
            close(f"result {i}", a, b, rtol=PRECISION[dtype], atol=PRECISION[dtype])


# ---------------------------------------------------------------------- mistakes

X = np.zeros((STEPS, BATCH, FEATURES), np.float32)


def zeros(*shape: int) -> graphc.Tensor:
    return graphc.zeros(*shape)


def given(array: np.ndarray) -> graphc.Tensor:
    return graphc.from_numpy(array.copy())


OPTION_MISTAKES = {
    "no hidden features": (ValueError, "hidden_size must be greater than zero", ("GRU", 4, 0), {}),
    "no input features": (ValueError, "input_size must be greater than zero", ("RNN", 0, 4), {}),
    "no layers": (ValueError, "num_layers must be greater than zero", ("LSTM", 4, 6, 0), {}),
    "float size": (
        TypeError,
        "hidden_size should be of type int, got: float",
        ("GRU", 4, 6.0),
        {},
    ),
    "dropout": (ValueError, r"dropout should be a number in range \[0, 1\]", ("GRU", 4, 6), {"dropout": 2}),
    "dropout of bool": (ValueError, "dropout should be a number", ("GRU", 4, 6), {"dropout": True}),
    "nonlinearity": (ValueError, "Unknown nonlinearity 'sin'", ("RNN", 4, 6), {"nonlinearity": "sin"}),
    "wide projection": (ValueError, "proj_size has to be smaller", ("LSTM", 4, 6), {"proj_size": 6}),
    "negative projection": (ValueError, "proj_size should be a positive", ("LSTM", 4, 6), {"proj_size": -1}),
    "GRU with projection": (ValueError, "only supported for LSTM", ("GRU", 4, 6), {"proj_size": 3}),
    "RNN with projection": (ValueError, "only supported for LSTM", ("RNN", 4, 6), {"proj_size": 3}),
    "unknown": (TypeError, "unexpected keyword argument 'size'", ("GRU", 4, 6), {"size": 3}),
}


@pytest.mark.parametrize("name", OPTION_MISTAKES)
def test_option_mistakes(name: str) -> None:
    error, says, (kind, *sizes), options = OPTION_MISTAKES[name]
    for T in BOTH:  # torch says the same
        with pytest.raises(error, match=says):
            getattr(T.nn, kind)(*sizes, **options)


def test_dropout_of_one_layer_warns() -> None:
    with pytest.warns(UserWarning, match="dropout=0.5 and num_layers=1"):
        nn.LSTM(4, 6, dropout=0.5)


MISTAKES = {
    "input of rank 4": (ValueError, "Expected input to be 2D or 3D, got 4D", "GRU", X[None], None),
    "input features": (RuntimeError, "Expected 4, got 3", "GRU", X[..., :3], None),
    "input dtype": (
        ValueError,
        "does not match weight dtype",
        "LSTM",
        X.astype("f8"),
        None,
    ),
    "no steps": (RuntimeError, "Expected sequence length to be larger than 0", "RNN", X[:0], None),
    "batch of the state": (RuntimeError, r"hidden size \(1, 3, 6\), got \[1, 2, 6\]", "GRU", X, (1, 2, 6)),
    "layers of the state": (RuntimeError, r"hidden size \(1, 3, 6\), got \[2, 3, 6\]", "RNN", X, (2, 3, 6)),
    "features of the state": (RuntimeError, r"hidden\[0\] size \(1, 3, 6\), got", "LSTM", X, (1, 3, 5)),
    "rank of the state": (RuntimeError, "hx should also be 3-D but got 2-D", "GRU", X, (1, 6)),
    "rank of the states": (
        RuntimeError,
        r"cx should also be 2-D but got \(3-D, 3-D\)",
        "LSTM",
        X[:, 0],
        (1, 3, 6),
    ),
    "state without a batch": (RuntimeError, r"\(1, 1, 6\), got \[1, 1, 5\]", "GRU", X[:, 0], (1, 5)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    error, says, kind, array, shape = MISTAKES[name]
    for T in BOTH:  # torch says the same
        hx = None if shape is None else T.zeros(*shape)
        hx = (hx, hx) if kind == "LSTM" and hx is not None else hx
        with pytest.raises(error, match=says):
            getattr(T.nn, kind)(FEATURES, HIDDEN)(T.from_numpy(array.copy()), hx)


def test_mistakes_of_our_own_words() -> None:
    with pytest.raises(TypeError, match="LSTM: hx must be a tuple of two tensors"):
        nn.LSTM(FEATURES, HIDDEN)(given(X), zeros(1, 3, 6))
    with pytest.raises(TypeError, match=r"GRU\(\): argument \(position 1\) must be Tensor, not tuple"):
        nn.GRU(FEATURES, HIDDEN)(given(X), (zeros(1, 3, 6), zeros(1, 3, 6)))
    with pytest.raises(RuntimeError, match="same dtype"):
        nn.GRU(FEATURES, HIDDEN)(given(X), zeros(1, 3, 6).double())
    packed = nn.utils.rnn.pack_padded_sequence(given(X), [5, 3, 2])
    with pytest.raises(RuntimeError, match=r"hidden size \(1, 3, 6\), got \[1, 2, 6\]"):
        nn.GRU(FEATURES, HIDDEN)(packed, zeros(1, 2, 6))


CELL_MISTAKES = {
    "rank": (ValueError, "GRUCell: Expected input to be 1D or 2D, got 3D", "GRUCell", X, None),
    "features": (RuntimeError, "inconsistent input_size: got 3 expected 4", "RNNCell", X[0, :, :3], None),
    "batch": (
        RuntimeError,
        "Input batch size 3 doesn't match hidden0 batch size 2",
        "LSTMCell",
        X[0],
        (2, 6),
    ),
    "hidden": (RuntimeError, "hidden0 has inconsistent hidden_size", "GRUCell", X[0], (3, 5)),
    "rank of the state": (
        ValueError,
        r"LSTMCell: Expected hx\[0\] to be 1D or 2D",
        "LSTMCell",
        X[0],
        (1, 3, 6),
    ),
    "dtype": (RuntimeError, "must have the same dtype", "GRUCell", X[0].astype("f8"), None),
}


@pytest.mark.parametrize("name", CELL_MISTAKES)
def test_cell_mistakes(name: str) -> None:
    error, says, kind, array, shape = CELL_MISTAKES[name]
    for T in BOTH:  # torch says the same
        hx = None if shape is None else T.zeros(*shape)
        hx = (hx, hx) if kind == "LSTMCell" and hx is not None else hx
        with pytest.raises(error, match=says):
            getattr(T.nn, kind)(FEATURES, HIDDEN)(T.from_numpy(array.copy()), hx)


def test_cell_mistakes_of_our_own_words() -> None:
    with pytest.raises(TypeError, match="argument 'hx' must be tuple of two Tensors, not Tensor"):
        nn.LSTMCell(FEATURES, HIDDEN)(given(X[0]), zeros(3, 6))
    with pytest.raises(RuntimeError, match="Unknown nonlinearity: sin"):
        nn.RNNCell(FEATURES, HIDDEN, nonlinearity="sin")(given(X[0]))
