"""Every layer against PyTorch: repr, state_dict keys, outputs, gradients, buffers."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import inputs, same_module  # noqa: E402

LABELS = np.array([[0, 3], [2, 2], [4, 1]])
CASES = {
    "linear": (lambda nn: nn.Linear(5, 3), [(4, 5)]),
    "linear 3d no bias": (lambda nn: nn.Linear(5, 3, bias=False), [(2, 4, 5)]),
    "bilinear": (lambda nn: nn.Bilinear(5, 3, 4), [(6, 5), (6, 3)]),
    "identity": (lambda nn: nn.Identity(54, unused=True), [(3, 4)]),
    "embedding": (lambda nn: nn.Embedding(5, 3), [LABELS]),
    "embedding padded": (lambda nn: nn.Embedding(5, 3, padding_idx=2), [LABELS]),
    "embedding by frequency": (lambda nn: nn.Embedding(5, 3, scale_grad_by_freq=True), [LABELS]),
    "embedding max norm": (lambda nn: nn.Embedding(5, 3, max_norm=0.7), [LABELS]),
    "conv1d": (lambda nn: nn.Conv1d(4, 6, 3, stride=2, padding=1), [(2, 4, 9)]),
    "conv2d": (lambda nn: nn.Conv2d(3, 5, 3), [(2, 3, 8, 7)]),
    "conv2d same": (lambda nn: nn.Conv2d(3, 5, (3, 4), padding="same"), [(2, 3, 8, 7)]),
    "conv2d valid, groups": (lambda nn: nn.Conv2d(4, 6, 3, padding="valid", groups=2), [(2, 4, 8, 7)]),
    "conv2d dilated": (
        lambda nn: nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=(2, 0), bias=False),
        [(2, 3, 8, 7)],
    ),
    "conv2d depthwise": (lambda nn: nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1, groups=4), [(2, 4, 8, 7)]),
    "conv2d one image": (lambda nn: nn.Conv2d(3, 5, 3), [(3, 8, 7)]),
    "conv3d": (lambda nn: nn.Conv3d(2, 3, 2), [(2, 2, 4, 5, 3)]),
    "conv_transpose1d": (lambda nn: nn.ConvTranspose1d(3, 4, 3, stride=2), [(2, 3, 5)]),
    "conv_transpose2d": (
        lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        [(2, 4, 5, 4)],
    ),
    "conv_transpose2d dilated": (
        lambda nn: nn.ConvTranspose2d(3, 2, 3, dilation=3, output_padding=2),
        [(2, 3, 5, 4)],
    ),
    "batch_norm 2 dims": (lambda nn: nn.BatchNorm1d(3), [(6, 3)]),
    "batch_norm 3 dims": (lambda nn: nn.BatchNorm1d(3, momentum=None), [(4, 3, 5)]),
    "batch_norm 4 dims": (lambda nn: nn.BatchNorm2d(3, eps=1e-3, momentum=0.3), [(4, 3, 5, 2)]),
    "batch_norm not affine": (lambda nn: nn.BatchNorm2d(3, affine=False), [(4, 3, 5, 2)]),
    "batch_norm no tracking": (lambda nn: nn.BatchNorm2d(3, track_running_stats=False), [(4, 3, 5, 2)]),
    "batch_norm 5 dims": (lambda nn: nn.BatchNorm3d(3), [(2, 3, 5, 2, 2)]),
    "instance_norm": (lambda nn: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), [(4, 3, 5, 2)]),
    "instance_norm one sample": (lambda nn: nn.InstanceNorm1d(3), [(3, 5)]),
    "layer_norm": (lambda nn: nn.LayerNorm(5), [(4, 3, 5)]),
    "layer_norm 2 dims": (lambda nn: nn.LayerNorm((3, 5), bias=False), [(4, 3, 5)]),
    "group_norm": (lambda nn: nn.GroupNorm(2, 4), [(3, 4, 5)]),
    "rms_norm": (lambda nn: nn.RMSNorm(5), [(4, 3, 5)]),
    "local_response_norm": (lambda nn: nn.LocalResponseNorm(3), [(2, 5, 4, 3)]),
    "max_pool1d": (lambda nn: nn.MaxPool1d(3, 2, 1), [(2, 3, 8)]),
    "max_pool2d": (lambda nn: nn.MaxPool2d(2), [(2, 3, 8, 7)]),
    "max_pool2d overlapping": (lambda nn: nn.MaxPool2d(3, stride=2, padding=1), [(2, 3, 8, 7)]),
    "max_pool2d ceil": (lambda nn: nn.MaxPool2d((3, 2), 2, dilation=(1, 2), ceil_mode=True), [(2, 3, 8, 7)]),
    "max_pool2d indices": (lambda nn: nn.MaxPool2d(3, 2, 1, return_indices=True), [(2, 3, 8, 7)]),
    "max_pool3d": (lambda nn: nn.MaxPool3d(2), [(2, 4, 4, 5)]),
    "avg_pool1d": (lambda nn: nn.AvgPool1d(3, 2, 1), [(2, 3, 8)]),
    "avg_pool2d": (lambda nn: nn.AvgPool2d(2), [(2, 3, 8, 7)]),
    "avg_pool2d not padding": (
        lambda nn: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        [(2, 3, 8, 7)],
    ),
    "avg_pool2d ceil": (lambda nn: nn.AvgPool2d(3, 2, 1, ceil_mode=True), [(2, 3, 8, 7)]),
    "avg_pool3d divisor": (lambda nn: nn.AvgPool3d(2, divisor_override=3), [(2, 4, 4, 5)]),
    "adaptive_avg 1": (lambda nn: nn.AdaptiveAvgPool2d(1), [(2, 3, 8, 7)]),
    "adaptive_avg dividing": (lambda nn: nn.AdaptiveAvgPool2d((4, None)), [(2, 3, 8, 7)]),
    "adaptive_avg general": (lambda nn: nn.AdaptiveAvgPool2d((5, 3)), [(2, 3, 8, 7)]),
    "adaptive_avg 3d": (lambda nn: nn.AdaptiveAvgPool3d((2, 3, 1)), [(2, 3, 4, 7, 5)]),
    "adaptive_max": (lambda nn: nn.AdaptiveMaxPool2d((5, 3), return_indices=True), [(2, 3, 8, 7)]),
    "adaptive_max 1d": (lambda nn: nn.AdaptiveMaxPool1d(3), [(2, 3, 7)]),
    "adaptive_max, even windows": (
        lambda nn: nn.AdaptiveMaxPool2d((4, 3), return_indices=True),
        [(2, 3, 8, 9)],
    ),
    "lp_pool": (lambda nn: nn.LPPool2d(3, 2, ceil_mode=True), [np.abs(inputs((2, 3, 5, 5))[0])]),
    "flatten": (lambda nn: nn.Flatten(), [(2, 3, 4)]),
    "unflatten": (lambda nn: nn.Unflatten(1, (2, -1)), [(2, 6)]),
    "softmax2d": (lambda nn: nn.Softmax2d(), [(2, 3, 4, 5)]),
    "conv2d reflect": (lambda nn: nn.Conv2d(2, 3, 3, padding=2, padding_mode="reflect"), [(2, 2, 5, 4)]),
    "conv1d circular": (lambda nn: nn.Conv1d(2, 3, 3, padding="same", padding_mode="circular"), [(2, 2, 5)]),
    "pad constant": (lambda nn: nn.ConstantPad2d((1, 2, 0, 3), 2.5), [(2, 3, 4, 5)]),
    "pad zero": (lambda nn: nn.ZeroPad1d(2), [(2, 3, 4)]),
    "pad crop": (lambda nn: nn.ConstantPad3d((1, -1, 0, 2, -1, 1), 0.5), [(1, 2, 3, 4, 5)]),
    "pad reflect": (lambda nn: nn.ReflectionPad2d((1, 2, 3, 0)), [(2, 3, 4, 5)]),
    "pad replicate": (lambda nn: nn.ReplicationPad3d((1, 2, 3, 0, 1, 1)), [(2, 3, 4, 2, 3)]),
    "pad circular": (lambda nn: nn.CircularPad2d((1, 2, 3, 0)), [(2, 3, 4, 5)]),
    "pixel_shuffle": (lambda nn: nn.PixelShuffle(2), [(2, 8, 3, 4)]),
    "pixel_unshuffle": (lambda nn: nn.PixelUnshuffle(2), [(2, 2, 4, 6)]),
    "channel_shuffle": (lambda nn: nn.ChannelShuffle(3), [(2, 6, 3, 4)]),
    "unfold": (lambda nn: nn.Unfold((2, 3), dilation=(1, 2), padding=1, stride=2), [(2, 3, 6, 7)]),
    "fold": (lambda nn: nn.Fold((5, 6), (2, 3), padding=1, stride=(2, 1)), [(2, 12, 18)]),
    "upsample nearest": (lambda nn: nn.Upsample(scale_factor=2), [(2, 3, 4, 5)]),
    "upsample size": (lambda nn: nn.Upsample(size=(7, 3)), [(2, 3, 4, 5)]),
    "upsample bilinear": (lambda nn: nn.Upsample(scale_factor=(2.0, 1.5), mode="bilinear"), [(2, 3, 4, 5)]),
    "upsample aligned": (lambda nn: nn.Upsample(size=9, mode="linear", align_corners=True), [(2, 3, 4)]),
    "upsample bicubic": (lambda nn: nn.Upsample(scale_factor=2, mode="bicubic"), [(2, 3, 4, 5)]),
    "upsample trilinear": (lambda nn: nn.Upsample(scale_factor=2, mode="trilinear"), [(1, 2, 3, 4, 2)]),
    "upsample exact": (lambda nn: nn.Upsample(size=(7, 3), mode="nearest-exact"), [(2, 3, 4, 5)]),
    "upsample area": (lambda nn: nn.Upsample(size=(3, 2), mode="area"), [(2, 3, 4, 5)]),
    "pairwise_distance": (lambda nn: nn.PairwiseDistance(keepdim=True), [(4, 5), (4, 5)]),
    "pairwise_distance 3": (lambda nn: nn.PairwiseDistance(3.0), [(4, 5), (4, 5)]),
    "cosine_similarity": (lambda nn: nn.CosineSimilarity(), [(4, 5, 2), (4, 5, 2)]),
    "glu": (lambda nn: nn.GLU(1), [(2, 4, 3)]),
    "prelu": (lambda nn: nn.PReLU(3), [(2, 3, 4)]),
    "prelu one": (lambda nn: nn.PReLU(), [(2, 3, 4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_layer(name):
    build, shapes = CASES[name]
    same_module(build, inputs(*shapes))


ACTIVATIONS = """
ReLU() | ReLU6() | ReLU(inplace=True) | LeakyReLU(0.2) | LeakyReLU() | RReLU().eval() | ELU(1.3)
CELU(0.7) | SELU() | GELU() | GELU('tanh') | SiLU() | Mish() | Hardtanh(-0.5, 0.8) | Hardsigmoid()
Hardswish() | Hardshrink() | Softshrink(0.3) | Tanhshrink() | Sigmoid() | LogSigmoid() | Tanh()
Softplus() | Softplus(2.0, 3.0) | Softsign() | Softmax(1) | LogSoftmax(-1) | Softmin(0)
Threshold(0.1, 9.0)
"""
ACTIVATIONS = ACTIVATIONS.strip().replace("\n", " | ").split(" | ")


@pytest.mark.parametrize("text", ACTIVATIONS)
def test_activation(text):
    """Also at zero, at large numbers, and at the ends of intervals."""
    special = np.array([0.0, -0.0, 1e3, -1e3, 88.0, -90.0, 3.0, -3.0, 0.5, -0.5, 6.0, 0.8, 20.0], np.float32)
    x = np.concatenate([inputs((27,))[0] * 3, special]).reshape(4, 10)
    results = []
    for T in (graphc, torch):
        module = eval("T.nn." + text, {"T": T})
        leaf = T.from_numpy(x.copy()).requires_grad_(True)
        out = module(leaf * 1)
        (out * T.from_numpy(np.linspace(0.5, 1.5, 40, dtype=np.float32).reshape(4, 10))).sum().backward()
        results.append((repr(module), out.detach().numpy(), leaf.grad.numpy()))
    assert results[0][0] == results[1][0]
    for ours, theirs in zip(results[0][1:], results[1][1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=3e-5, atol=3e-6)


def test_nan_goes_through():
    x = graphc.tensor([float("nan"), 1.0])
    for f in ("relu", "relu6", "hardtanh", "elu", "gelu", "silu", "softplus", "hardswish", "leaky_relu"):
        assert np.isnan(getattr(graphc.nn.functional, f)(x).numpy()).tolist() == [True, False], f
    image = graphc.tensor([[[[1.0, float("nan")], [2.0, 3.0]]]])
    assert np.isnan(graphc.nn.functional.max_pool2d(image, 2).item())


def test_max_pool_gradient_goes_to_the_first_maximum():
    x = graphc.zeros(1, 1, 4, 4).requires_grad_(True)
    graphc.nn.functional.max_pool2d(x, 2).sum().backward()
    assert x.grad.numpy()[0, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


SIGNATURES = [
    name
    for name, member in vars(graphc.nn).items()
    if inspect.isclass(member)
    and hasattr(torch.nn, name)
    and name not in ("Parameter", "Buffer", "UninitializedParameter")
]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    """The same arguments, in the same order, with the same defaults."""
    ours, theirs = (inspect.signature(getattr(T.nn, name).__init__) for T in (graphc, torch))
    assert list(ours.parameters) == list(theirs.parameters)
    for a, b in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        defaults = [getattr(p.default, "__name__", p.default) for p in (a, b)]  # functions by their names
        assert defaults[0] == defaults[1], a.name
        assert a.kind == b.kind, a.name


FUNCTIONS = [n for n in graphc.nn.functional.__all__ if hasattr(torch.nn.functional, n)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_signature(name):
    theirs = getattr(torch.nn.functional, name)
    try:
        wanted = inspect.signature(theirs)
    except ValueError:
        pytest.skip("a builtin without signature")
    if any(p.kind is p.VAR_POSITIONAL for p in wanted.parameters.values()):
        pytest.skip("PyTorch hides the signature behind a dispatcher")
    ours = inspect.signature(getattr(graphc.nn.functional, name))
    assert list(ours.parameters) == list(wanted.parameters)
    for a, b in zip(ours.parameters.values(), wanted.parameters.values(), strict=True):
        assert a.default == b.default or a.default is None, a.name
