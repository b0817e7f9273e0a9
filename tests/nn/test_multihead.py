"""MultiheadAttention against PyTorch: values, weights and all gradients, lazily and compiled."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .gradients import same_gradients  # noqa: E402
from .pairwise import compiled_once, pairwise  # noqa: E402

N, L, S, HEADS, WIDTH = 3, 4, 5, 2, 6
RNG = np.random.default_rng(0)
OPTIONS = {
    "inputs": ["self", "memory", "three", "sizes"],
    "attn_mask": [None, "bool 2", "float 2", "bool 3", "float 3"],
    "padding": [None, "bool", "float"],
    "need_weights": [False, True, "per head"],
    "layout": ["first", "second", "unbatched"],
    "bias": [True, False],
    "add_bias_kv": [False, True],
    "add_zero_attn": [False, True],
    "dtype": ["float32", "float64"],
}


def arrays_of(case) -> list[np.ndarray]:
    """The distinct inputs in the layout asked for."""
    shapes = {
        "self": [(L, N, WIDTH)],
        "memory": [(L, N, WIDTH), (S, N, WIDTH)],
        "three": [(L, N, WIDTH), (S, N, WIDTH), (S, N, WIDTH)],
        "sizes": [(L, N, WIDTH), (S, N, 3), (S, N, 7)],
    }[case["inputs"]]
    arrays = [RNG.standard_normal(shape) for shape in shapes]
    if case["layout"] == "unbatched":
        return [a[:, 0] for a in arrays]
    return [a.swapaxes(0, 1) for a in arrays] if case["layout"] == "first" else arrays


def masks_of(case) -> dict[str, np.ndarray]:
    """Masks that leave every query some key."""
    batch = 1 if case["layout"] == "unbatched" else N
    keys = L if case["inputs"] == "self" else S

    def mask(kind: str, shape: tuple[int, ...]) -> np.ndarray:
        hidden = RNG.random(shape) < 0.4
        hidden[..., 0] = False
        if kind.startswith("bool"):
            return hidden
        return np.where(hidden, -np.inf, RNG.standard_normal(shape)).astype(case["dtype"])

    found = {}
    if case["attn_mask"] is not None:
        lead = () if case["attn_mask"].endswith("2") else (batch * HEADS,)
        found["attn_mask"] = mask(case["attn_mask"], (*lead, L, keys))
    if case["padding"] is not None:
        shape = (keys,) if case["layout"] == "unbatched" else (batch, keys)
        found["key_padding_mask"] = mask(case["padding"], shape)
    return found


@pytest.mark.parametrize("case", compiled_once(pairwise(OPTIONS)))
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_every_pair_of_options(case):
    arrays, masks = arrays_of(case), masks_of(case)
    sizes = {"kdim": 3, "vdim": 7} if case["inputs"] == "sizes" else {}

    def build(nn):
        return nn.MultiheadAttention(
            WIDTH,
            HEADS,
            bias=case["bias"],
            add_bias_kv=case["add_bias_kv"],
            add_zero_attn=case["add_zero_attn"],
            batch_first=case["layout"] == "first",
            **sizes,
        )

    def call(T):
        options = {name: T.from_numpy(mask) for name, mask in masks.items()}
        options["need_weights"] = bool(case["need_weights"])
        options["average_attn_weights"] = case["need_weights"] != "per head"

        def attend(module, *xs):
            q, k, v = {1: xs * 3, 2: (*xs, xs[-1]), 3: xs}[len(xs)]
            return module(q, k, v, **options)

        return attend

    same_gradients(build, call, arrays, case["dtype"])


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_causal_hint(need_weights, padded):
    """The hint stands for the mask, unless padding or weights need the mask itself."""

    def call(T):
        future = T.nn.Transformer.generate_square_subsequent_mask(L)
        padding = T.from_numpy(np.arange(L)[None] >= np.array([[4], [3], [2]])) if padded else None

        def attend(module, x):
            return module(x, x, x, padding, attn_mask=future, is_causal=True, need_weights=need_weights)

        return attend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_gradients(
            lambda nn: nn.MultiheadAttention(WIDTH, HEADS), call, [RNG.standard_normal((L, N, WIDTH))]
        )


def test_queries_without_keys():
    """Weights of such a query are NaN where they are shown; its output is that of zeros where not."""
    ours, theirs = graphc.nn.MultiheadAttention(WIDTH, HEADS), torch.nn.MultiheadAttention(WIDTH, HEADS)
    ours.load_state_dict({k: graphc.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()})
    x, hidden = RNG.standard_normal((L, N, WIDTH)).astype(np.float32), np.zeros((L, L), bool)
    hidden[1] = True
    for need_weights in (False, True):
        outs = []
        for T, module in ((graphc, ours), (torch, theirs)):
            t = T.from_numpy(x)
            out, _ = module(t, t, t, attn_mask=T.from_numpy(hidden), need_weights=need_weights)
            outs.append(out.detach().numpy())
        np.testing.assert_allclose(*outs, rtol=1e-5, atol=1e-6)
        assert np.isnan(outs[0][1]).all() == need_weights


def test_functional_with_static_keys():
    """`multi_head_attention_forward` with keys and values that are heads already."""
    E, D = WIDTH, WIDTH // HEADS
    arrays = [
        RNG.standard_normal(s).astype(np.float32)
        for s in ((L, N, E), (S, N, E), (3 * E, E), (3 * E,), (E, E), (E,), (N * HEADS, S, D))
    ]
    outs = []
    for T in (graphc, torch):
        q, k, w, b, ow, ob, static = map(T.from_numpy, arrays)
        outs.append(
            T.nn.functional.multi_head_attention_forward(
                q, k, k, E, HEADS, w, b, None, None, True, 0.5, ow, ob, training=False,
                static_k=static, static_v=static * 2, need_weights=True,
            )
        )  # fmt: skip
    for ours, theirs in zip(*outs, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_falls_on_the_weights(need_weights):
    """Only in training; at p = 0.5 a weight is dropped or doubled."""
    graphc.manual_seed(1)
    module = graphc.nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5)
    x = graphc.randn(40, N, WIDTH)
    trained, shown = module(x, x, x, need_weights=need_weights, average_attn_weights=False)
    plain, full = module.eval()(x, x, x, average_attn_weights=False)
    assert not np.allclose(trained.detach().numpy(), plain.detach().numpy(), atol=1e-3)
    if need_weights:
        ratio = shown.detach().numpy() / full.detach().numpy()
        assert np.all(np.isclose(ratio, 0) | np.isclose(ratio, 2, rtol=1e-4))
        assert 0.45 < (ratio == 0).mean() < 0.55


def test_initial_values():
    """PyTorch's distributions: bounds of the Xavier-uniform weights, zero biases."""
    module = graphc.nn.MultiheadAttention(64, 4, add_bias_kv=True)
    bound = (6 / (64 + 192)) ** 0.5
    weight = module.in_proj_weight.detach().numpy()
    assert 0.98 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not module.in_proj_bias.detach().numpy().any()
    assert not module.out_proj.bias.detach().numpy().any()
    assert module.bias_k.detach().numpy().std() == pytest.approx((2 / 128) ** 0.5, rel=0.4)


X = np.zeros((L, N, WIDTH), np.float32)
MISTAKES = {
    "heads do not divide": (lambda T: T.nn.MultiheadAttention(6, 4), "embed_dim must be divisible by num_"),
    "no heads": (lambda T: T.nn.MultiheadAttention(6, 0), "must be greater than 0"),
    "mask shape": ({"attn_mask": np.zeros((L, L + 1), bool)}, r"The shape of the 2D attn_mask"),
    "mask shape 3d": ({"attn_mask": np.zeros((N, L, L), bool)}, r"The shape of the 3D attn_mask"),
    "mask rank": ({"attn_mask": np.zeros(L, bool)}, "expected `attn_mask` to be `None`, 2-D or 3-D"),
    "mask dtype": ({"attn_mask": np.zeros((L, L), np.int64)}, "only bool and floating types of attn_mask"),
    "mask float64": ({"attn_mask": np.zeros((L, L))}, ""),
    "padding shape": ({"key_padding_mask": np.zeros((N, L + 1), bool)}, r"shape\[1\] to be 4, but got 5"),
    "padding batch": ({"key_padding_mask": np.zeros((N + 1, L), bool)}, r"shape\[0\] to be 3, but got 4"),
    "padding rank": ({"key_padding_mask": np.zeros(L, bool)}, "expected `key_padding_mask` to be `None` or"),
    "padding dtype": ({"key_padding_mask": np.zeros((N, L), np.uint8)}, "only bool and floating types"),
    "causal without mask": ({"is_causal": True}, "Need attn_mask if specifying the is_causal hint"),
    "query rank": ({"query": X[0, 0]}, "query should be unbatched 2D or batched 3D"),
    "key rank": ({"key": X[0]}, "expected `key` and `value` to be 3-D"),
    "width": ({"query": X[..., :4], "key": X[..., :4], "value": X[..., :4]}, "was expecting embedding dim"),
    "value length": ({"value": X[1:]}, "does not match value shape"),
    "batch": ({"key": X[:, 1:], "value": X[:, 1:]}, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    """PyTorch's exception; its text too where it names what is wrong."""
    change, text = MISTAKES[name]

    def attempt(T):
        if callable(change):
            return change(T)
        given = {"query": X, "key": X, "value": X, **change}
        given = {k: T.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        return T.nn.MultiheadAttention(WIDTH, HEADS)(**given)

    with pytest.raises(Exception) as theirs:
        attempt(torch)
    with pytest.raises(type(theirs.value)) as ours:
        attempt(graphc)
    if name not in ("padding shape", "padding batch"):
        assert re.search(text, str(theirs.value))
    assert re.search(text, str(ours.value))
    assert "test_multihead.py" in str(ours.value)
