"""Transformer layers and stacks against PyTorch: state, values and all gradients, lazily and compiled."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
from graphc.ir.printer import print_graph  # noqa: E402

from .against_torch import copy_state  # noqa: E402
from .gradients import same_gradients  # noqa: E402
from .pairwise import compiled_once, pairwise  # noqa: E402

N, S, T_, HEADS, WIDTH, HIDDEN = 2, 5, 4, 2, 6, 10
RNG = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched", "ignore:enable_nested_tensor")

OPTIONS = {
    "stack": [False, True],
    "norm_first": [False, True],
    "activation": ["gelu", "function", "module"],
    "bias": [True, False],
    "mask": [None, "bool", "float", "heads", "hint"],
    "padding": [None, "bool", "float"],
    "layout": ["first", "second", "unbatched"],
    "eval": [False, True],
    "dtype": ["float32", "float64"],
}


def possible(case) -> bool:
    return not (case["mask"] == "heads" and case["layout"] == "unbatched")


CASES = compiled_once(pairwise(OPTIONS, possible))


def layer_of(nn, case, name: str):
    activation = {
        "function": lambda x: x.sigmoid() * x,
        "module": nn.ELU(0.7),
    }.get(case["activation"], case["activation"])
    return getattr(nn, name)(
        WIDTH, HEADS, HIDDEN, dropout=0.0, activation=activation, layer_norm_eps=1e-3,
        batch_first=case["layout"] == "first", norm_first=case["norm_first"], bias=case["bias"],
    )  # fmt: skip


def sequence(case, length: int) -> np.ndarray:
    shape = {"first": (N, length), "second": (length, N), "unbatched": (length,)}[case["layout"]]
    return RNG.standard_normal((*shape, WIDTH))


def mask_of(case, T, rows: int, columns: int):
    """The attention mask asked for, and the hint that goes with it."""
    rng = np.random.default_rng(1)
    kind = case["mask"]
    if kind is None:
        return None, None
    if kind == "hint":
        return T.nn.Transformer.generate_square_subsequent_mask(rows, dtype=getattr(T, case["dtype"])), True
    hidden = rng.random((N * HEADS, rows, columns) if kind == "heads" else (rows, columns)) < 0.3
    hidden[..., 0] = False
    if kind == "float":
        return T.from_numpy(np.where(hidden, -np.inf, 0.5).astype(case["dtype"])), None
    return T.from_numpy(hidden), None


def padding_of(case, T, length: int):
    if case["padding"] is None:
        return None
    hidden = np.arange(length)[None] >= np.array([[length], [length - 2]])
    if case["layout"] == "unbatched":
        hidden = hidden[1]
    floats = np.where(hidden, -np.inf, 0).astype(case["dtype"])
    return T.from_numpy(hidden if case["padding"] == "bool" else floats)


@pytest.mark.parametrize("case", CASES)
def test_encoder(case):
    """TransformerEncoderLayer, or a TransformerEncoder of two with a norm."""

    def build(nn):
        layer = layer_of(nn, case, "TransformerEncoderLayer")
        model = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH)) if case["stack"] else layer
        return model.eval() if case["eval"] else model

    def call(T):
        mask, hint = mask_of(case, T, S, S)
        padding = padding_of(case, T, S)
        if case["stack"]:
            return lambda m, x: m(x, mask=mask, src_key_padding_mask=padding, is_causal=hint)
        return lambda m, x: m(x, src_mask=mask, src_key_padding_mask=padding, is_causal=bool(hint))

    same_gradients(build, call, [sequence(case, S)], case["dtype"])


@pytest.mark.parametrize("case", CASES)
def test_decoder(case):
    """TransformerDecoderLayer, or a TransformerDecoder of two."""

    def build(nn):
        layer = layer_of(nn, case, "TransformerDecoderLayer")
        model = nn.TransformerDecoder(layer, 2) if case["stack"] else layer
        if case["activation"] == "module":  # PyTorch's copies of a decoder layer forget such an activation
            for module in model.modules():
                module.__dict__.pop("activation", None)
        return model.eval() if case["eval"] else model

    def call(T):
        own, hint = mask_of(case, T, T_, T_)
        other = None if hint else mask_of(case, T, T_, S)[0]
        options = {
            "tgt_mask": own,
            "memory_mask": other,
            "tgt_key_padding_mask": padding_of(case, T, T_),
            "memory_key_padding_mask": padding_of(case, T, S),
            "tgt_is_causal": hint if case["stack"] else bool(hint),
        }
        return lambda m, tgt, memory: m(tgt, memory, **options)

    same_gradients(build, call, [sequence(case, T_), sequence(case, S)], case["dtype"])


@pytest.mark.parametrize(("batch_first", "norm_first"), [(False, True), (True, False)])
def test_transformer(batch_first, norm_first):
    case = {"layout": "first" if batch_first else "second", "padding": "bool", "dtype": "float64"}

    def build(nn):
        return nn.Transformer(
            WIDTH, HEADS, 2, 1, HIDDEN, 0.0, "relu", batch_first=batch_first, norm_first=norm_first
        )

    def call(T):
        future = T.nn.Transformer.generate_square_subsequent_mask(T_, dtype=T.float64)
        options = {
            "tgt_mask": future,
            "src_key_padding_mask": padding_of(case, T, S),
            "memory_key_padding_mask": padding_of(case, T, S),
        }
        return lambda m, src, tgt: m(src, tgt, **options)

    same_gradients(build, call, [sequence(case, S), sequence(case, T_)], "float64")


def test_custom_parts():
    """An encoder and a decoder of one's own take the place of the stacks."""

    class Twice(graphc.nn.Module):
        def forward(self, *tensors, **masks):
            return tensors[0] * 2

    model = graphc.nn.Transformer(WIDTH, HEADS, custom_encoder=Twice(), custom_decoder=Twice())
    x = graphc.ones(3, 1, WIDTH)
    assert model(x, x).tolist() == (x * 2).tolist()


def test_second_order():
    """A penalty on the gradient of the input, differentiated."""
    x0, found = RNG.standard_normal((N, S, WIDTH)), []
    models = {
        T: T.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, 0.0, "gelu", batch_first=True)
        for T in (torch, graphc)
    }
    copy_state(models[graphc], models[torch])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for T, model in models.items():
            x = T.from_numpy(x0).requires_grad_()
            future = T.nn.Transformer.generate_square_subsequent_mask(S, dtype=T.float64)
            out = model.double()(x, src_mask=future, is_causal=True)
            (slope,) = T.autograd.grad((out * out).sum(), x, create_graph=True)
            (slope * slope).sum().backward()
            found.append([x.grad.numpy(), *[p.grad.numpy() for p in model.parameters()]])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * max(1, np.abs(theirs).max()))


# ------------------------------------------------- what is visible of the nested tensors


@pytest.mark.parametrize("mask_check", [True, False])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_padding_of_evaluated_encoders_is_zero(mask_check, aligned, kind):
    """Where PyTorch computes without the padding its result is zero there, before the norm."""
    hidden = np.arange(S)[None] >= np.array([[S], [2]])
    if not aligned:
        hidden[1, [1, 4]] = True, False
    if not (aligned or mask_check):
        pytest.skip("PyTorch reads wrong rows")
    mask = np.where(hidden, -np.inf, 0).astype(np.float32) if kind == "float" else hidden
    x = RNG.standard_normal((N, S, WIDTH)).astype(np.float32)
    torch.manual_seed(0)
    results, models = {}, {}
    for T in (torch, graphc):
        layer = T.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True)
        models[T] = T.nn.TransformerEncoder(layer, 2, T.nn.LayerNorm(WIDTH), mask_check=mask_check).eval()
    copy_state(models[graphc], models[torch])
    for grad in (False, True):
        for T in (torch, graphc):
            for layer in models[T].layers:
                layer.requires_grad_(grad)
            with T.set_grad_enabled(grad), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out = models[T](T.from_numpy(x), src_key_padding_mask=T.from_numpy(mask))
            results[T] = out.detach().numpy()
        seen = ~hidden
        np.testing.assert_allclose(results[graphc][seen], results[torch][seen], rtol=1e-4, atol=1e-5)
        if aligned:
            assert (np.abs(results[graphc][hidden]).max() < 1e-5) == (not grad)
            np.testing.assert_allclose(results[graphc], results[torch], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"norm_first": True, "batch_first": True},
        {"batch_first": False},
        {"batch_first": True, "bias": False},
        {"batch_first": True, "activation": "sigmoid"},
        {"batch_first": True, "nhead": 3},
        {"batch_first": True},
    ],
    ids=str,
)
def test_why_padding_is_computed(options):
    """The warning of `enable_nested_tensor` gives PyTorch's reason."""
    options = {"nhead": HEADS, **options}
    texts = []
    for T in (torch, graphc):
        given = {k: getattr(T, v) if k == "activation" else v for k, v in options.items()}
        layer = T.nn.TransformerEncoderLayer(WIDTH, dim_feedforward=HIDDEN, **given)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            encoder = T.nn.TransformerEncoder(layer, 1)
        texts.append([str(w.message) for w in caught])
        assert encoder.use_nested_tensor == (not caught)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            T.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    assert texts[0] == texts[1]


# --------------------------------------------------------------------- other properties


def test_subsequent_mask():
    for dtype in ("float32", "float64"):
        ours, theirs = (
            T.nn.Transformer.generate_square_subsequent_mask(4, dtype=getattr(T, dtype)).numpy()
            for T in (graphc, torch)
        )
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_causal_masks_are_recognised():
    """Such a mask need not be read: the program of a stack with it is that of the hint."""
    layer = graphc.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, 0.0)
    model = graphc.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def graph(hint: bool | None) -> str:
        def run(x):
            future = graphc.nn.Transformer.generate_square_subsequent_mask(S)
            return model(x, mask=future, is_causal=hint)

        return print_graph(graphc.trace(run, graphc.TensorSpec((S, N, WIDTH))), sites=False)

    assert graph(None) == graph(True)
    assert graph(None) != graph(False)


def test_copies_are_their_own():
    layer = graphc.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN)
    model = graphc.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    a, b = (m.linear1.weight for m in model.layers)
    assert a is not b
    assert a.tolist() == b.tolist() == layer.linear1.weight.tolist()
    copied = copy.deepcopy(model)
    assert len(list(copied.parameters())) == len(list(model.parameters())) == 24


def test_dropout_has_its_places():
    """With everything dropped each block adds nothing, so two norms of the input remain."""
    graphc.manual_seed(0)
    layer = graphc.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=1.0)
    x = graphc.randn(S, N, WIDTH)
    np.testing.assert_allclose(
        layer(x).detach().numpy(), layer.norm2(layer.norm1(x)).detach().numpy(), rtol=1e-5
    )
    names = [n for n, m in layer.named_modules() if isinstance(m, graphc.nn.Dropout)]
    assert names == ["dropout", "dropout1", "dropout2"]


X = np.zeros((S, N, WIDTH), np.float32)
MISTAKES = {
    "activation": lambda T, m: T.nn.TransformerEncoderLayer(WIDTH, HEADS, activation="tanh"),
    "heads": lambda T, m: T.nn.TransformerDecoderLayer(WIDTH, 4),
    "batches": lambda T, m: m(T.zeros(S, 2, WIDTH), T.zeros(S, 3, WIDTH)),
    "features": lambda T, m: m(T.zeros(S, 2, WIDTH), T.zeros(S, 2, WIDTH + 1)),
    "mask dtype": lambda T, m: m.encoder(T.from_numpy(X), mask=T.zeros(S, S, dtype=T.int64)),
    "mask shape": lambda T, m: m.encoder(T.from_numpy(X), mask=T.zeros(S, S + 1)),
    "memory mask": lambda T, m: m.decoder(T.zeros(T_, N, WIDTH), T.from_numpy(X), memory_mask=T.zeros(S, S)),
    "padding": lambda T, m: m.encoder(T.from_numpy(X), src_key_padding_mask=T.zeros(S, N) > 0),
    "hint without mask": lambda T, m: m.encoder(T.from_numpy(X), is_causal=True),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    """PyTorch's exception, with the line and the module."""
    errors = []
    for T in (torch, graphc):
        model = T.nn.Transformer(WIDTH, HEADS, 1, 1, HIDDEN)
        with pytest.raises(Exception) as caught:
            MISTAKES[name](T, model)
        errors.append(caught.value)
    assert type(errors[1]) is type(errors[0])
    assert "test_transformer.py" in str(errors[1])
    if name == "mask shape":
        assert "TransformerEncoder.layers.0.self_attn" in str(errors[1])
